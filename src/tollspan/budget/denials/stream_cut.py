"""Follows the cost of a stream as it arrives, and cuts it when a budget that is set to cut is exhausted.

The cost follows from the usage on the wire, or else from estimates: an event of output is at least one token, and so
are three bytes of text. Output that the provider produces after its connection was closed is not seen; the call is
charged its reservation, which is all that the budget had left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tollspan.budget.denials.responses import Ending

BYTES_PER_TOKEN: Final = 3


def followable(headers: Mapping[str, str]) -> bool:
    """Return whether a response is an uncompressed stream of events: others cannot be cut between events.

    A provider may compress although the request accepts no encoding, and errors are plain documents.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    return encoding in {"", "identity"} and "event-stream" in headers.get("content-type", "").lower()


class Follower:
    """Passes a stream on event by event, until a budget is exhausted."""

    __slots__ = ("_ending", "_failed", "_used_up", "budget")

    def __init__(
        self, ending: Ending, used_up: Callable[[], tuple[str | None, int]], failed: Callable[[Exception], None]
    ) -> None:
        """Follow a stream.

        Args:
            ending: ends a stream of its format.
            used_up: reads what has arrived; returns the name of the budget that is exhausted, if any, and the output
                tokens so far.
            failed: called with an internal error, after which the stream must be passed on without this follower.
        """
        self._ending = ending
        self._used_up = used_up
        self._failed = failed
        self.budget: str | None = None

    @property
    def cut(self) -> bool:
        """Return whether the stream was cut; `budget` is the name of the budget that cut it."""
        return self.budget is not None

    def pass_on(self, piece: bytes) -> Iterator[bytes]:
        """Yield the part of a piece that may be passed on, and the closing events if a budget is exhausted."""
        whole = self._ending.pass_on(piece)
        if whole:
            yield whole
        try:
            last = self._closing(whole)
        except Exception as error:  # noqa: BLE001 - the safe boundary: the application gets what the provider sent
            self._failed(error)
            last = self._ending.rest()
        if last:
            yield last

    def _closing(self, whole: bytes) -> bytes:
        """Return the closing events if a budget is exhausted, else nothing."""
        self._ending.note(whole)
        budget, tokens = self._used_up()
        if budget is None or self._ending.ended:
            return b""
        last = self._ending.last(tokens)
        self.budget = budget
        return last

    def rest(self) -> bytes:
        """Return the bytes that were kept back: the stream ended by itself."""
        return self._ending.rest()
