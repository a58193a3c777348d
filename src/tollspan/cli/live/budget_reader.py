"""Reads the status of budgets from their store, for live views."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from tollspan.budget.policy.settings import budgets_of
from tollspan.budget.stores import StoreError
from tollspan.budget.stores.opening import store_of
from tollspan.budget.stores.sqlite import default_path
from tollspan.cli.budget import statuses
from tollspan.model.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tollspan.budget.api import Status
    from tollspan.budget.stores import Store
    from tollspan.settings import Settings

INTERVAL: Final = 2.0
"""Seconds between two reads of the store: its reservations change without a call in the ledger."""


class BudgetReader:
    """The status of budgets in their store, read at most once in `INTERVAL`.

    Args:
        settings: They name the store; budgets that a program counts in memory cannot be read.
        clock: Returns seconds.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._address = settings.budget_store if settings.budget_store != "memory" else "sqlite"
        self._clock = clock
        self._store: Store | None = None
        self._due = float("-inf")
        self.statuses: Sequence[Status] = ()
        self.problem: str | None = None

    def look(self) -> bool:
        """Read the store if that is due; return whether anything changed. A failure is stored in `problem`."""
        if self._clock() < self._due:
            return False
        self._due = self._clock() + INTERVAL
        before = self.statuses, self.problem
        try:
            self.statuses, self.problem = self._read(), None
        except (StoreError, SettingsError, click.ClickException) as error:
            self.statuses, self.problem = (), str(error)
        return (self.statuses, self.problem) != before

    def _read(self) -> Sequence[Status]:
        if self._address == "sqlite" and not default_path().exists():
            return ()  # looking for budgets must not create the store's file
        if self._store is None:
            self._store = store_of(self._address, budgets_of(self._settings))
        return sorted(statuses(self._store), key=lambda item: -(item.utilization or 0))

    def close(self) -> None:
        """Close the store; the next read opens it again."""
        if self._store is not None:
            self._store.close()
            self._store = None
