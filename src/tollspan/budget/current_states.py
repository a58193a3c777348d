"""How full budgets are: the counters of a call made here, and the states that gauges show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.budget.counter_updates import of_blocks, of_configured
from tollspan.budget.policy.counter_names import is_block, of_sessions, period_of
from tollspan.budget.policy.enforcement import SOFT
from tollspan.budget.policy.matching import blocks
from tollspan.budget.reservations import SETTLEMENT_WAIT
from tollspan.budget.stores import CounterUpdate, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from tollspan.budget.observations import Observations
    from tollspan.budget.policy.matching import CompiledBudget, CompiledBudgets
    from tollspan.budget.request import Held
    from tollspan.budget.settler import Settler
    from tollspan.budget.stores import CounterState, Store
    from tollspan.budget.stores.memory import MemoryStore

REFRESH_EVERY: Final = 1.0
"""Seconds between two refreshes: gauges are read five at a time."""

RESET_WAIT: Final = 0.25
"""Seconds that a reset waits until calls that have ended are settled."""


class CurrentStates:
    """Reads counters in `local` and `store`.

    Attributes:
        budgets: the configured budgets.
    """

    def __init__(  # noqa: PLR0913 - the parts of a guard that it reads
        self,
        local: MemoryStore,
        store: Store,
        budgets: CompiledBudgets,
        settler: Settler,
        observed: Observations,
        *,
        clock: Callable[[], float],
        defaults: Mapping[str, str],
    ) -> None:
        """Read with `clock`; `defaults` are the session and run of calls that set none."""
        self._local = local
        self._store = store
        self.budgets = budgets
        self._settler = settler
        self._observed = observed
        self._clock = clock
        self._defaults = defaults
        self.clear()

    def clear(self) -> None:
        """Refresh with the next reading."""
        self._refreshed_at = 0.0

    def states_here(self, traits: Mapping[str, str], wanted: Callable[[CompiledBudget], bool]) -> list[CounterState]:
        """Return the states of the counters that a call made here would count on.

        Args:
            traits: what is known of the call.
            wanted: returns whether a budget is of interest.

        Raises:
            StoreError: the store does not answer.
        """
        now, traits = self._clock(), {**self._defaults, **traits}
        states: list[CounterState] = []
        inside = [update for budget, update in of_blocks(blocks.get()) if wanted(budget)]
        if inside:
            states += self._local.states(inside, now)
        budgets = [budget for budget in self.budgets.all if wanted(budget)]
        configured = [update for _, update in of_configured(budgets, traits, now)]
        if configured:
            self._settler.flush(SETTLEMENT_WAIT)
            states += self._store.states(configured, now)
        return states

    def refresh(self) -> None:
        """Read the observed counters again, because time and other processes change them; never waits for a store.

        Counters in this process's memory are read now, those of a store in the background.
        """
        now = self._clock()
        if now < self._refreshed_at + REFRESH_EVERY:
            return
        self._refreshed_at = now
        if self._store is self._local:
            self._read_again(now)
        else:
            self._settler.later(lambda: self._read_again(now))

    def _read_again(self, now: float) -> None:
        held = self._observed_now(now)
        try:
            states = self._store.states([update for _, update in held], now) if held else ()
        except StoreError as error:
            self._observed.store_failed(error, "budgets are shown as they were; no call was affected")
            return
        observed = self._observed.states
        for (budget, update), state in zip(held, states, strict=True):
            if update.key in observed:
                observed[update.key] = budget, state

    def _observed_now(self, now: float) -> list[Held]:
        """Return the observed counters of current periods, and forget those of past periods."""
        budgets = {budget.name: budget for budget in self.budgets.all}
        observed = self._observed.states
        held: list[Held] = []
        for key, (budget, _) in list(observed.items()):
            compiled = budgets.get(budget.name)
            if compiled is None or is_block(key):
                continue
            period = compiled.active_period(now)
            window = period.window
            if period_of(key) != window.name:
                observed.pop(key, None)  # the budget was renewed since
                continue
            update = CounterUpdate(
                key, compiled.name, 0, compiled.limit, SOFT, window.slot, window.first, period.kept_until
            )
            held.append((budget, update))
        return held

    def reset_sessions(self, sessions: Collection[str] | None) -> None:
        """Reset the budgets of sessions; None = of every session in the store.

        Raises:
            StoreError: the store does not answer.
        """
        self._settler.flush(RESET_WAIT)  # what was spent before the reset is reset, too
        keys = of_sessions([counter.key for counter in self._store.counters(self._clock())], sessions)
        if keys:
            self._store.reset(keys)
        for key in keys:
            self._observed.states.pop(key, None)
