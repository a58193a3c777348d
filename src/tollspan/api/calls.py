"""Records of calls for programs: read them, subscribe to them, add calls that did not go over HTTP.

Without `instrument()`, `record` only returns the cost. As everywhere in tollspan, `Usage.input` includes cache reads
and writes, and `Usage.output` includes reasoning. Anthropic's own counts exclude the cache: add it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, Self

from opentelemetry.trace import SpanKind

from tollspan.api.pricing import labels_of, price_table, provider_name
from tollspan.attribution import current_attribution
from tollspan.model.call_record import call_record
from tollspan.model.ids import new_id
from tollspan.model.money import usd
from tollspan.model.records import Billable, Facts, Usage
from tollspan.model.text import as_text
from tollspan.prices import price
from tollspan.setup.instrument import current
from tollspan.telemetry import names
from tollspan.telemetry.span_ids import span_ids
from tollspan.wire.dialects.fields import MAX_COST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tollspan.model.records import Call, Cost

TOOL: Final = "execute_tool"


def record(  # noqa: PLR0913 - the parts of a record
    model: str | None = None,
    usage: Usage | None = None,
    *,
    provider: str,
    operation: str = "chat",
    tool: str | None = None,
    cost_usd: Decimal | str | float | None = None,
    duration: float = 0.0,
    time_to_first_chunk: float | None = None,
    tier: str | None = None,
    region: str | None = None,
) -> Cost:
    """Record a call that did not go over HTTP, or a paid tool's cost: span, metrics, budgets and ledger.

    Args:
        model: the model that was called; None for a tool.
        usage: its counts, as for `cost_of`.
        provider: as for `cost_of`; for a tool, its vendor.
        operation: the conventions' operation name; `execute_tool` if `tool` is given.
        tool: the name of a paid tool.
        cost_usd: its cost in US dollars, if known; it takes precedence over the price table.
        duration: its duration in seconds; the call has ended now.
        time_to_first_chunk: seconds to the first chunk of a stream.
        tier: the served service tier.
        region: the cloud region, if prices differ by region.

    Returns:
        The recorded cost. Before `instrument()` it is only computed, and nothing is recorded.

    Raises:
        ValueError: a count, an amount or a time is negative, not finite, or implausibly large.
    """
    _check(usage, duration, time_to_first_chunk)
    provider, operation = as_text(provider), as_text(operation)
    model, tool, tier, region = (text and as_text(text) for text in (model, tool, tier, region))
    counts = usage or Usage()
    billable = Billable(
        usage=counts,
        price_providers=labels_of(provider),
        model=model,
        operation=operation,
        tier=tier,
        region=region,
        provider_cost=None if cost_usd is None else _dollars(cost_usd),
    )
    cost = price(billable, price_table()(), datetime.now(UTC))
    recorder = current()
    if recorder is None:
        return cost
    name = tool or model
    started_at = time_ns() - round(duration * 1e9)
    kind = TOOL if tool else operation
    attributes = {names.OPERATION: kind, names.PROVIDER: provider_name(provider)}
    attributes |= {names.TOOL_NAME if tool else names.REQUEST_MODEL: name} if name else {}
    span = recorder.tracer.start_span(
        f"{kind} {name}" if name else kind,
        kind=SpanKind.INTERNAL if tool else SpanKind.CLIENT,
        attributes=attributes,
        start_time=started_at,
    )
    identifier = new_id()
    trace_id, span_id = span_ids(span.get_span_context())
    facts = Facts(kind)
    facts.request_model, facts.response_model = name, model
    facts.tier, facts.region = tier, region
    facts.stream = time_to_first_chunk is not None
    call = call_record(
        facts,
        call_id=identifier,
        operation_id=identifier,
        provider=provider_name(provider),
        started_at=started_at,
        duration=duration,
        attribution=current_attribution(),
        usage=counts,
        cost=cost,
        time_to_first_chunk=time_to_first_chunk,
        price_labels=billable.price_providers,
        trace_id=trace_id,
        span_id=span_id,
    )
    recorder.record(call, span)
    return cost


def _dollars(value: Decimal | str | float) -> Decimal:
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        amount = Decimal("NaN")
    if amount.is_finite() and 0 <= amount <= MAX_COST:
        return amount
    raise ValueError(f"cost_usd={value!r} is invalid; expected US dollars from 0 to {MAX_COST:,}")


def _check(usage: Usage | None, *seconds: float | None) -> None:
    """Raise ValueError for implausible values: once recorded, they would be in every sum."""
    for name, count in () if usage is None else ((field.name, getattr(usage, field.name)) for field in fields(usage)):
        numbers = count.values() if name == "units" else () if count is None else (count,)
        if not all(isinstance(number, (int, float, Decimal)) and 0 <= number <= _MOST for number in numbers):
            raise ValueError(f"usage.{name}={count!r} is invalid; expected a number from 0 to {_MOST:,}")
    if not all(number is None or 0 <= number <= _MOST_SECONDS for number in seconds):
        raise ValueError(f"invalid time; expected seconds from 0 to {_MOST_SECONDS:,}")


_MOST: Final = 10**12
_MOST_SECONDS: Final = 10**8


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """A short record of one call, for applications to store or send. Times are in milliseconds, the cost in US dollars.

    `input_tokens` includes the cache, `output_tokens` the reasoning. Unknown values are None and absent from
    `to_dict()`. `cost_quality` is "measured", "provider", "estimated", "floor" or "unpriced"; an unpriced call has no
    `cost_usd`.
    """

    provider: str
    model: str | None = None
    operation: str = "chat"
    outcome: str = "ok"
    error_type: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: Decimal | None = None
    cost_quality: str | None = None
    ttft_ms: float | None = None
    duration_ms: float | None = None
    started_at: datetime | None = None
    call_id: str | None = None

    @classmethod
    def of(cls, call: Call) -> Self:
        """Return the record of a call."""
        usage = call.usage or Usage()
        first = call.time_to_first_token
        return cls(
            provider=call.provider,
            model=call.model,
            operation=call.operation,
            outcome=call.outcome,
            error_type=call.error_type,
            input_tokens=usage.input,
            output_tokens=usage.output,
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=usage.cache_write,
            reasoning_tokens=usage.reasoning,
            cost_usd=None if call.cost.amount is None else usd(call.cost.amount),
            cost_quality=call.cost.quality,
            ttft_ms=None if first is None else first * 1e3,
            duration_ms=call.duration * 1e3,
            started_at=datetime.fromtimestamp(call.started_at / 1e9, UTC),
            call_id=call.id,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values without those that are None; the cost is a decimal string, to stay exact."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.cost_usd is not None:
            found["cost_usd"] = str(self.cost_usd)
        if self.started_at is not None:
            found["started_at"] = self.started_at.isoformat()
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the record of a dictionary from `to_dict()` of this or an older version; unknown keys are ignored.

        Raises:
            ValueError: `provider` is missing.
        """
        if "provider" not in data:
            raise ValueError("a usage record needs `provider`")
        known = {field.name for field in fields(cls)}
        found = {name: value for name, value in data.items() if name in known}
        if "cost_usd" in found:
            cost = found.pop("cost_usd")
            with suppress(InvalidOperation):
                found["cost_usd"] = Decimal(str(cost))
        if isinstance(found.get("started_at"), str):
            found["started_at"] = datetime.fromisoformat(found["started_at"])
        return cls(**found)


def last_call() -> UsageRecord | None:
    """Return the record of the last call that ended in this process, or None."""
    recorder = current()
    return None if recorder is None or recorder.last is None else UsageRecord.of(recorder.last)


def subscribe(callback: Callable[[UsageRecord], None]) -> Callable[[], None]:
    """Call `callback` with the record of each call as it ends; return a function that stops this.

    It runs in the thread that ended the call and should be fast. Its exceptions are counted and logged, never raised.
    Before `instrument()` it is never called.
    """
    recorder = current()
    if recorder is None:
        return lambda: None

    def forward(call: Call) -> None:
        callback(UsageRecord.of(call))

    recorder.subscribers.append(forward)

    def stop() -> None:
        with suppress(ValueError):
            recorder.subscribers.remove(forward)

    return stop
