"""What a process has observed of its budgets: states of counters, denials, overshoot and failures of the store.

Gauges and the status line read it. Nothing here waits for a store.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from tollspan.model.errors import STORE_FAILED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.budget.denials.denial import Denial
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.stores import CounterState, StoreError

log = logging.getLogger("tollspan.budget")

LOGGED_EVERY: Final = 60.0
"""Seconds between two log lines that say the same of a store."""

MAX_STATES: Final = 4096
"""Counters whose state is remembered; beyond that, the older half is dropped."""


class Observations:
    """The last state of each counter, and totals by budget; safe for threads.

    Attributes:
        states: the budget and the last state seen, by counter.
        denied: denials by budget and reason.
        overshoot: atto-dollars that were spent beyond both reservation and limit, by budget.
        store_errors: failures of the store, by exception class.
    """

    def __init__(self, failed: Callable[[str, BaseException], None], clock: Callable[[], float]) -> None:
        """Start empty.

        Args:
            failed: called with each failure of the store, to count it.
            clock: returns Unix time in seconds.
        """
        self._failed = failed
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Start again with nothing observed."""
        self._lock = threading.RLock()  # reentrant: a finalizer may settle in the middle of a count
        self.states: dict[str, tuple[Budget, CounterState]] = {}
        self.denied: dict[tuple[str, str], int] = {}
        self.overshoot: dict[str, int] = {}
        self.store_errors: dict[str, int] = {}
        self._logged: dict[str, float] = {}

    def drop_old_states(self) -> None:
        """Drop the older half of the states if there are too many."""
        states = self.states
        if len(states) > MAX_STATES:
            for key in list(states)[: MAX_STATES // 2]:
                states.pop(key, None)

    def count_denial(self, denial: Denial) -> None:
        """Count a denial."""
        key = denial.budget, denial.reason
        with self._lock:
            self.denied[key] = self.denied.get(key, 0) + 1

    def count_overshoot(self, budget: Budget, amount: int) -> None:
        """Count what a call has spent beyond its reservation and the budget's limit, in atto-dollars."""
        with self._lock:
            self.overshoot[budget.name] = self.overshoot.get(budget.name, 0) + amount

    def store_failed(self, error: StoreError, meaning: str) -> None:
        """Count a failure of the store, and log it in one line, with what it means for calls.

        Failures that mean the same are logged once in `LOGGED_EVERY` seconds: an outage meets every call.
        """
        name, now = type(error.__cause__ or error).__name__, self._clock()
        with self._lock:
            self.store_errors[name] = self.store_errors.get(name, 0) + 1
            logged = self._logged.get(meaning)
            is_new = logged is None or not logged <= now < logged + LOGGED_EVERY
            if is_new:
                self._logged[meaning] = now
        if is_new:
            log.warning("budget store: %s; %s", error, meaning)
        self._failed(STORE_FAILED, error)
