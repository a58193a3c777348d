"""The body of a response: `WholeBody` for one that the client has read, `StreamReading` for one that streams.

Both read into the facts of the attempt, and have the same results for its record: the text of a response without usage,
whether it was a stream of events, and the times of the first chunk and the first token.

Each chunk of a stream is timed before the application gets it (`chunk_received`) and read after that (`read`). Once
there was output nothing is timed any more, unless the gaps between chunks are: then the hook puts chunks into `flowing`
by itself, and calls `read` when they are enough. A failure of our own ends the reading, never the application's.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from tollspan.tokens.estimates import Received

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.model.records import Facts
    from tollspan.wire.reader import Reader

NOTHING: Final = Received()
"""What was received of a body before it is read; never written to."""


class WholeBody:
    """A body that was read at once: results only. A plain body has no first chunk."""

    __slots__ = ("_reader",)

    first_chunk: Final = None
    first_token: Final = None
    size: Final = 0

    def __init__(self, reader: Reader, content: bytes) -> None:
        """Read `content`; what the reader raises is raised."""
        reader.take(content)
        self._reader = reader

    @property
    def received(self) -> Received:
        """Return the text of a response without usage."""
        return self._reader.text

    @property
    def framed(self) -> bool:
        """Return whether the body was a stream of events."""
        return self._reader.framed

    @property
    def silent(self) -> bool:
        """Return whether the body was white space only."""
        return self._reader.silent

    def catch_up(self) -> None:
        """Do nothing: all is read."""

    close = catch_up


class StreamReading:
    """Reads a body that streams into `facts`.

    `first_chunk` and `first_token` are readings of `time.perf_counter_ns`. After `close`, `received` is the text of a
    response without usage, `framed` says that the body was a stream of events, and `silent` that only white space came.
    """

    __slots__ = (
        "_facts",
        "_failed",
        "_is_timed",
        "_last_chunk",
        "_piece",
        "_reader",
        "_record_gap",
        "first_chunk",
        "first_token",
        "flowing",
        "framed",
        "received",
        "silent",
    )

    def __init__(
        self,
        reader: Reader | None,
        facts: Facts,
        failed: Callable[[str, BaseException], None],
        record_gap: Callable[[int], None] | None = None,
        *,
        each: bool = False,
    ) -> None:
        """Prepare to read.

        Args:
            reader: writes to `facts`; None for a body that cannot be decoded, which is only timed.
            facts: what the body has said so far.
            failed: takes the kind of a failure of our own, and its exception.
            record_gap: takes the nanoseconds between two chunks; None if gaps are not recorded.
            each: read every chunk at once, because a budget looks at the usage in between.
        """
        self._reader = reader
        self._facts = facts
        self._failed = failed
        self._record_gap = record_gap
        self._is_timed = each or record_gap is not None
        self._piece: bytes | None = None
        self._last_chunk = 0
        self.first_chunk: int | None = None
        self.first_token: int | None = None
        self.flowing: list[bytes] | None = None  # chunks that wait to be read, once nothing needs to be timed
        self.received = NOTHING
        self.framed = self.silent = False

    def chunk_received(self, piece: bytes) -> None:
        """Take the time of a chunk that is about to be handed over; `read` follows."""
        now = perf_counter_ns()
        if self._record_gap is not None and self._last_chunk:
            self._record_gap(now - self._last_chunk)
        self._last_chunk = now
        if self.first_chunk is None and piece:
            self.first_chunk = now
        self._piece = piece

    def read(self) -> None:
        """Read what was handed over."""
        piece, self._piece = self._piece, None
        reader = self._reader
        if reader is None or (piece is None and self.flowing is None):
            return
        seen = self._facts.output_seen
        try:
            if piece is None:
                reader.catch_up()
            else:
                reader.feed(piece)
        except Exception as error:  # noqa: BLE001 - the safe boundary
            self._reader = self.flowing = None
            self._failed("reader", error)
        if not seen and self._facts.output_seen:
            self.first_token = self._last_chunk
            if self._reader is not None and not self._is_timed:
                self.flowing = reader.waiting

    def catch_up(self) -> None:
        """Read what was handed over, also what waits to be read with more; what the reader raises is raised."""
        self.read()
        if self._reader is not None:
            self._reader.catch_up()

    @property
    def size(self) -> int:
        """Return how many bytes of text have been read so far."""
        return 0 if self._reader is None else self._reader.text.size

    def close(self) -> None:
        """Read what is left: no more bytes come."""
        self.read()  # handed over, and then the application stopped
        reader, self._reader, self.flowing = self._reader, None, None
        if reader is None:
            return
        seen = self._facts.output_seen
        try:
            reader.close()
        except Exception as error:  # noqa: BLE001 - the safe boundary
            self._failed("reader", error)
        if not seen and self._facts.output_seen:
            self.first_token = self._last_chunk
        self.received, self.framed, self.silent = reader.text, reader.framed, reader.silent
        if not reader.framed:
            self.first_chunk = self.first_token = None  # a plain body has no first chunk


Body = WholeBody | StreamReading
"""The body of a response, as far as its record needs it."""
