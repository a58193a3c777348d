"""How a retry is recognized: by the count that SDKs send with it, or by a request that just failed in the same task.

    repeated_by(request, headers) -> the attempt that the request repeats, and its resend count
    remember(sent)                -> what the next attempt of this task or thread is compared with

Attempts that repeat each other are one operation: they share its id, and each span is linked to that of the first.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tollspan.capture.requests import hash_of, resend_count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.trace import SpanContext

    from tollspan.telemetry.foreign_spans.foreign_span import ForeignSpan


@dataclass(slots=True)
class SentAttempt:
    """What is remembered of an attempt in its task or thread: its retry is compared with it.

    `attempt` is its key in `Recorder.open`, `first` the span of the operation's first attempt, `outer` the attempt
    inside of which this one was sent (see `sent_on`), and `body_hash` the hash of the body if it failed. `call` is the
    id of its record, and `earlier` the last attempt before it that was under way then, if there are budgets.
    """

    url: Any
    operation_id: str
    resend_count: int
    first: SpanContext
    owner: ForeignSpan | None
    attempt: int
    outer: SentAttempt | None = None
    failed: bool = False
    body_hash: int = 0
    call: str = ""
    earlier: SentAttempt | None = None

    def under_way(self) -> Iterator[str]:
        """Return the calls that were under way in this task or thread when this one was sent; some may have ended."""
        earlier = self.earlier
        while earlier is not None:
            yield earlier.call
            earlier = earlier.earlier


_last: Final[ContextVar[SentAttempt | None]] = ContextVar("tollspan_last_attempt", default=None)

last_sent: Final = _last.get
remember: Final = _last.set


def repeated_by(request: Any, headers: frozenset[bytes]) -> tuple[SentAttempt | None, int | None]:
    """Return the attempt that a request repeats, and its resend count; (None, None) for a first attempt.

    The SDK says so in a header, or the same request has just failed in this task or thread. An SDK that says so without
    a remembered attempt still has its count returned.

    Args:
        request: what is about to be sent.
        headers: the names of its headers (see `requests.names_of`).
    """
    before, count = _last.get(), resend_count_of(request, headers)
    if before is not None and count != 0 and (count is not None or before.failed):
        is_same = count is not None or before.body_hash == hash_of(request)
        if is_same and str(before.url) == str(request.url):
            return before, count or before.resend_count + 1
    return None, count or None
