"""Settling off the call path: a thread of its own for stores across a network, and a second try where any store failed.

On an event loop no store but memory is settled with at once: all other tasks would wait for it. Until a reservation is
settled it stays reserved, which is the safe side. One that never can be settled is charged when its lease ends.
"""

from __future__ import annotations

import queue
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.stores import StoreError
from tollspan.runtime.event_loops import on_loop
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.budget.stores import Charge

MOST: Final = 10_000
"""Settlements that may wait; of more, the reservation is charged when its lease ends."""
PAUSE: Final = 0.5
"""Seconds between two tries."""
TRIES: Final = 120


class Settler:
    """Runs `work(attempt, charges, now, held, span)` for each settlement: at once, or in a thread of its own."""

    def __init__(self, work: Callable[..., None], *, remote: bool) -> None:
        """Settle with `work`, which raises StoreError where it has to be tried again; `remote`: never at once."""
        self._work = work
        self._remote = remote
        self._fresh()
        renew_in_child(self, Settler._fresh)

    def _fresh(self) -> None:
        """Begin with nothing to settle and nobody at work: in a forked child both are the parent's."""
        self._jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()  # may be put to from a finalizer
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()
        self._idle = threading.Condition(threading.RLock())
        self._begun = self._ended = 0
        self.lost = 0

    @property
    def waiting(self) -> int:
        """Return how many jobs are not done yet."""
        return self._begun - self._ended

    def settle(
        self, attempt: str, charges: tuple[Charge, ...], now: float, held: tuple[Any, ...] = (), span: Any = None
    ) -> None:
        """Settle an attempt; never raises."""
        if not self._remote and not on_loop():
            try:
                self._work(attempt, charges, now, held, span)
            except StoreError:
                pass  # tried again below
            else:
                return
        self.settle_later(attempt, charges, now, held, span)

    def settle_later(self, attempt: str, charges: tuple[Charge, ...], now: float, *more: Any) -> None:
        """Settle an attempt in the thread: nobody waits for a store a second time that has not answered the first."""
        self.later(partial(self._settle, attempt, charges, now, *more))

    def later(self, job: Callable[[], object]) -> None:
        """Have something done in the thread, once; of too many, the last are not done at all."""
        with self._idle:
            if self.waiting >= MOST:
                self.lost += 1
                return
            self._begun += 1
        self._jobs.put(job)
        self._start()

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="tollspan-settle", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            finally:
                self._done()

    def _settle(
        self, attempt: str, charges: tuple[Charge, ...], now: float, held: tuple[Any, ...] = (), span: Any = None
    ) -> None:
        for _ in range(TRIES):
            try:
                self._work(attempt, charges, now, held, span)
            except StoreError:
                time.sleep(PAUSE)
            else:
                return
        self.lost += 1

    def _done(self) -> None:
        with self._idle:
            self._ended += 1
            self._idle.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until all is done that waits now, for `timeout` seconds at most; give whether it is."""
        if not self.waiting or threading.current_thread() is self._thread:
            return not self.waiting
        with self._idle:
            last = self._begun
            return self._idle.wait_for(lambda: self._ended >= last, timeout)
