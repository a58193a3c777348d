"""What programs call: price a usage, estimate a call before it is made, enter a call that did not go over HTTP.

All of it works without `instrument()`: `record` then only prices. Convention, as everywhere in tollspan:
`Usage.input` includes cache reads and writes, `Usage.output` includes reasoning. A usage read off Anthropic's own wire
leaves the cache out: add it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, Self

from opentelemetry.trace import SpanKind

from tollspan.attempts.recorder import providers_in_force
from tollspan.attribution import values_in_force
from tollspan.dialects.fields import MAX_COST
from tollspan.estimates import input_tokens
from tollspan.families import family_of
from tollspan.identifiers import new_id
from tollspan.instrument import current
from tollspan.parts.prices import price_source
from tollspan.prices import price
from tollspan.providers import COMPATIBLE
from tollspan.settings import load
from tollspan.telemetry import names
from tollspan.usage import Billable, Call, Cost, Usage, as_text, usd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tollspan.prices import PriceTable
    from tollspan.providers import Directory, Prompting, Provider

TOOL: Final = "execute_tool"


def cost_of(  # noqa: PLR0913 - what a price depends on
    model: str,
    usage: Usage,
    *,
    provider: str,
    at: datetime | None = None,
    tier: str | None = None,
    geography: str | None = None,
    speed: str | None = None,
    region: str | None = None,
    operation: str = "chat",
) -> Cost:
    """Price a usage exactly, by the price table in force.

    Args:
        model: as the provider names it.
        usage: the counts; input includes the cache, output the reasoning.
        provider: a provider's key (`tollspan providers`), its `gen_ai.provider.name`, or a LiteLLM provider label.
        at: the moment of the call, for dated prices and off-peak hours; now by default.
        tier: the service tier that was served, in the provider's word (flex, priority, batch...).
        geography: where the provider says that it ran (Anthropic's `inference_geo`).
        speed: Anthropic's `speed`.
        region: the cloud region, where prices differ by region.
        operation: the conventions' operation name.

    Returns:
        The cost in atto-dollars (`tollspan.usd` gives dollars), with its breakdown; `amount` is None without a price.
    """
    billable = Billable(
        usage=usage,
        price_providers=labels_of(provider),
        model=model,
        operation=operation,
        tier=tier,
        geography=geography,
        speed=speed,
        region=region,
    )
    return price(billable, _table()(), at or datetime.now(UTC))


def estimate(  # noqa: PLR0913 - what a price depends on
    model: str,
    request: str | Mapping[str, Any],
    *,
    provider: str,
    output: int | None = None,
    tier: str | None = None,
    region: str | None = None,
) -> Cost:
    """Estimate what a call will cost, before it is made; nothing is sent.

    Args:
        model: as the provider names it.
        request: the JSON object that would be sent, or the text of a prompt.
        provider: as for `cost_of`.
        output: output tokens that are expected; by default the most that the request allows, or the model can produce.
        tier: the service tier that would be asked for.
        region: the cloud region, where prices differ by region.

    Returns:
        A cost of quality `estimated`, with bounds in `low` (no output at all) and `high`; unpriced without a price.
    """
    body = {"messages": [{"role": "user", "content": request}]} if isinstance(request, str) else request
    read = input_tokens(body, family_of(model), by=_prompting(provider, model))
    low, value, high = read or (0, 0, 0)
    most = output if output is not None else _limit(body)
    if most is None:
        billable = Billable(usage=Usage(), price_providers=labels_of(provider), model=model)
        tariff = _table()().tariff(billable, model, None, datetime.now(UTC))
        most = (tariff.row.max_output if tariff is not None else None) or 0

    def priced(taken: int, given: int) -> Cost:
        return cost_of(model, Usage(input=taken, output=given), provider=provider, tier=tier, region=region)

    best = priced(value, most)
    if best.amount is None:
        return best
    return replace(best, quality="estimated", low=priced(low, 0).amount, high=priced(high, most).amount)


_LIMITS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")


def _limit(body: Mapping[str, Any]) -> int | None:
    return next((value for key in _LIMITS if isinstance(value := body.get(key), int)), None)


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
    """Enter a call that did not go over HTTP, or a paid tool's cost, into spans, counters and all that hangs on them.

    Args:
        model: the model that was called; None for a tool.
        usage: its counts, as for `cost_of`.
        provider: as for `cost_of`; for a tool, who charges for it.
        operation: the conventions' operation name; `execute_tool` where `tool` is given.
        tool: the name of a paid tool.
        cost_usd: what it cost in US dollars, where that is known; it wins over the price table.
        duration: seconds it took; it is taken to have ended now.
        time_to_first_chunk: seconds to the first chunk, for a stream.
        tier: the service tier that was served.
        region: the cloud region, where prices differ by region.

    Returns:
        The cost that was entered. Before `instrument()` it is only computed, and nothing is entered.

    Raises:
        ValueError: a count, an amount or a time is negative, not finite, or larger than it can be.
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
    cost = price(billable, _table()(), datetime.now(UTC))
    recorder = current()
    if recorder is None:
        return cost
    name = tool or model
    started_at = time_ns() - round(duration * 1e9)
    kind = TOOL if tool else operation
    attributes = {names.OPERATION: kind, names.PROVIDER: _name(provider)}
    attributes |= {names.TOOL_NAME if tool else names.REQUEST_MODEL: name} if name else {}
    span = recorder.tracer.start_span(
        f"{kind} {name}" if name else kind,
        kind=SpanKind.INTERNAL if tool else SpanKind.CLIENT,
        attributes=attributes,
        start_time=started_at,
    )
    identifier = new_id()
    context = span.get_span_context()
    call = Call(
        id=identifier,
        operation_id=identifier,
        provider=_name(provider),
        operation=kind,
        started_at=started_at,
        duration=duration,
        request_model=name,
        response_model=model,
        usage=counts,
        cost=cost,
        tier=tier,
        region=region,
        price_labels=billable.price_providers,
        time_to_first_chunk=time_to_first_chunk,
        stream=time_to_first_chunk is not None,
        trace_id=f"{context.trace_id:032x}" if context.is_valid else None,
        span_id=f"{context.span_id:016x}" if context.is_valid else None,
        attribution=values_in_force(),
    )
    recorder.record(call, span)
    return cost


def _dollars(told: Decimal | str | float) -> Decimal:
    try:
        amount = Decimal(str(told))
    except InvalidOperation:
        amount = Decimal("NaN")
    if amount.is_finite() and 0 <= amount <= MAX_COST:
        return amount
    raise ValueError(f"cost_usd={told!r}: a call costs from 0 to {MAX_COST:,} US dollars")


def _check(usage: Usage | None, *seconds: float | None) -> None:
    """Refuse what no call can have: once entered, it would be in every sum, and some could not be exported any more."""
    for name, count in () if usage is None else ((field.name, getattr(usage, field.name)) for field in fields(usage)):
        numbers = count.values() if name == "units" else () if count is None else (count,)
        if not all(isinstance(number, (int, float, Decimal)) and 0 <= number <= _MOST for number in numbers):
            raise ValueError(f"usage.{name}={count!r}: a count is a number from 0 to {_MOST:,}")
    if not all(number is None or 0 <= number <= _MOST_SECONDS for number in seconds):
        raise ValueError(f"a time is given in seconds, from 0 to {_MOST_SECONDS:,}")


_MOST: Final = 10**12
_MOST_SECONDS: Final = 10**8


def labels_of(provider: str) -> tuple[str, ...]:
    """Give the LiteLLM labels of a provider's key or name; what is neither is taken for a label itself."""
    known = _providers()
    if provider in known:
        return known[provider].labels
    return next((entry.labels for entry in known.values() if entry.name == provider), (provider,))


def labels_now(call: Call, directory: Directory) -> tuple[str, ...]:
    """Give the LiteLLM labels that a recorded call is priced by: those it was recorded with, as a rule.

    Where its host was nobody's and has got a provider since (TOLLSPAN_HOSTS), they are that provider's: `directory`
    knows it.
    """
    if call.provider.endswith(COMPATIBLE) and call.server_address is not None:
        known = {provider.labels for provider in directory.of_host(call.server_address, call.server_port)}
        if len(known) == 1:
            return known.pop()
    return call.price_labels or labels_of(call.provider)


def _prompting(provider: str, model: str) -> Prompting | None:
    known = _providers().get(provider)
    return None if known is None else known.prompting(model)


def _name(provider: str) -> str:
    known = _providers().get(provider)
    return known.name if known is not None else provider


def _table() -> Callable[[], PriceTable]:
    recorder = current()
    return recorder.table if recorder is not None else _source()


@cache
def _providers() -> dict[str, Provider]:
    return providers_in_force(load())


@cache
def _source() -> Callable[[], PriceTable]:
    return price_source(load())


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """One call in the fewest words: what apps store or send on. Tokens are counts, times milliseconds, cost US dollars.

    `input_tokens` includes the cache, `output_tokens` the reasoning. What is not known is None, and absent from
    `to_dict()`. `cost_quality` is as in the README ("measured", "unpriced"...); an unpriced call has no `cost_usd`.
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
        """Give the record of a call."""
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
        """Give JSON values; the cost is a decimal string, lest a cent be lost; what is None is left out."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.cost_usd is not None:
            found["cost_usd"] = str(self.cost_usd)
        if self.started_at is not None:
            found["started_at"] = self.started_at.isoformat()
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict()` of this or an older version gave; unknown keys are passed over.

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
    """Give the record of the call that ended last in this process, or None before the first."""
    recorder = current()
    return None if recorder is None or recorder.last is None else UsageRecord.of(recorder.last)


def subscribe(callback: Callable[[UsageRecord], None]) -> Callable[[], None]:
    """Have `callback` called with the record of each call as it ends; give a function that ends this.

    It runs in the thread that ended the call: it has to be quick. What it raises is counted and logged, and reaches
    nobody. Before `instrument()` nothing is called.
    """
    recorder = current()
    if recorder is None:
        return lambda: None

    def tell(call: Call) -> None:
        callback(UsageRecord.of(call))

    recorder.subscribers.append(tell)

    def stop() -> None:
        with suppress(ValueError):
            recorder.subscribers.remove(tell)

    return stop
