"""The ids of a span as a call's record keeps them: hexadecimal, as OTLP and every backend write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext


def span_ids(context: SpanContext) -> tuple[str | None, str | None]:
    """Return the trace id and the span id of a span's context, (None, None) if it is not valid."""
    return (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else (None, None)
