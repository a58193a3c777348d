"""Settling off the call path: a thread of its own for stores across a network, and a second try where any store failed.

Until a reservation is settled it stays reserved, which is the safe side. One that never can be settled is charged when
its lease ends.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.stores import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.budget.stores import Charge

Job = tuple[str, tuple["Charge", ...], float, tuple[Any, ...]]

MOST: Final = 10_000
"""Settlements that may wait; of more, the reservation is charged when its lease ends."""
PAUSE: Final = 0.5
"""Seconds between two tries."""
TRIES: Final = 120


class Settler:
    """Runs `work(attempt, charges, now, held)` for each settlement: at once, or in a thread of its own."""

    def __init__(self, work: Callable[..., None], *, remote: bool) -> None:
        """Settle with `work`, which raises StoreError where it has to be tried again; `remote`: never at once."""
        self._work = work
        self._remote = remote
        self._fresh()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._fresh)

    def _fresh(self) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()  # may be put to from a finalizer
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._idle = threading.Condition(threading.RLock())
        self._waiting = 0
        self.lost = 0

    def settle(self, attempt: str, charges: tuple[Charge, ...], now: float, held: tuple[Any, ...] = ()) -> None:
        """Settle an attempt; never raises."""
        if not self._remote:
            try:
                self._work(attempt, charges, now, held)
            except StoreError:
                pass  # tried again below
            else:
                return
        with self._idle:
            if self._waiting >= MOST:
                self.lost += 1
                return
            self._waiting += 1
        self._jobs.put((attempt, charges, now, held))
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
                self._settle(job)
            finally:
                self._done()

    def _settle(self, job: Job) -> None:
        for _ in range(TRIES):
            try:
                self._work(*job)
            except StoreError:
                time.sleep(PAUSE)
            else:
                return
        self.lost += 1

    def _done(self) -> None:
        with self._idle:
            self._waiting -= 1
            self._idle.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until all is settled, for `timeout` seconds at most; give whether it is."""
        with self._idle:
            return self._idle.wait_for(lambda: self._waiting == 0, timeout)
