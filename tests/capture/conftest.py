"""Fixtures of the tests of calls over httpx and httpx2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tollspan.capture.stream_usage import HOST_SUPPORT

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def hosts_forgotten() -> Iterator[None]:
    """Forget what hosts have accepted, before and after a test."""
    HOST_SUPPORT.clear()
    yield
    HOST_SUPPORT.clear()
