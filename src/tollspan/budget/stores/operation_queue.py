"""Operations of many threads on one file or server: those that wait together are run together, in order of arrival.

    queue = OperationQueue(run_batch, leaders=1)
    result = queue.run(operation)       # run_batch([Waiting(operation), ...]) sets `result` or `error` of each

A thread whose operation finds less than `leaders` batches under way leads the next one at once: it takes what waits,
its own operation too, and runs it. Otherwise it sleeps until another thread has done its operation, or has come to the
end of a batch and wakes the first in line to lead the next. Nobody polls, there is no other thread, and no time limit:
the time limits are those of `run_batch`, which is never kept from starting by more than the batches before it.

Safe for code that interrupts other code on its thread, such as a signal handler: what it cannot wait for, because its
own thread would have to do it, raises `Interrupting`.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Operation = TypeVar("Operation")

LARGEST_BATCH: Final = 128
"""Operations of one batch: other processes wait while it lasts."""


class Interrupting(Exception):  # noqa: N818 - says what the caller does
    """The caller has interrupted, on its own thread, the batch that its operation would have to wait for."""


class Waiting(Generic[Operation]):
    """One operation that waits, and what came of it: `result`, or the exception `error`."""

    __slots__ = ("done", "error", "operation", "result", "taken", "thread", "wake")

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.thread = threading.get_ident()
        self.taken = False
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.wake = threading.Lock()
        self.wake.acquire()

    def look_again(self) -> None:
        """Wake the thread that waits, now or when it is about to."""
        with suppress(RuntimeError):  # it is woken already
            self.wake.release()


class OperationQueue(Generic[Operation]):
    """Runs operations in batches (see the module's text). A forked child starts with an empty queue."""

    def __init__(self, run_batch: Callable[[Sequence[Waiting[Operation]]], None], leaders: int) -> None:
        """Run at most `leaders` batches at once with `run_batch`.

        It sets the result or the error of each operation. What it raises is the error of all of them.
        """
        self._run_batch = run_batch
        self._places = range(leaders)
        self._clear()
        renew_in_child(self, OperationQueue._clear)

    def _clear(self) -> None:
        # Both are only used by operations that are atomic, because a signal handler may run between any two of them.
        self._line: deque[Waiting[Operation]] = deque()
        self._leaders: dict[int, Waiting[Operation]] = {}

    def run(self, operation: Operation) -> Any:
        """Return the result of an operation, or raise its error, once it has been run.

        Raises:
            Interrupting: see the class.
        """
        mine = Waiting(operation)
        self._line.append(mine)
        try:
            while not mine.done:
                place = None if mine.taken else self._place_for(mine)
                if place is None:
                    self._wait(mine)
                else:
                    self._lead(place)
        except BaseException:  # interrupted: whoever waits behind it must not wait for it
            self._leave(mine)
            raise
        if mine.error is not None:
            raise mine.error
        return mine.result

    def _place_for(self, mine: Waiting[Operation]) -> int | None:
        """Return the place that this operation's thread leads a batch at, or None if all are occupied."""
        for place in self._places:
            if self._leaders.setdefault(place, mine) is mine:
                return place
        return None

    def _wait(self, mine: Waiting[Operation]) -> None:
        leaders = list(self._leaders.values())
        if leaders and not mine.taken and all(leader.thread == mine.thread for leader in leaders):
            raise Interrupting
        mine.wake.acquire()

    def _lead(self, place: int) -> None:
        """Run the operations that wait, and wake the thread that leads next."""
        batch: list[Waiting[Operation]] = []
        try:
            with suppress(IndexError):  # in one step of the interpreter: no signal handler can make one disappear
                batch.extend(islice(iter(self._line.popleft, None), LARGEST_BATCH))
            for each in batch:
                each.taken = True
            if batch:
                self._run(batch)
        finally:
            if batch and not batch[-1].done:  # interrupted
                self._put_back(batch)
            del self._leaders[place]
            if self._line:
                self._wake_next()

    def _run(self, batch: list[Waiting[Operation]]) -> None:
        try:
            self._run_batch(batch)
        except Exception as error:  # noqa: BLE001 - it is raised in the threads that wait
            for each in batch:
                each.error = error
        for each in batch:
            each.done = True
            each.look_again()

    def _put_back(self, batch: list[Waiting[Operation]]) -> None:
        left = [each for each in batch if not each.done]
        for each in left:
            each.taken = False
        self._line.extendleft(reversed(left))

    def _wake_next(self) -> None:
        """Wake the first in line: on its thread, the code that has interrupted it may be the one that waits."""
        line = list(self._line)  # another thread may have emptied it
        for each in line:
            if each.thread == line[0].thread:
                each.look_again()

    def _leave(self, mine: Waiting[Operation]) -> None:
        with suppress(ValueError):
            self._line.remove(mine)
        self._wake_next()
