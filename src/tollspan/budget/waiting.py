"""The queues of calls that wait for calls under way: in order of arrival, one queue for each counter.

    with Turn(calls, wakeup, timeout) as turn: ...     a call's place, which is given up at the end of the block
    calls.changed(keys)                                 wakes the first call at each of these counters

Only the first call of a queue tries again. When it leaves, for whatever reason, the next one is woken. A call that
waits holds nothing. It waits at the counter that stands in its way; if that becomes another one, it moves there, to
the position that its arrival gives it. A call that cannot wait, or no longer, is decided at once, whatever the queues
are.

No wake-up is lost: a call tries again after it has joined a queue, and a settlement changes the store before it looks
at the queues. Settlements of other processes are seen by `StoreWatcher`.
"""

from __future__ import annotations

import itertools
import threading
from bisect import insort
from contextlib import suppress
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Final, Self

from tollspan.budget.store_watcher import StoreWatcher
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tollspan.budget.request import Held, Obstruction
    from tollspan.budget.stores import CounterWatch
    from tollspan.runtime.wakeups import Wakeup

GRACE: Final = 1.0
"""Seconds after its deadline in which a call has to leave its queue; if it has not, its event loop does not run."""

_by_number: Final = attrgetter("number")


class WaitingCalls:
    """The calls of this process that wait.

    Attributes:
        queues: the waiting calls by counter, in order of arrival; empty if none waits: most checks look no further.
    """

    def __init__(
        self,
        watch: Callable[[], CounterWatch] | None,
        is_local: Callable[[str], bool],
        failed: Callable[[str, BaseException], None],
    ) -> None:
        """Queue calls.

        Args:
            watch: opens a watch of the store; None if no other process uses it.
            is_local: returns whether a counter is kept in this process's memory, so that no watch is needed.
            failed: called with each internal failure.
        """
        self._watcher = None if watch is None else StoreWatcher(watch, self._waits_for_others, self.changed, failed)
        self._is_local = is_local
        self._clear()
        renew_in_child(self, WaitingCalls._clear)

    def _clear(self) -> None:
        self._lock = threading.RLock()  # reentrant: a finalizer may settle while its thread joins a queue
        self._numbers = itertools.count()
        self.queues: dict[str, list[Turn]] = {}

    def next_number(self) -> int:
        """Return the number of a call that arrives now."""
        return next(self._numbers)

    def before(self, turn: Turn | None, held: Sequence[Held]) -> Held | None:
        """Return the counter at which a call waits that arrived before this one; None if it is this one's turn."""
        with self._lock:
            for budget, update in held:
                if (first := self._first(update.key)) is not None and (turn is None or first.number < turn.number):
                    return budget, update
        return None

    def join(self, turn: Turn, key: str) -> None:
        """Queue a call at a counter, and take it out of the queue in which it was."""
        with self._lock:
            self.leave(turn)
            turn.key = key
            insort(self.queues.setdefault(key, []), turn, key=_by_number)
        if self._watcher is not None and not self._is_local(key):
            self._watcher.start()

    def leave(self, turn: Turn) -> None:
        """Take a call out of its queue, and wake the one behind it if it was the first."""
        with self._lock:
            queue = self.queues.get(turn.key, [])
            was_first = bool(queue) and queue[0] is turn
            with suppress(ValueError):  # its deadline has passed, or the process has forked
                queue.remove(turn)
            if was_first:
                self._wake(turn.key)

    def changed(self, keys: Iterable[str] | None) -> None:
        """Wake the first call at each of these counters; None = at all of them."""
        if not self.queues:
            return
        with self._lock:
            for key in list(self.queues) if keys is None else keys:
                self._wake(key)

    def close(self) -> None:
        """Stop to watch the store."""
        if self._watcher is not None:
            self._watcher.stop()

    def _wake(self, key: str) -> None:
        while (first := self._first(key)) is not None and not first.wakeup.wake():
            self.queues[key].remove(first)

    def _first(self, key: str) -> Turn | None:
        """Return the first call of a queue; drop those before it that should have left."""
        queue = self.queues.get(key)
        if queue is None:
            return None
        while queue and queue[0].deadline + GRACE < monotonic():
            del queue[0]
        if not queue:
            del self.queues[key]
            return None
        return queue[0]

    def _waits_for_others(self) -> bool:
        """Return whether a call waits at a counter that other processes can change."""
        return not all(map(self._is_local, list(self.queues)))


class Turn:
    """The turn of one call to be decided, from the first time on that something stands in its way.

    Attributes:
        number: its position: the order of arrival.
        wakeup: what wakes it.
        key: the counter at whose queue it is.
        budget: the name of that counter's budget.
        deadline: until when it may wait, by the monotonic clock.
        final: it may not wait any longer.
    """

    __slots__ = ("_calls", "_since", "budget", "deadline", "final", "key", "number", "wakeup")

    def __init__(self, calls: WaitingCalls, wakeup: Wakeup, timeout: float | None) -> None:
        """Wait `timeout` seconds at most; None = as long as the budgets say."""
        self._calls = calls
        self._since = monotonic()
        self.number = calls.next_number()
        self.wakeup = wakeup
        self.key = self.budget = ""
        self.deadline = self._since + (float("inf") if timeout is None else timeout)
        self.final = False

    def __enter__(self) -> Self:
        """Return the turn."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the queue."""
        self._calls.leave(self)

    def joins(self, obstruction: Obstruction) -> bool:
        """Queue at what stands in the way; return False if it is queued there already.

        The time to wait is the shortest of all budgets that have stood in the way.
        """
        self.budget = obstruction.budget
        self.deadline = min(self.deadline, self._since + obstruction.wait)
        if self.key == obstruction.key:
            return False
        self._calls.join(self, obstruction.key)
        return True

    @property
    def left(self) -> float:
        """Return the seconds that are left to wait."""
        return max(self.deadline - monotonic(), 0.0)

    @property
    def waited(self) -> float:
        """Return the seconds that the call has waited."""
        return monotonic() - self._since
