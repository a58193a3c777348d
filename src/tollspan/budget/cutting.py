"""Follows the cost of a stream as it arrives, and ends it when a budget that is set to cut is used up.

The cost is followed by what the wire has said of usage, and else by estimates: an event of output is a token or more,
and so are three bytes of text. What the provider goes on to produce after its connection was closed is not seen; the
call is charged what was reserved for it, which is all that the budget had left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tollspan.budget.answers import Ending

BYTES_PER_TOKEN: Final = 3


def followable(headers: Mapping[str, str]) -> bool:
    """Tell whether a response is a stream of events in the clear; others cannot be told apart into events, or ended.

    A provider may compress in spite of what the request accepts, and errors are plain documents.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    return encoding in {"", "identity"} and "event-stream" in headers.get("content-type", "").lower()


class Follower:
    """Hands a stream on event by event until it costs more than it may."""

    __slots__ = ("_ceiling", "_cost", "_ending", "_failed", "budget", "cut")

    def __init__(
        self,
        ending: Ending,
        ceiling: int,
        cost: Callable[[], tuple[int, int]],
        budget: str,
        failed: Callable[[Exception], None],
    ) -> None:
        """Follow a stream.

        Args:
            ending: ends a stream of its format.
            ceiling: atto-dollars that it may cost.
            cost: reads what has arrived; gives the cost so far and the output tokens so far.
            budget: the name of the budget that cuts.
            failed: told of a failure of our own, after which the stream has to be handed on without this.
        """
        self._ending = ending
        self._ceiling = ceiling
        self._cost = cost
        self._failed = failed
        self.budget = budget
        self.cut = False

    def pass_on(self, piece: bytes) -> Iterator[bytes]:
        """Give what may be handed over of a piece, and the closing events where the budget is used up."""
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
        """Give the closing events where the budget is used up, else nothing."""
        self._ending.note(whole)
        cost, tokens = self._cost()
        if cost < self._ceiling or self._ending.ended:
            return b""
        last = self._ending.last(tokens)
        self.cut = True
        return last

    def rest(self) -> bytes:
        """Give what was kept back, where the stream ended by itself."""
        return self._ending.rest()
