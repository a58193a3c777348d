"""A fake provider, and hosts that lead to it, for tests of budgets with the real SDKs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from examples.fake_provider import FakeProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

PROVIDERS = ("openai", "anthropic", "gemini", "cohere")


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    """Start a fake provider on loopback."""
    with FakeProvider() as fake:
        yield fake


@pytest.fixture
def fake(provider: FakeProvider) -> FakeProvider:
    """Return the fake provider with empty books."""
    provider.reset()
    return provider


@pytest.fixture
def hosts(fake: FakeProvider) -> str:
    """Return the setting that tells which provider answers where."""
    return ", ".join(f"{fake.netloc}/{name}={name}" for name in PROVIDERS)
