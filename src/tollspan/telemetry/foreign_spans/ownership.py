"""Whose span a call is: another emitter's inference span that is open when a request is sent, or one of our own.

The theory. An application may have other instrumentation: an SDK's own spans, an instrumentor around it, a framework
around that. Each emitter that has an inference span open when a request is sent has seen the same call. So:

- The innermost of these spans *owns* the call. tollspan completes it (what it lacks, the cost included) and adds none.
- The others are *covered*: they contain the owner's span, and are never priced when they end.
- Attempts of one operation add up on their owner: its cost is the sum of theirs.
- Each of these emitters records some of the conventions' metrics; those are not recorded a second time.

The work is divided:

- `registry.py`: the spans that are open.
- `finder.py`: which of them owns a request, before it is sent.
- `held.py`: records that wait for a span which starts after the response.
- `metered.py`: what has a cost already. A span that names a response which was metered elsewhere is recognized here.

Spans that a sampler drops are never seen. Our span is their child then, and is dropped with them.
"""

from __future__ import annotations

from typing import Any, Final

from tollspan.telemetry.foreign_spans.finder import OwnerFinder
from tollspan.telemetry.foreign_spans.genai_context import published
from tollspan.telemetry.foreign_spans.held import HeldRecords
from tollspan.telemetry.foreign_spans.metered import MeteredCalls
from tollspan.telemetry.foreign_spans.registry import SpanRegistry

__all__ = ["SPANS", "Ownership", "published"]


class Ownership:
    """Who owns which call in one process: the parts, and the operations of each that other packages use."""

    def __init__(self) -> None:
        self.spans = spans = SpanRegistry()
        self.calls = calls = MeteredCalls()
        self.held = held = HeldRecords(spans, calls)
        spans.on_late = held.span_started
        finder = OwnerFinder(spans, calls, held)
        # The parts' own methods, bound once: each attempt calls most of these.
        self.find = finder.find
        self.takes_all = finder.takes_all
        self.begun = calls.begun
        self.over = calls.over
        self.metered = calls.add
        self.hold = held.hold
        self.release = held.release
        self.started = spans.started
        self.ended = spans.ended
        self.owner_of = spans.owner_of

    def cover_ancestors(self, span: Any) -> None:
        """Remember that what the ancestors of a span report is part of what the span reports."""
        for outer in self.spans.ancestors(span):
            self.calls.cover(outer.context.span_id)


SPANS: Final = Ownership()
"""The one of this process, as the hook is."""
