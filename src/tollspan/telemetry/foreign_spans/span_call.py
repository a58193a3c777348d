"""The record of a call that is known from its span only: `call_of(span, billable, cost)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.trace import StatusCode

from tollspan.model.records import Call
from tollspan.telemetry import names
from tollspan.telemetry.foreign_spans.emitters import (
    attributes_of,
    first_text,
    operation_of,
    provider_of,
    response_id_of,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from tollspan.model.records import Billable, Cost


def call_of(span: ReadableSpan, billable: Billable, cost: Cost) -> Call:
    """Return the record of a span's call; its id is made of the span's ids."""
    attributes, context = attributes_of(span), span.context
    identity = f"{context.trace_id:032x}-{context.span_id:016x}" if context is not None else "unknown"
    started, ended = span.start_time or 0, span.end_time or span.start_time or 0
    failed = span.status.status_code is StatusCode.ERROR
    port = attributes.get(names.SERVER_PORT)
    return Call(
        id=identity,
        operation_id=identity,
        provider=provider_of(attributes),
        operation=operation_of(attributes),
        started_at=started,
        duration=(ended - started) / 1e9,
        outcome="error" if failed else "ok",
        request_model=billable.request_model,
        response_model=billable.model,
        response_id=response_id_of(attributes),
        stream=attributes.get(names.REQUEST_STREAM) is True,
        server_address=first_text(attributes, (names.SERVER_ADDRESS,)),
        server_port=port if isinstance(port, int) else None,
        error_type=first_text(attributes, (names.ERROR_TYPE,)),
        usage=billable.usage,
        cost=cost,
        tier=billable.tier,
        region=billable.region,
        search_context=billable.search_context,
        price_labels=billable.price_providers,
        trace_id=f"{context.trace_id:032x}" if context is not None else None,
        span_id=f"{context.span_id:016x}" if context is not None else None,
    )
