"""Responses that a provider works on in the background: what was asked for here, and has not been seen done yet.

The answer to such a request has no usage. Whoever asked polls, with as many requests as it likes, and the first of them
that finds the response done is the one that bills it. So each pending response is remembered by host and id, and is
forgotten when it is taken. What other processes asked for is not known here, and not billed here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from tollspan.model.records import Call, Facts
    from tollspan.wire.dialects.dialect import Dialect
    from tollspan.wire.providers import Provider

MOST: Final = 4096
"""Pending responses that are remembered; past that the oldest is forgotten, and never billed."""


class PendingResponse(NamedTuple):
    """A pending response: the record of the request for it, and what it takes to read and price the answer."""

    call: Call
    facts: Facts
    provider: Provider
    dialect: Dialect
    span: SpanContext


class PendingResponses:
    """The pending responses of this process; safe under threads."""

    def __init__(self) -> None:
        """Know of none."""
        self._lock = threading.RLock()
        self.pending: OrderedDict[tuple[str | None, str], PendingResponse] = OrderedDict()

    def forget(self) -> None:
        """Know of none any more: in a forked child they are the parent's, and so may be who holds the lock."""
        self._lock = threading.RLock()
        self.pending.clear()

    def __len__(self) -> int:
        """Return how many responses are pending."""
        return len(self.pending)

    def put(self, order: PendingResponse) -> None:
        """Remember a pending response; one without an id cannot be fetched."""
        if order.call.response_id is None:
            return
        with self._lock:
            self.pending[order.call.server_address, order.call.response_id] = order
            if len(self.pending) > MOST:
                self.pending.popitem(last=False)

    def at(self, host: str, path: str) -> PendingResponse | None:
        """Return the pending response that a path names in its last part, as `/v1/responses/resp_1` does."""
        return self.pending.get((host, path.rstrip("/").rpartition("/")[2]))

    def take(self, order: PendingResponse) -> bool:
        """Forget a response that is done; False where somebody else has found it done before."""
        key = order.call.server_address, order.call.response_id or ""
        with self._lock:
            if self.pending.get(key) is not order:
                return False
            del self.pending[key]
            return True
