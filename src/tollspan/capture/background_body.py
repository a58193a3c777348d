"""A request whose response is read in the background: `BackgroundBody`, the base of what follows batches and files.

The background worker reads the body after the application has got it: the application is not slowed, and
`tollspan.flush()` waits until all is read. A subclass says what reads the body of a successful response, and what is
done when that has ended.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from functools import partial
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry.context import get_current

from tollspan.wire.framing.document import parsed
from tollspan.wire.framing.encoding import decoder_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.capture.billed_usage import ClientErrors
    from tollspan.capture.recorder import Recorder
    from tollspan.wire.framing.encoding import Decoder

_SUCCESS: Final = range(200, 300)
_MOST_DOCUMENT: Final = 64 * 1024 * 1024
"""Bytes of a document that are kept to be read: a batch's object may contain results."""
SLICE: Final = 256 * 1024
"""Bytes of a whole body that are read at a time, so that other threads get their turn in between."""
_SHORT: Final = 64 * 1024
"""Bytes of a body that is read before it is handed over, if there is neither a ledger nor a budget."""


class BodyReader(Protocol):
    """Reads a body: bytes that are `decode`d, until it says that it ignores the rest."""

    decode: Decoder | None
    ignored: bool

    def feed(self, data: bytes) -> None:
        """Read a chunk."""
        ...


class Document:
    """A body that is one JSON value."""

    def __init__(self) -> None:
        """Start empty."""
        self.decode: Decoder | None = None
        self.ignored = False
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Keep a chunk; a body that is too long is no document that is read here."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _MOST_DOCUMENT:
            self.ignored = True
            self._pieces.clear()

    def value(self) -> Any:
        """Return the value, None if it is not JSON."""
        return parsed(b"".join(self._pieces))


class BackgroundBody:
    """Follows one request (see the module's text, and `followed.FollowedRequest`)."""

    flowing: Final = None  # every chunk is read by itself
    follower: Final = None  # budgets have nothing to cut here
    asks_usage: Final = False

    def __init__(self, recorder: Recorder) -> None:
        """Start the clock, and remember the context."""
        self.context = get_current()
        self._recorder = recorder
        self._task = copy_context()  # has the budgets of blocks
        self._body: BodyReader | None = None
        self._piece: bytes | None = None
        self._at_once = False
        self._lock = threading.RLock()
        self._ended = False
        self._started_at, self._start = time_ns(), perf_counter_ns()

    @property
    def recorder(self) -> Recorder:
        """Return what all requests share."""
        return self._recorder

    def ends_at(self, nanoseconds: int) -> int:
        """Return the Unix time in nanoseconds that is `nanoseconds` after the start of the request."""
        return self._started_at + nanoseconds

    def response_received(self, response: Any) -> None:
        """Prepare to read the body of a successful response; another one is not read."""
        if response.status_code in _SUCCESS:
            self._body = self.reader()

    def reader(self) -> BodyReader:
        """Return what reads the body."""
        return Document()

    def stream_opened(self, response: Any) -> BackgroundBody:
        """Prepare to read a body that streams; return what reads it."""
        if self._body is not None:
            self._body.decode = decoder_for(response.headers.get("content-encoding"))
        return self

    def read_body(self, response: Any) -> None:
        """Read a body that the client has already read."""
        content = response.content if self._body is not None else b""
        self._at_once = len(content) <= _SHORT and self._recorder.ledger is None and self._recorder.guard is None
        for start in range(0, len(content), SLICE):
            self.later(partial(self._take, content, start))

    def chunk_received(self, piece: bytes) -> None:
        """Keep a chunk that is about to be handed over, to be read after that."""
        self._piece = piece

    def read(self) -> None:
        """Schedule the reading of the chunk that was handed over."""
        piece, self._piece = self._piece, None
        if piece and self._body is not None and not self._body.ignored:
            self.later(partial(self._take, piece), len(piece))

    def done(self) -> None:
        """End it, once: the body was read to its end."""
        self._end(whole=True)

    def abandoned(self) -> None:
        """End it with what was read so far."""
        self._end(whole=False)

    def failed_with(self, error: BaseException, errors: ClientErrors) -> None:
        """End it with what came before an exception."""
        del error, errors
        self.abandoned()

    def _end(self, *, whole: bool) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        if self._body is None:
            return
        piece, self._piece = self._piece, None
        if piece:
            self.later(partial(self._take, piece))
        self.later(partial(self.close, self._body, perf_counter_ns() - self._start, whole=whole))

    def later(self, work: Callable[[], None], size: int = 0) -> None:
        """Schedule work in the background, in the context of the request."""
        self._recorder.background.put(partial(self._task.run, work), size, at_once=self._at_once)

    # In the background

    def _take(self, content: bytes, start: int | None = None) -> None:
        body = self._body
        if body is None or body.ignored:
            return
        piece = content if start is None else content[start : start + SLICE]
        body.feed(piece if body.decode is None else body.decode(piece))

    def close(self, body: BodyReader, nanoseconds: int, *, whole: bool) -> None:
        """Finish the reading of a body: it took `nanoseconds`, and is `whole` if it was read to its end."""
        raise NotImplementedError
