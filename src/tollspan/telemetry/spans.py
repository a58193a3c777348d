"""The span of a call: what is known at its start is set there, so that samplers see it; the rest is set at its end."""

from __future__ import annotations

from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from tollspan.model.money import as_float
from tollspan.telemetry import names
from tollspan.telemetry.otel.fast_attributes import put

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext, Tracer
    from opentelemetry.util.types import AttributeValue

    from tollspan.model.records import Call, Cost, Facts, Usage
    from tollspan.telemetry.counters import Totals

Attributes = dict[str, "AttributeValue"]

# Always set where reported, also when zero: a reported zero is a fact.
_TOTALS: Final = (("input", names.INPUT_TOKENS), ("output", names.OUTPUT_TOKENS))
_FETCHED: Final = (("input", names.FETCHED_INPUT_TOKENS), ("output", names.FETCHED_OUTPUT_TOKENS))
# Set when not zero, as the newest text of the conventions requires for breakdowns.
_PARTS: Final = (
    ("cache_read", names.CACHE_READ_TOKENS),
    ("cache_write", names.CACHE_WRITE_TOKENS),
    ("cache_write_5m", names.CACHE_WRITE_5M_TOKENS),
    ("cache_write_1h", names.CACHE_WRITE_1H_TOKENS),
    ("reasoning", names.REASONING_TOKENS),
    ("input_image", names.IMAGE_INPUT_TOKENS),
    ("output_image", names.IMAGE_OUTPUT_TOKENS),
    ("input_audio", names.AUDIO_INPUT_TOKENS),
    ("output_audio", names.AUDIO_OUTPUT_TOKENS),
)
_PART_NAMES: Final = tuple(name for _, name in _PARTS)
_parts_of: Final = attrgetter(*(field for field, _ in _PARTS))
# Known at the end of a call, if at all.
_ENDS: Final = (
    ("response_id", names.RESPONSE_ID),
    ("response_model", names.RESPONSE_MODEL),
    ("time_to_first_chunk", names.TIME_TO_FIRST_CHUNK),
    ("time_to_first_token", names.TIME_TO_FIRST_TOKEN_ATTRIBUTE),
    ("http_status", names.HTTP_STATUS),
    ("error_type", names.ERROR_TYPE),
    ("tier", names.SERVICE_TIER),
    ("cached_by", names.CACHED_BY),
)
_END_NAMES: Final = tuple(name for _, name in _ENDS)
_ends_of: Final = attrgetter(*(field for field, _ in _ENDS))  # one step in C for eight in Python


def start_attributes(provider: str, facts: Facts, host: str, port: int | None, resend_count: int | None) -> Attributes:
    """Return the attributes that are known before a request is sent."""
    attributes: Attributes = {
        names.OPERATION: facts.operation,
        names.PROVIDER: provider,
        names.SERVER_ADDRESS: host,
    }
    if port is not None:
        attributes[names.SERVER_PORT] = port
    if facts.request_model is not None:
        attributes[names.REQUEST_MODEL] = facts.request_model
    if facts.stream:
        attributes[names.REQUEST_STREAM] = True
    if facts.max_output is not None:
        attributes[names.REQUEST_MAX_TOKENS] = facts.max_output
    if facts.choice_count is not None and facts.choice_count != 1:
        attributes[names.REQUEST_CHOICES] = facts.choice_count
    if facts.output_type is not None:
        attributes[names.OUTPUT_TYPE] = facts.output_type
    if facts.reasoning_level is not None:
        attributes[names.REQUEST_REASONING] = facts.reasoning_level
    if facts.previous_response_id is not None:
        attributes[names.REQUEST_PREVIOUS] = facts.previous_response_id
    if resend_count is not None:
        attributes[names.RESEND_COUNT] = resend_count
    return attributes


def start_span(
    tracer: Tracer,
    facts: Facts,
    attributes: Attributes,
    started_at: int,
    link: Link | None = None,
) -> Span:
    """Start the span `{operation} {model}`; `link` leads from a retry to the first attempt of its operation."""
    model = facts.request_model
    return tracer.start_span(
        f"{facts.operation} {model}" if model else facts.operation,
        None,
        SpanKind.CLIENT,
        attributes,
        (link,) if link is not None else (),
        started_at,
    )


def end_attributes(call: Call, *, aliases: bool = False) -> Attributes:
    """Return the attributes that are known when a call has ended; `aliases` adds the cost under other tools' names."""
    attributes: Attributes = {
        names.CALL_ID: call.id,
        names.OPERATION_ID: call.operation_id,
        names.OUTCOME: call.outcome,
    }
    for name, value in zip(_END_NAMES, _ends_of(call), strict=True):
        if value is not None:
            attributes[name] = value
    if call.attribution:
        add_attribution(attributes, call.attribution)
    if call.finish_reasons:
        attributes[names.FINISH_REASONS] = call.finish_reasons
    if call.pending:
        attributes[names.PENDING] = True
    if call.usage is not None:
        _add_usage(attributes, call, call.usage)
    if call.avoided is not None:
        attributes[names.COST_AVOIDED] = as_float(call.avoided)
    if call.billable:
        add_cost(attributes, call.cost, aliases=aliases)
    return attributes


ATTRIBUTION_ATTRIBUTES: Final = {
    "user": (names.USER_ID,),
    "session": (names.SESSION_ID, names.CONVERSATION_ID),
    "run": (names.RUN_ID,),
    "step": (names.STEP,),
    "agent": (names.AGENT_NAME,),
}
"""Key of attribution -> attributes. Each tag has its own attribute, `tollspan.tag.NAME`."""


def add_attribution(attributes: Attributes, values: Mapping[str, str]) -> None:
    """Write the attribution of a call; tags under names of ours."""
    for key, value in values.items():
        for name in ATTRIBUTION_ATTRIBUTES.get(key, (names.TAG + key.removeprefix("tag."),)):
            attributes[name] = value


def _add_usage(attributes: Attributes, call: Call, usage: Usage) -> None:
    if call.settles is not None:
        # The conventions do not let a fetch report usage: a program that polls may see the usage more than once.
        attributes[names.SETTLES] = call.settles
        totals: Sequence[tuple[str, str]] = _FETCHED
    else:
        totals = _TOTALS
        for name, value in zip(_PART_NAMES, _parts_of(usage), strict=True):
            if value:
                attributes[name] = value
    for field, name in totals:
        if (value := getattr(usage, field)) is not None:
            attributes[name] = value
    if call.usage_quality != "measured":
        attributes[names.USAGE_QUALITY] = call.usage_quality


_COST_NAMES: Final = (names.COST_PRICE_KEY, names.COST_RULE, names.COST_TABLE, names.COST_NOTE)
_cost_of: Final = attrgetter("price_key", "rule", "table_version", "note")


def add_cost(attributes: Attributes, cost: Cost, *, aliases: bool = False) -> None:
    """Write a cost: the amount under the proposed names, its details under ours. An unpriced call has no amount."""
    attributes[names.COST_QUALITY] = cost.quality
    if cost.amount is not None:
        attributes[names.COST_AMOUNT] = amount = as_float(cost.amount)
        attributes[names.COST_CURRENCY] = cost.currency
        if cost.source is not None:
            attributes[names.COST_SOURCE] = cost.source
        if aliases:
            attributes.update(dict.fromkeys(names.COST_ALIASES, amount))
    for name, value in zip(_COST_NAMES, _cost_of(cost), strict=True):
        if value is not None:
            attributes[name] = value
    if cost.missing:
        attributes[names.COST_MISSING] = cost.missing
    if cost.computed != cost.amount or cost.low is not None or cost.high is not None:
        _add_others(attributes, cost)
    for kind, part in cost.breakdown.items():
        attributes[_breakdown(kind)] = as_float(part)


def _add_others(attributes: Attributes, cost: Cost) -> None:
    """Write the bounds of an amount, and the computed amount if the provider stated another one."""
    computed = None if cost.computed == cost.amount else cost.computed
    for name, part in ((names.COST_LOW, cost.low), (names.COST_HIGH, cost.high), (names.COST_COMPUTED, computed)):
        if part is not None:
            attributes[name] = as_float(part)


@cache
def _breakdown(kind: str) -> str:
    """Return the attribute of a part of a cost; the price engine has a fixed number of kinds."""
    return names.COST_BREAKDOWN + kind


def span_of(tracer: Tracer, call: Call, context: Context, *, aliases: bool = False) -> None:
    """Write the span of a call that has ended already; its parent is the span in `context`."""
    attributes: Attributes = {names.OPERATION: call.operation, names.PROVIDER: call.provider}
    for name, value in (
        (names.REQUEST_MODEL, call.request_model),
        (names.SERVER_ADDRESS, call.server_address),
        (names.SERVER_PORT, call.server_port),
        (names.REQUEST_STREAM, call.stream or None),
        (names.RESEND_COUNT, call.resend_count),
    ):
        if value is not None:
            attributes[name] = value
    name = f"{call.operation} {call.request_model}" if call.request_model else call.operation
    end_span(tracer.start_span(name, context, SpanKind.CLIENT, attributes, (), call.started_at), call, aliases=aliases)


def start_fetch_span(tracer: Tracer, call: Call, request_span: SpanContext, context: Context) -> Span:
    """Start the span of a fetch that received a finished response; a link leads to the span of its request."""
    attributes: Attributes = {names.OPERATION: names.FETCH_RESPONSE, names.PROVIDER: call.provider}
    if call.server_address is not None:
        attributes[names.SERVER_ADDRESS] = call.server_address
    if call.server_port is not None:
        attributes[names.SERVER_PORT] = call.server_port
    links = (Link(request_span),) if request_span.is_valid else ()
    return tracer.start_span(names.FETCH_RESPONSE, context, SpanKind.CLIENT, attributes, links, call.started_at)


def end_results_span(span: Span, ended_at: int, batch: str, totals: Totals) -> None:
    """End the span of a download of a batch's results, with the sums of the results that were not counted before."""
    attributes: Attributes = {
        names.BATCH_ID: batch,
        names.BATCH_RESULTS: totals.calls,
        names.BATCH_FAILED: totals.failed,
        names.BATCH_UNPRICED: totals.unpriced,
        names.FETCHED_INPUT_TOKENS: totals.input,
        names.FETCHED_OUTPUT_TOKENS: totals.output,
    }
    if totals.calls > totals.failed + totals.unpriced:
        attributes |= {names.COST_AMOUNT: as_float(totals.spend), names.COST_CURRENCY: "USD"}
    span.set_attributes(attributes)
    span.end(ended_at)


def end_span(span: Span, call: Call, *, aliases: bool = False) -> None:
    """Complete and end the span of a call, at its start plus its duration."""
    if span.is_recording():
        put(span, end_attributes(call, aliases=aliases))
        if call.error_type is not None:
            span.set_status(Status(StatusCode.ERROR, call.error_type))
    span.end(call.started_at + round(call.duration * 1e9))
