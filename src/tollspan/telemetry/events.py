"""Calls as OpenTelemetry log events: what the ledger keeps of a call, for the store of a fleet.

    recorder.views.append(("events", Events(logger, defaults).add))

One event, `tollspan.call`, for each record, denials too: linked to the call's span, with the attributes that
collector-config/README.md lists. They contain no text of a prompt or a response: a call has no field for it.
The SDK exports events in a thread of its own: here the event is only put into its queue.
"""

from __future__ import annotations

import json
from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from tollspan.model.money import usd
from tollspan.model.records import Usage
from tollspan.model.text import as_text
from tollspan.telemetry import names
from tollspan.telemetry.otel.log_records import LogRecord, SeverityNumber

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.util.types import AttributeValue

    from tollspan.model.records import Call, Cost
    from tollspan.telemetry.otel.log_records import Logger

_CALL: Final = (
    ("operation", names.OPERATION),
    ("provider", names.PROVIDER),
    ("request_model", names.REQUEST_MODEL),
    ("response_model", names.RESPONSE_MODEL),
    ("response_id", names.RESPONSE_ID),
    ("server_address", names.SERVER_ADDRESS),
    ("server_port", names.SERVER_PORT),
    ("http_status", names.HTTP_STATUS),
    ("error_type", names.ERROR_TYPE),
    ("resend_count", names.RESEND_COUNT),
    ("time_to_first_chunk", names.TIME_TO_FIRST_CHUNK),
    ("time_to_first_token", names.TIME_TO_FIRST_TOKEN_ATTRIBUTE),
    ("tier", names.SERVICE_TIER),
    ("region", names.REGION),
    ("geography", names.GEOGRAPHY),
    ("speed", names.SPEED),
    ("search_context", names.SEARCH_CONTEXT),
    ("cached_by", names.CACHED_BY),
    ("settles", names.SETTLES),
    ("id", names.CALL_ID),
    ("operation_id", names.OPERATION_ID),
    ("outcome", names.OUTCOME),
    ("billable", names.BILLABLE),
    ("stream", names.REQUEST_STREAM),
    ("started_at", names.STARTED_AT),
    ("duration", names.DURATION),
    ("usage_quality", names.USAGE_QUALITY),
)
_USAGE: Final = {
    "input": names.INPUT_TOKENS,
    "output": names.OUTPUT_TOKENS,
    "cache_read": names.CACHE_READ_TOKENS,
    "cache_write": names.CACHE_WRITE_TOKENS,
    "reasoning": names.REASONING_TOKENS,
}
_COUNTS: Final = tuple(item.name for item in fields(Usage) if item.name != "units")
_COST: Final = (
    ("quality", names.COST_QUALITY),
    ("price_key", names.COST_PRICE_KEY),
    ("rule", names.COST_RULE),
    ("table_version", names.COST_TABLE),
    ("note", names.COST_NOTE),
    ("source", names.COST_SOURCE),
)
_AMOUNTS: Final = (("computed", names.COMPUTED_USD), ("low", names.LOW_USD), ("high", names.HIGH_USD))
_ATTRIBUTION: Final = {
    "user": names.USER_ID,
    "session": names.SESSION_ID,
    "run": names.RUN_ID,
    "step": names.STEP,
    "agent": names.AGENT_NAME,
}
_NANO: Final = 10**9
_INT64: Final = 2**63


class Events:
    """Emits calls as events.

    Args:
        logger: where they go.
        defaults: session and run of calls whose attribution has none, as in the ledger.
    """

    def __init__(self, logger: Logger, defaults: Mapping[str, str]) -> None:
        self._logger = logger
        self._defaults = defaults

    def add(self, call: Call) -> None:
        """Emit the event of a call.

        Raises:
            ValueError: a number is implausibly large, and OTLP cannot encode it.
        """
        attributes = attributes_of(call, self._defaults)
        for name, value in attributes.items():
            # A single value that cannot be encoded would prevent the export of all events of its batch.
            if isinstance(value, int) and not -_INT64 <= value < _INT64:
                raise ValueError(name)
            if isinstance(value, str):
                attributes[name] = as_text(value)
        self._logger.emit(
            LogRecord(
                timestamp=call.started_at + round(call.duration * 1e9),
                context=_context(call.trace_id, call.span_id),
                severity_number=SeverityNumber.INFO,
                severity_text="INFO",
                attributes=attributes,
                event_name=names.CALL_EVENT,
            )
        )


def _context(trace_id: str | None, span_id: str | None) -> Context:
    """Return a context whose current span is the call's; whether that was sampled is not known any more."""
    if trace_id is None or span_id is None:
        return _NO_SPAN
    span = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags())
    return set_span_in_context(NonRecordingSpan(span), Context())


# A context without any entry counts as none, and the current one would be used.
_NO_SPAN: Final = set_span_in_context(NonRecordingSpan(SpanContext(0, 0, is_remote=False)), Context())


def attributes_of(call: Call, defaults: Mapping[str, str]) -> dict[str, AttributeValue]:
    """Return the attributes of a call's event; unknown ones are left out."""
    # Tags come first: if there are more attributes than the SDK accepts, it drops the first ones.
    attributes: dict[str, AttributeValue] = {
        _ATTRIBUTION.get(key) or _tag(key): value for key, value in (*defaults.items(), *call.attribution.items())
    }
    for field, name in _CALL:
        if (value := getattr(call, field)) is not None:
            attributes[name] = value
    lists = (
        (names.FINISH_REASONS, call.finish_reasons),
        (names.PRICE_LABELS, call.price_labels),
        (names.COST_MISSING, call.cost.missing),
    )
    attributes.update((name, texts) for name, texts in lists if texts)
    if call.pending:
        attributes[names.PENDING] = True
    if call.usage is not None:
        attributes.update((_USAGE.get(name) or names.USAGE_COUNT + name, count) for name, count in _counts(call.usage))
    if call.parts:
        parts = [{"kind": part.kind, "model": part.model, "usage": dict(_counts(part.usage))} for part in call.parts]
        attributes[names.PARTS] = json.dumps(parts)
    if call.avoided is not None:
        attributes[names.AVOIDED_USD] = _exact(call.avoided)
    if call.refusal is not None:
        attributes[names.BUDGET], attributes[names.BUDGET_REASON] = call.refusal.budget, call.refusal.reason
        attributes[names.REFUSAL] = json.dumps(call.refusal.as_data())
    _add_cost(attributes, call.cost)
    return attributes


def _add_cost(attributes: dict[str, AttributeValue], cost: Cost) -> None:
    for field, name in _COST:
        if (value := getattr(cost, field)) is not None:
            attributes[name] = value
    if cost.amount is not None:
        attributes[names.AMOUNT_NANO], attributes[names.AMOUNT_REST] = divmod(cost.amount, _NANO)
        attributes[names.AMOUNT_USD] = exact = _exact(cost.amount)
        attributes[names.COST_AMOUNT] = float(exact)
        attributes[names.COST_CURRENCY] = cost.currency
    for field, name in _AMOUNTS:
        if (value := getattr(cost, field)) is not None:
            attributes[name] = _exact(value)
    if cost.savings:
        attributes[names.SAVINGS_USD] = _exact(cost.savings)
    for kind, part in cost.breakdown.items():
        attributes[names.BREAKDOWN_USD + kind] = _exact(part)


def _counts(usage: Usage) -> Iterator[tuple[str, int | str]]:
    for name in _COUNTS:
        if (count := getattr(usage, name)) is not None:
            yield name, count
    for unit, number in usage.units.items():
        yield unit, number if isinstance(number, int) else str(number)


def _exact(amount: int) -> str:
    return f"{usd(amount):f}"


@lru_cache(maxsize=256)
def _tag(key: str) -> str:
    return names.TAG + key.removeprefix("tag.")
