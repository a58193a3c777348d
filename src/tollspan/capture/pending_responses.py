"""Responses that a provider works on in the background: requested in this process, and not seen done yet.

The first response to such a request has no usage. The program polls, with any number of requests, and the first poll
that finds the response done bills it. So each pending response is remembered by host and id, and is forgotten when it
is taken. Responses that other processes have requested are not known here, and not billed here.
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
"""Pending responses that are remembered; of more, the oldest is forgotten and never billed."""


class PendingResponse(NamedTuple):
    """A pending response: the record of the request for it, and what is needed to read and price it."""

    call: Call
    facts: Facts
    provider: Provider
    dialect: Dialect
    span: SpanContext


class PendingResponses:
    """The pending responses of this process; safe under threads."""

    def __init__(self) -> None:
        """Start with none."""
        self._lock = threading.RLock()
        self.pending: OrderedDict[tuple[str | None, str], PendingResponse] = OrderedDict()

    def forget(self) -> None:
        """Forget all of them: in a forked child they are the parent's, as the holder of the lock may be."""
        self._lock = threading.RLock()
        self.pending.clear()

    def __len__(self) -> int:
        """Return how many responses are pending."""
        return len(self.pending)

    def put(self, response: PendingResponse) -> None:
        """Remember a pending response; one without an id cannot be fetched."""
        if response.call.response_id is None:
            return
        with self._lock:
            self.pending[response.call.server_address, response.call.response_id] = response
            if len(self.pending) > MOST:
                self.pending.popitem(last=False)

    def at(self, host: str, path: str) -> PendingResponse | None:
        """Return the pending response that a path names in its last part, as `/v1/responses/resp_1` does."""
        return self.pending.get((host, path.rstrip("/").rpartition("/")[2]))

    def take(self, response: PendingResponse) -> bool:
        """Forget a response that is done; return False if another poll has found it done before."""
        key = response.call.server_address, response.call.response_id or ""
        with self._lock:
            if self.pending.get(key) is not response:
                return False
            del self.pending[key]
            return True
