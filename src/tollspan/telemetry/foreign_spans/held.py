"""Records that wait for a span which starts when the response has arrived.

OpenLLMetry starts its span around OpenAI's Responses that late. `awaited()` recognizes such a request by the wrapper on
the stack, `hold()` keeps its record, and `span_started()` puts the record on the span. If no span has started when the
next call begins `PATIENCE` seconds later, or at a flush, or at the end of the process, a span of our own is written.
"""

from __future__ import annotations

import atexit
import threading
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Final

from tollspan.runtime.forking import renew_in_child
from tollspan.telemetry.foreign_spans.callers import late_span
from tollspan.telemetry.foreign_spans.foreign_span import ForeignSpan

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import Span as SdkSpan

    from tollspan.model.records import Call
    from tollspan.telemetry.foreign_spans.metered import MeteredCalls
    from tollspan.telemetry.foreign_spans.registry import SpanRegistry

PATIENCE: Final = 5.0
"""Seconds for which a record waits for its span."""


class HeldRecords:
    """Ended attempts whose owner has not started its span yet, by owner; safe under threads."""

    def __init__(self, spans: SpanRegistry, metered: MeteredCalls) -> None:
        self._spans = spans
        self._metered = metered
        self._expected: ContextVar[ForeignSpan | None] = ContextVar("tollspan_late_span", default=None)
        self._watching_exit = False
        self._renew()
        renew_in_child(self, HeldRecords._renew)

    def _renew(self) -> None:
        """Take a new lock, and drop what is held: the parent writes that."""
        self._lock = threading.RLock()
        self._held: dict[int, _Held] = {}

    def awaited(self, earlier: ForeignSpan | None) -> ForeignSpan | None:
        """Return the owner whose span starts when the response has arrived, if its emitter is sending this request.

        `earlier` is the owner of the attempt that this one repeats: both wait for one span.
        """
        if self._held:
            self.release(PATIENCE)
        late = late_span()
        if late is None:
            return None
        owner = earlier if earlier is not None and earlier.not_started else ForeignSpan(None, None, frozenset(), late)
        self._expected.set(owner)
        return owner

    def span_started(self, span: SdkSpan) -> None:
        """Connect a late span that has just started to the owner that waits for it in this task."""
        owner = self._expected.get()
        if owner is None or owner.late is None or owner.late.name != span.name or owner.span is not None:
            return
        owner.span = span
        self._expected.set(None)
        held = self._held.pop(id(owner), None)
        for call, _ in held.calls if held is not None else ():
            self._metered.add(call, placed=True)
        self._spans.assign(span, owner)

    def hold(self, owner: ForeignSpan, call: Call, write: Callable[[], None]) -> None:
        """Keep an ended attempt until its owner's span starts; `write` writes a span of our own if none does."""
        with self._lock:
            held = self._held.setdefault(id(owner), _Held(owner, monotonic()))
            held.calls.append((call, write))
        if not self._watching_exit:
            self._watching_exit = True
            atexit.register(self.release)  # registered later than the SDK's handlers, so it runs before them

    def release(self, patience: float = 0.0) -> None:
        """Write the spans of attempts that have waited longer than `patience` seconds."""
        oldest = monotonic() - patience
        with self._lock:
            late = [key for key, held in self._held.items() if held.since <= oldest]
            calls = [pair for key in late for pair in self._held.pop(key).calls]
        for call, write in calls:
            if call.response_id is None or self._metered.unplaced(call.response_id) is not None:
                write()


class _Held:
    """The records that wait for one owner's span, and since when.

    It refers to the owner, so that no other object gets the owner's id meanwhile.
    """

    __slots__ = ("calls", "owner", "since")

    def __init__(self, owner: ForeignSpan, since: float) -> None:
        self.owner = owner
        self.since = since
        self.calls: list[tuple[Call, Callable[[], None]]] = []
