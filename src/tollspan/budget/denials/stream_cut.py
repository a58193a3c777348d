"""Follows the cost of a stream as it arrives, and ends it when a budget that is set to cut is used up.

The cost is followed by what the wire has said of usage, and else by estimates: an event of output is a token or more,
and so are three bytes of text. What the provider goes on to produce after its connection was closed is not seen; the
call is charged what was reserved for it, which is all that the budget had left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tollspan.budget.denials.responses import Ending

BYTES_PER_TOKEN: Final = 3


def followable(headers: Mapping[str, str]) -> bool:
    """Return whether a response is a stream of events in the clear; others cannot be told apart into events, or ended.

    A provider may compress in spite of what the request accepts, and errors are plain documents.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    return encoding in {"", "identity"} and "event-stream" in headers.get("content-type", "").lower()


class Follower:
    """Hands a stream on event by event until it has used what it may."""

    __slots__ = ("_ending", "_failed", "_used_up", "budget")

    def __init__(
        self, ending: Ending, used_up: Callable[[], tuple[str | None, int]], failed: Callable[[Exception], None]
    ) -> None:
        """Follow a stream.

        Args:
            ending: ends a stream of its format.
            used_up: reads what has arrived; gives the name of the budget that it has used up, if any, and the output
                tokens so far.
            failed: told of a failure of our own, after which the stream has to be handed on without this.
        """
        self._ending = ending
        self._used_up = used_up
        self._failed = failed
        self.budget: str | None = None

    @property
    def cut(self) -> bool:
        """Return whether the stream was cut; `budget` is the name of the budget that did."""
        return self.budget is not None

    def pass_on(self, piece: bytes) -> Iterator[bytes]:
        """Return what may be handed over of a piece, and the closing events where a budget is used up."""
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
        """Return the closing events where a budget is used up, else nothing."""
        self._ending.note(whole)
        budget, tokens = self._used_up()
        if budget is None or self._ending.ended:
            return b""
        last = self._ending.last(tokens)
        self.budget = budget
        return last

    def rest(self) -> bytes:
        """Return what was kept back, where the stream ended by itself."""
        return self._ending.rest()
