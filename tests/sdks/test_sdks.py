"""The real SDKs, each in each way of calling it: one record, and tollspan's bill is the provider's."""

from __future__ import annotations

import asyncio
import inspect
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

import tollspan
from examples.fake_provider import FakeProvider
from tests.sdks.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Metered

CASES = [pytest.param(provider, case, id=case.__name__) for provider, cases in SCENARIOS.items() for case in cases]
COUNTS = ("input", "output", "cache_read", "cache_write", "reasoning")


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    """Return a fake provider that compresses and cuts its answers, as real ones do, and has empty books."""
    with FakeProvider(encoding="gzip", cuts=83) as provider:
        yield provider


@pytest.mark.parametrize(("provider", "case"), CASES)
def test_bill_is_the_providers(
    instrumented: Callable[..., Metered], fake: FakeProvider, provider: str, case: Callable[[str], Any]
) -> None:
    """One call is one record with the tokens and the cost of the provider's own books, and nothing of ours failed."""
    metered = instrumented(hosts=[f"{fake.netloc}/{provider}={provider}"])
    work = case(fake.base_url(provider))
    if inspect.isawaitable(work):
        asyncio.run(_finish(work))
    tally = fake.tally()
    (row,) = tally["by"]
    (call,) = metered.calls
    assert call.usage is not None
    assert metered.recorder.accumulator.calls == tally["attempts"] == 1
    assert {name: getattr(call.usage, name) or 0 for name in COUNTS} == {name: row[name] for name in COUNTS}
    assert call.cost.amount is not None
    assert tollspan.usd(call.cost.amount) == Decimal(row["cost_usd"]) > 0
    assert (call.outcome, call.cost.quality) == ("ok", "measured")
    assert (call.time_to_first_token is not None) is ("stream" in case.__name__)
    assert metered.errors() == {}


async def _finish(work: Any) -> None:
    await work
