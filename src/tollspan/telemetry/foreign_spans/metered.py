"""What has a cost already: spans that are covered by a metered call, and responses that were metered or priced.

A span that ends asks here before it is priced, so that one call has one cost.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from tollspan.model.records import Call
    from tollspan.telemetry.foreign_spans.foreign_span import Settling

REMEMBERED: Final = 10_000
"""Span ids and response ids that are remembered: older ones were exported long ago."""


def remember(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    """Set an entry of a memory, and drop the oldest ones beyond `REMEMBERED`."""
    memory[key] = value
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)


class MeteredCalls:
    """Covered spans by id, responses by id, and the attempts that are running; safe under threads."""

    def __init__(self) -> None:
        self._covered: OrderedDict[int, None] = OrderedDict()
        self._responses: OrderedDict[str, Call | None] = OrderedDict()
        self._renew()
        renew_in_child(self, MeteredCalls._renew)

    def _renew(self) -> None:
        """Take a new lock, and forget the parent's running attempts: they end in the parent."""
        self._lock = threading.RLock()
        self._attempts: dict[int, Settling] = {}  # they always come to an end: no weak reference is needed

    def cover(self, identity: int) -> None:
        """Remember that what the span with this id reports was metered elsewhere."""
        remember(self._covered, identity, None)

    def is_covered(self, identity: int) -> bool:
        """Return whether what the span with this id reports was metered elsewhere."""
        return identity in self._covered

    def add(self, call: Call, *, placed: bool) -> None:
        """Remember a call by its response's id; `placed` says whether a span has its cost already."""
        if call.response_id is not None:
            with self._lock:
                remember(self._responses, call.response_id, None if placed else call)

    def begun(self, attempt: Settling) -> None:
        """Add an attempt that has begun."""
        self._attempts[id(attempt)] = attempt

    def over(self, attempt: Settling) -> None:
        """Remove an attempt that has ended."""
        self._attempts.pop(id(attempt), None)

    def priced(self, response_id: str) -> None:
        """Remember a response that was priced on a span: other spans may report it again."""
        with self._lock:
            remember(self._responses, response_id, None)

    def is_metered(self, response_id: str) -> bool:
        """Return whether this response is metered or priced already, or is arriving over a hooked client."""
        if response_id in self._responses:
            return True
        for attempt in list(self._attempts.values()):
            if attempt.response_id == response_id:
                attempt.settle()
                return True
        return False

    def unplaced(self, response_id: str) -> Call | None:
        """Return the call with this response if no span has its cost yet. A second request returns None."""
        with self._lock:
            call = self._responses.get(response_id)
            remember(self._responses, response_id, None)
            return call
