"""A fake provider for each test, and clients of the real SDKs that talk to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anthropic
import httpx
import openai
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.fake_provider import FakeProvider


@pytest.fixture
def openai_client(fake: FakeProvider) -> Iterator[openai.OpenAI]:
    """Return OpenAI's own SDK, pointed at the fake."""
    with openai.OpenAI(base_url=fake.base_url("openai"), api_key="any") as client:
        yield client


@pytest.fixture
def anthropic_client(fake: FakeProvider) -> Iterator[anthropic.Anthropic]:
    """Return Anthropic's own SDK, pointed at the fake."""
    with anthropic.Anthropic(base_url=fake.base_url("anthropic"), api_key="any") as client:
        yield client


@pytest.fixture
def http(fake: FakeProvider) -> Iterator[httpx.Client]:
    """Return a bare HTTP client with a key."""
    with httpx.Client(base_url=fake.url, headers={"authorization": "Bearer any"}, trust_env=False) as client:
        yield client
