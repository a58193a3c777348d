"""What a process has observed of its budgets: states of counters, denials, overshoot and failures of the store.

Gauges and the status line read it. Nothing here waits for a store.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.budget.denials.denial import Denial
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.stores import CounterState, StoreError

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

    def __init__(self, failed: Callable[[str, BaseException], None]) -> None:
        """Start empty; `failed` is called with each failure of the store."""
        self._failed = failed
        self.clear()

    def clear(self) -> None:
        """Start again with nothing observed."""
        self._lock = threading.RLock()  # reentrant: a finalizer may settle in the middle of a count
        self.states: dict[str, tuple[Budget, CounterState]] = {}
        self.denied: dict[tuple[str, str], int] = {}
        self.overshoot: dict[str, int] = {}
        self.store_errors: dict[str, int] = {}

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

    def store_failed(self, error: StoreError) -> None:
        """Count and report a failure of the store."""
        name = type(error.__cause__ or error).__name__
        with self._lock:
            self.store_errors[name] = self.store_errors.get(name, 0) + 1
        self._failed("budget store", error)
