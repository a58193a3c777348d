"""One inference of another emitter, and the attempts that belong to it.

`ForeignSpan.add(call)` puts an ended attempt on the emitter's span. Cost and other attributes of ours are set at once.
Attributes of the conventions follow when the emitter ends its span: `missing()` returns those that it did not set.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry.context import get_current
from opentelemetry.trace import NonRecordingSpan, get_current_span, set_span_in_context

from tollspan.telemetry import names
from tollspan.telemetry.foreign_spans.emitters import attributes_of, emitter, has_counts, scope_of
from tollspan.telemetry.foreign_spans.genai_context import complete
from tollspan.telemetry.foreign_spans.operation_cost import combined
from tollspan.telemetry.spans import Attributes, end_attributes

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span as SdkSpan
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from tollspan.model.records import Call, Cost
    from tollspan.telemetry.foreign_spans.emitters import LateSpan


class Settling(Protocol):
    """An attempt, as far as its owner has to know it."""

    def settle(self) -> None:
        """Read what was passed to the application, and end the attempt if that was all of it."""

    @property
    def response_id(self) -> str | None:
        """Return the response's id, as far as it has been read."""


class ForeignSpan:
    """Another emitter's unfinished inference with its attempts.

    Args:
        span: the emitter's span. None if only an object in the context is known, or if the span starts later.
        data: the emitter's util-genai invocation, or None.
        metrics: the conventions' metrics that the emitter records itself.
        late: the span that the emitter starts when the response has arrived, or None.
    """

    __slots__ = (
        "_completing",
        "_cost",
        "_early",
        "_lock",
        "_pending",
        "attempts",
        "billed",
        "context",
        "data",
        "late",
        "metrics",
        "span",
    )

    def __init__(self, span: SdkSpan | None, data: Any, metrics: frozenset[str], late: LateSpan | None = None) -> None:
        self.span = span
        self.late = late
        self.data = data
        self.metrics = metrics
        self.context: Context = get_current() if span is None else set_span_in_context(span)
        self.attempts: dict[int, Settling] = {}
        self.billed = 0
        self._completing = False
        self._cost: Cost | None = None
        self._pending: Attributes = {}
        self._early: Attributes = {}  # set on a placeholder, before there is a span
        self.renew_lock()

    def renew_lock(self) -> None:
        """Take a new lock, as `SpanRegistry` does in a forked child."""
        self._lock = threading.RLock()

    @property
    def late_usage(self) -> bool:
        """Return whether the emitter reports a stream's usage on another span, after this one has ended."""
        return self.span is not None and emitter(scope_of(self.span)).late_usage

    @property
    def not_started(self) -> bool:
        """Return whether the emitter has still to start the span."""
        return self.late is not None and self.span is None

    def target(self) -> Span:
        """Return the span on which an attempt sets attributes while it runs."""
        if self.span is not None:
            return self.span
        return get_current_span() if self.late is None else _PlaceholderSpan(self._early)

    @property
    def available(self) -> bool:
        """Return whether another attempt of this operation can begin: none is running, none was billed."""
        return not self.attempts and not self.billed

    def add(self, call: Call, *, aliases: bool) -> bool:
        """Put an ended attempt on the span; return whether the span could still take it."""
        attributes = self._added(call, aliases=aliases)
        if self.data is not None:
            complete(self.data, call, {} if self.span is not None else attributes)
        if self.span is None:
            return self.data is not None
        if self.span.is_recording():
            # Our own names at once, for no emitter sets those; the rest when the emitter has set what it knows.
            self.span.set_attributes({name: value for name, value in attributes.items() if names.is_ours(name)})
            return True
        return self._completing

    def _added(self, call: Call, *, aliases: bool) -> Attributes:
        """Add an attempt to the operation's cost; return the attributes of the operation so far."""
        with self._lock:
            if call.billable:
                self.billed += 1
                self._cost = call.cost if self._cost is None else combined(self._cost, call.cost)
            whole = replace(call, cost=self._cost or call.cost, billable=self.billed > 0)
            attributes = end_attributes(whole, aliases=aliases)
            if self.billed > 1:
                attributes[names.ATTEMPTS] = self.billed
            self._pending = attributes = {**self._early, **attributes}
            return attributes

    def settle(self) -> None:
        """End the attempts that are complete: the span is about to end, and `missing()` returns what it still needs."""
        self._completing = True
        try:
            for attempt in tuple(self.attempts.values()):
                attempt.settle()
        finally:
            self._completing = False

    def missing(self) -> Attributes:
        """Return the attributes that the span, which is about to end, does not have yet."""
        with self._lock:
            if self.span is None or not self._pending:
                return {}
            present = attributes_of(self.span)
            tokens = has_counts(present)
            return {
                name: value
                for name, value in self._pending.items()
                if name not in present and not (tokens and name.startswith("gen_ai.usage.") and not names.is_ours(name))
            }


class _PlaceholderSpan(NonRecordingSpan):
    """A span that has not started yet: it has the current span's context and keeps the attributes set on it."""

    def __init__(self, attributes: Attributes) -> None:
        super().__init__(get_current_span().get_span_context())
        self._early = attributes

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        self._early[key] = value
