"""Settles reservations off the call path: in a thread for stores across a network, and again if any store failed.

On an event loop only memory is settled with at once, because all other tasks would wait for another store. Until a
reservation is settled it stays reserved, which is the safe side. One that can never be settled is charged when its
lease ends.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.stores import StoreError
from tollspan.runtime.event_loops import on_loop
from tollspan.runtime.forking import renew_in_child
from tollspan.runtime.worker import BackgroundWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.budget.stores import Charge

MOST: Final = 10_000
"""Settlements that may wait; of more, the reservation is charged when its lease ends."""
PAUSE: Final = 0.5
"""Seconds between two tries."""
TRIES: Final = 120


class Settler:
    """Runs `work(attempt, charges, now, held, span)` for each settlement: at once, or in the background.

    `lost` counts the settlements that could not be done.
    """

    def __init__(
        self, work: Callable[..., None], failed: Callable[[str, BaseException], None], *, remote: bool
    ) -> None:
        """Settle with `work`.

        Args:
            work: raises StoreError if it has to be tried again.
            failed: takes the kind of any other failure in the background, and its exception.
            remote: the store is across a network, so that nothing is settled at once.
        """
        self._work = work
        self._remote = remote
        self._worker = BackgroundWorker("tollspan-settle", "budget", failed, most=MOST)
        self._fresh()
        renew_in_child(self, Settler._fresh)

    def _fresh(self) -> None:
        self.lost = 0

    @property
    def waiting(self) -> int:
        """Return how many jobs are not done yet."""
        return self._worker.waiting

    def settle(
        self, attempt: str, charges: tuple[Charge, ...], now: float, held: tuple[Any, ...] = (), span: Any = None
    ) -> None:
        """Settle an attempt, at once if that waits for nothing across a network."""
        if not self._remote and not on_loop():
            try:
                self._work(attempt, charges, now, held, span)
            except StoreError:
                pass  # tried again below
            else:
                return
        self.settle_later(attempt, charges, now, held, span)

    def settle_later(self, attempt: str, charges: tuple[Charge, ...], now: float, *more: Any) -> None:
        """Settle an attempt in the background: no call waits twice for a store that has not responded."""
        self.later(partial(self._settle, attempt, charges, now, *more))

    def later(self, job: Callable[[], object]) -> None:
        """Schedule a job once; if too many wait, it is lost."""
        if not self._worker.put(job):
            self.lost += 1

    def _settle(
        self, attempt: str, charges: tuple[Charge, ...], now: float, held: tuple[Any, ...] = (), span: Any = None
    ) -> None:
        self.retry(partial(self._work, attempt, charges, now, held, span))

    def retry(self, work: Callable[[], object]) -> None:
        """Run `work()`, in the background again and again while it raises StoreError."""
        for _ in range(TRIES):
            try:
                work()
            except StoreError:
                if not self._worker.is_current():
                    break  # the process is ending, and waits for no second try
                time.sleep(PAUSE)
            else:
                return
        self.lost += 1

    def flush(self, timeout: float) -> bool:
        """Wait until all jobs so far are done, `timeout` seconds at most; return whether they are."""
        return not self.waiting or self._worker.flush(timeout)
