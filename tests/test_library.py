"""Prices for programs: a usage, a call before it is made, a call that did not go over HTTP. Sums are worked by hand."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

import tollspan
from tests.capture.mock_wires import CHAT, CHAT_REQUEST, LIBRARIES, OPENAI, Wire, packed, post
from tollspan import Usage, UsageRecord, usd

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Metered


def dollars(cost: tollspan.Cost) -> Decimal:
    """Return the amount of a priced cost in dollars."""
    assert cost.amount is not None
    return usd(cost.amount)


@pytest.mark.parametrize("provider", ["anthropic"])
def test_cost_of_counts_the_cache_in(provider: str) -> None:
    """Input includes the cache: of 1,500 tokens 1,024 are read, 300 written, and 176 left at the full rate.

    176 x 1.00 + 1,024 x 0.10 + 300 x 1.25 + 345 x 5.00 = 2,378.4 dollars a million.
    """
    usage = Usage(input=1500, output=345, cache_read=1024, cache_write=300)
    cost = tollspan.cost_of("claude-haiku-4-5", usage, provider=provider)
    assert dollars(cost) == Decimal("0.0023784")
    assert (cost.quality, cost.source) == ("measured", "local")
    assert sum(cost.breakdown.values()) == cost.amount


def test_cost_of_takes_keys_names_and_labels() -> None:
    """A provider can be named by tollspan's key, the conventions' name or LiteLLM's label."""
    usage = Usage(input=1000, output=100)
    costs = {p: tollspan.cost_of("mistral-small-latest", usage, provider=p).amount for p in ("mistral", "mistral_ai")}
    assert len(set(costs.values())) == 1
    assert None not in costs.values()


def test_cost_of_an_unknown_model_is_unpriced() -> None:
    """Without a price there is no amount, and no zero."""
    cost = tollspan.cost_of("gpt-99", Usage(input=1), provider="openai")
    assert (cost.amount, cost.quality) == (None, "unpriced")


def test_estimate_has_bounds() -> None:
    """An estimate lies between no output at all and the most that the request allows; a longer prompt costs more."""
    short = tollspan.estimate("gpt-4o-mini", {**CHAT_REQUEST, "max_tokens": 1000}, provider="openai")
    long = tollspan.estimate("gpt-4o-mini", "a word or two " * 1000, provider="openai", output=1000)
    assert short.quality == "estimated"
    assert short.low is not None
    assert short.high is not None
    assert Decimal(0) < usd(short.low) < dollars(short) <= usd(short.high)
    # 1,000 output tokens at 0.60 dollars a million, and a few for the question
    assert Decimal("0.0006") < dollars(short) < Decimal("0.00061")
    assert dollars(long) > dollars(short)


def test_estimate_without_a_limit_takes_the_models(metered: Metered) -> None:
    """Where nothing limits the output, the most that the model can produce is reckoned with: 16,384 tokens here."""
    cost = tollspan.estimate("gpt-4o-mini", "hello", provider="openai")
    assert dollars(cost) > Decimal(16384) * Decimal("0.60") / 10**6
    assert metered.spans == ()


def test_record_enters_a_call(metered: Metered) -> None:
    """A call that went over something else than HTTP is a span, counts in every sum, and gives its cost."""
    cost = tollspan.record(
        "gpt-4o-mini", Usage(input=1200, output=345, cache_read=1024), provider="openai", duration=2.5
    )
    assert dollars(cost) == Decimal("0.0003102")
    attributes = metered.attributes
    assert metered.span.name == "chat gpt-4o-mini"
    assert attributes["gen_ai.provider.name"] == "openai"
    assert attributes["gen_ai.usage.input_tokens"] == 1200
    assert attributes["gen_ai.usage.cost.amount"] == pytest.approx(0.0003102)
    assert metered.points("tollspan.spend")[0].value == pytest.approx(0.0003102)
    end, start = metered.span.end_time, metered.span.start_time
    assert end is not None
    assert start is not None
    assert end - start == 2_500_000_000


def test_record_enters_a_tools_cost(metered: Metered) -> None:
    """A paid tool's cost is taken as it is stated."""
    cost = tollspan.record(provider="acme", tool="search", cost_usd="0.01")
    assert dollars(cost) == Decimal("0.01")
    assert metered.span.name == "execute_tool search"
    assert metered.attributes["gen_ai.tool.name"] == "search"
    assert metered.points("tollspan.spend")[0].value == pytest.approx(0.01)


def test_prices_need_no_telemetry() -> None:
    """In a process that sets nothing up, prices and records are there all the same."""
    code = (
        "import tollspan; u = tollspan.Usage(input=1000000);"
        "print(tollspan.usd(tollspan.cost_of('gpt-4o-mini', u, provider='openai').amount).normalize(),"
        "tollspan.usd(tollspan.record('gpt-4o-mini', u, provider='openai').amount).normalize(), tollspan.last_call())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "0.15 0.15 None"


def test_usage_records_go_there_and_back(metered: Metered) -> None:
    """A record survives JSON without losing a digit; what is not known is left out; older and newer ones load."""
    seen: list[UsageRecord] = []
    stop = tollspan.subscribe(seen.append)
    post(Wire(pieces=[packed(CHAT)]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    stop()
    post(Wire(status=500, pieces=[b""]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    (record,) = seen
    assert record.cost_usd == Decimal("0.0003102")
    data = record.to_dict()
    assert "ttft_ms" not in data
    assert UsageRecord.from_dict(data) == record
    assert UsageRecord.from_dict({"provider": "openai", "cost_usd": 0.5, "from_the_future": 1}).cost_usd == Decimal(
        "0.5"
    )
    last = tollspan.last_call()
    assert last is not None
    assert (last.outcome, last.cost_usd, len(metered.spans)) == ("error", Decimal(0), 2)


@pytest.mark.parametrize(
    "given",
    [
        {"usage": Usage(input=2**70)},
        {"usage": Usage(output=-1)},
        {"usage": Usage(input="5")},  # type: ignore[arg-type]
        {"usage": Usage(units={"web_searches": float("nan")})},
        {"cost_usd": "1e400"},
        {"cost_usd": -5},
        {"cost_usd": float("nan")},
        {"cost_usd": "a dollar"},
        {"duration": float("nan")},
        {"duration": 1e12},
        {"duration": -1.0},
        {"time_to_first_chunk": float("inf")},
    ],
)
def test_record_refuses_what_no_call_can_have(instrumented: Callable[..., Metered], given: dict[str, Any]) -> None:
    """A number that would stand in every sum, or could not be exported, is an error that says what is accepted."""
    metered = instrumented()
    with pytest.raises(ValueError, match="from 0 to"):
        tollspan.record("gpt-4o-mini", provider="openai", **given)
    assert metered.recorder.accumulator.calls == 0
    assert metered.spans == ()
