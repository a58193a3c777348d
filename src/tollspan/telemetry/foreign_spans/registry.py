"""The spans that have started in this process and have not ended: ours, and those of other emitters.

Fed by `TollspanCostProcessor`. In a process without the SDK it stays empty, and only the current span is known.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from opentelemetry.trace import get_current_span

from tollspan.runtime.forking import renew_in_child
from tollspan.telemetry.foreign_spans.emitters import (
    SCOPE,
    attributes_of,
    emitter,
    is_inference,
    may_be_inference,
    scope_of,
)
from tollspan.telemetry.foreign_spans.foreign_span import ForeignSpan
from tollspan.telemetry.foreign_spans.metered import remember

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace import Span as SdkSpan


_STARTED_PER_TASK: Final = 16
"""Unfinished spans remembered per task: more than emitters nest."""

NO_SPAN: Final = 0
"""The id of no span."""


class SpanRegistry:
    """The open spans of this process, by id; safe under threads.

    Spans of other emitters are held weakly: an application may drop one without ending it.
    """

    def __init__(self) -> None:
        self._live: WeakValueDictionary[int, SdkSpan] = WeakValueDictionary()
        self._started: ContextVar[tuple[int, ...]] = ContextVar("tollspan_started_spans", default=())
        self.started_here: Callable[[], tuple[int, ...]] = self._started.get
        """Returns the ids of the inferences that were started in this task, the latest last."""
        self.unattached: WeakValueDictionary[int, SdkSpan] = WeakValueDictionary()
        """Inferences of emitters that start spans in other threads than the one that sends the request."""
        self.on_late: Callable[[SdkSpan], None] | None = None
        """Takes a span that may be one of those that start when the response has arrived (see `held.py`)."""
        self._owners: OrderedDict[int, ForeignSpan] = OrderedDict()
        self._renew()
        renew_in_child(self, SpanRegistry._renew)

    def _renew(self) -> None:
        """Take new locks: the threads that held the old ones do not exist in a forked child."""
        self._lock = threading.RLock()
        self._ours: dict[int, SdkSpan] = {}  # they always come to an end: no weak reference is needed
        for owner in self._owners.values():
            owner.renew_lock()

    def started(self, span: SdkSpan) -> None:
        """Add a span that has started."""
        identity, scope = span.context.span_id, scope_of(span)
        if scope == SCOPE:
            self._ours[identity] = span
            return
        self._live[identity] = span
        if not may_be_inference(span, scope):
            return
        earlier = tuple(other for other in self.started_here() if other in self._live)
        self._started.set((*earlier[1 - _STARTED_PER_TASK :], identity))
        known = emitter(scope)
        if known.other_threads:
            self.unattached[identity] = span
        if known.late is not None and self.on_late is not None:
            self.on_late(span)

    def ended(self, identity: int) -> ForeignSpan | None:
        """Remove a span; return it as the owner of attempts, if it was one."""
        if self._ours.pop(identity, None) is not None:
            return None
        self._live.pop(identity, None)
        if self.unattached:
            self.unattached.pop(identity, None)
        return self._owners.pop(identity, None) if self._owners else None

    def owner_of(self, identity: int) -> ForeignSpan | None:
        """Return the span with this id as the owner of attempts, or None if it owns none."""
        return self._owners.get(identity)

    def claim(self, span: SdkSpan | None, data: Any, metrics: frozenset[str]) -> ForeignSpan:
        """Return the owner for a span, or for a util-genai invocation without one; make it if there is none yet."""
        # An invocation without a span goes by its object's id; the owner keeps that object alive.
        identity = -id(data) if span is None else span.context.span_id
        with self._lock:
            owner = self._owners.get(identity)
            if owner is None:
                owner = ForeignSpan(span, data, metrics)
                remember(self._owners, identity, owner)
            return owner

    def assign(self, span: SdkSpan, owner: ForeignSpan) -> None:
        """Make `owner` the owner that goes with `span`, which has just started."""
        with self._lock:
            remember(self._owners, span.context.span_id, owner)

    def chain(self) -> Iterator[SdkSpan]:
        """Return the current span and its ancestors, as far as they are of this process and have not ended."""
        current: Any = get_current_span()
        # Emitters wrap spans in objects of their own: the id leads to the SDK's.
        span = self._known(current.get_span_context().span_id)
        if span is None and current.is_recording() and hasattr(current, "attributes") and hasattr(current, "context"):
            span = current
        if span is not None:
            yield span
            yield from self.ancestors(span)

    def ancestors(self, span: Any) -> Iterator[SdkSpan]:
        """Return the open ancestors of a span, the nearest first."""
        parent = span.parent
        while parent is not None and (outer := self._known(parent.span_id)) is not None:
            yield outer
            parent = outer.parent

    def inferences(self, chain: list[SdkSpan]) -> list[SdkSpan]:
        """Return the open foreign inferences, innermost first: those of `chain`, then others started in this task."""
        known = {span.context.span_id for span in chain}
        others = (self._live.get(identity) for identity in reversed(self.started_here()) if identity not in known)
        unfinished = (span for span in others if span is not None and span.is_recording())
        return [span for span in (*chain, *unfinished) if is_foreign_inference(span)]

    def tree_parent(self, span: SdkSpan) -> int:
        """Return the id of the span below which an emitter's own tree of spans begins."""
        scope, top = scope_of(span), span
        for outer in self.ancestors(span):
            if scope_of(outer) != scope:
                break
            top = outer
        return parent_id(top)

    def _known(self, identity: int) -> SdkSpan | None:
        return self._ours.get(identity) or self._live.get(identity)


def is_foreign_inference(span: SdkSpan) -> bool:
    """Return whether a span is an inference of another emitter."""
    scope = scope_of(span)
    return scope != SCOPE and is_inference(attributes_of(span), scope, span.name)


def parent_id(span: SdkSpan) -> int:
    """Return the id of a span's parent; `NO_SPAN` if it has none."""
    return span.parent.span_id if span.parent is not None else NO_SPAN
