"""Habits of all processes that share a store: read when a process starts, so that it does not begin without experience.

What is learned is added in the background, after the first call and then every `SHARE_EVERY` seconds, and when the
process ends. No call waits for that, and a store that fails is no reason to refuse one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.budget.stores import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.budget.habits import Basis, Habits
    from tollspan.budget.observations import Observations
    from tollspan.budget.settler import Settler
    from tollspan.budget.stores import Store
    from tollspan.model.records import Call

SHARE_EVERY: Final = 5.0
"""Seconds from one time that habits are written to the next."""


class SharedHabits:
    """Keeps habits in a store."""

    def __init__(
        self,
        habits: Habits,
        store: Store,
        settler: Settler,
        observed: Observations,
        *,
        clock: Callable[[], float],
    ) -> None:
        """Share `habits` through `store`, if it is one that other processes can read."""
        self._habits = habits
        self._store = store
        self._settler = settler
        self._observed = observed
        self._clock = clock
        self._shared = habits.shared
        self._due = 0.0

    def read(self) -> None:
        """Take over what the store knows."""
        if not self._shared:
            return
        try:
            self._habits.put(self._store.habits())
        except StoreError as error:
            self._observed.store_failed(
                error, "what calls usually use is not shared with other processes; no call was affected"
            )

    def learn(self, basis: Basis, call: Call) -> None:
        """Learn from a call that has ended, and have that written in the background if it is time."""
        self._habits.learn(basis, call)
        if self._shared and self._clock() >= self._due:
            self.write_later()

    def write_later(self) -> None:
        """Have the background thread write what was learned since it last did."""
        if self._shared and self._habits.unsent:
            self._due = self._clock() + SHARE_EVERY
            self._settler.later(self._write)

    def _write(self) -> None:
        """Add to the store what was learned, and take over what it knows then."""
        news = self._habits.take()
        if not news:
            return
        try:
            self._habits.put(self._store.learn(news, self._clock()))
        except StoreError as error:
            self._observed.store_failed(
                error, "what calls usually use is not shared with other processes; no call was affected"
            )
