"""The record of a call that is known from its span only: `call_of(span, billable, cost)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.trace import StatusCode

from tollspan.model.call_record import call_record
from tollspan.model.records import Facts
from tollspan.telemetry import names
from tollspan.telemetry.foreign_spans.emitters import (
    attributes_of,
    first_text,
    operation_of,
    provider_of,
    response_id_of,
)
from tollspan.telemetry.span_ids import span_ids

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from tollspan.model.records import Billable, Call, Cost


def call_of(span: ReadableSpan, billable: Billable, cost: Cost) -> Call:
    """Return the record of a span's call; its id is made of the span's ids."""
    attributes, context = attributes_of(span), span.context
    identity = f"{context.trace_id:032x}-{context.span_id:016x}" if context is not None else "unknown"
    started, ended = span.start_time or 0, span.end_time or span.start_time or 0
    failed = span.status.status_code is StatusCode.ERROR
    port = attributes.get(names.SERVER_PORT)
    facts = Facts(operation_of(attributes))
    facts.request_model, facts.response_model = billable.request_model, billable.model
    facts.response_id = response_id_of(attributes)
    facts.stream = attributes.get(names.REQUEST_STREAM) is True
    facts.tier, facts.region, facts.search_context = billable.tier, billable.region, billable.search_context
    trace_id, span_id = (None, None) if context is None else span_ids(context)
    return call_record(
        facts,
        call_id=identity,
        operation_id=identity,
        provider=provider_of(attributes),
        started_at=started,
        duration=(ended - started) / 1e9,
        attribution={},
        usage=billable.usage,
        cost=cost,
        outcome="error" if failed else "ok",
        error_type=first_text(attributes, (names.ERROR_TYPE,)),
        server_address=first_text(attributes, (names.SERVER_ADDRESS,)),
        server_port=port if isinstance(port, int) else None,
        price_labels=billable.price_providers,
        trace_id=trace_id,
        span_id=span_id,
    )
