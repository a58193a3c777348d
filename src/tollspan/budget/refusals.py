"""What happens to a call that a budget does not admit, and the count of what was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tollspan.budget.denials.denial import CounterAddress, exhausted
from tollspan.budget.policy.counter_names import is_block
from tollspan.budget.request import Downgrade
from tollspan.budget.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tollspan.budget.denials.denial import Denial
    from tollspan.budget.observations import Observations
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.request import BudgetRequest, Grant, Shortfall
    from tollspan.budget.stores import Store


class Refusals:
    """Decides between a smaller model and a denial, and records denials."""

    def __init__(
        self,
        store: Store,
        under_way: Callable[[], Iterable[Grant]],
        observed: Observations,
        clock: Callable[[], float],
    ) -> None:
        """Decide on calls of this process.

        Args:
            store: the store of configured budgets; it says how commands reach it.
            under_way: returns the calls of this process that have not ended.
            observed: where denials are recorded.
            clock: returns Unix time in seconds.
        """
        self._store = store
        self._under_way = under_way
        self._observed = observed
        self._clock = clock

    def decide(self, shortfall: Shortfall, budget_request: BudgetRequest, *, downgraded: bool) -> Denial | Downgrade:
        """Return what happens to a call that a budget has too little left for.

        `downgraded`: the call already requests the smaller model.
        """
        budget, update, state = shortfall
        smaller = None if downgraded else smaller_model(budget, budget_request)
        if smaller is not None:
            return Downgrade(budget=budget.name, model=smaller)
        now = self._clock()
        address = self._address(update.key)
        renews_at = None if address.block else budget.period.window(now).renews_at
        shape = budget_request.shape
        bounded = shape.facts.max_output is not None or shape.stated is not None
        return self.record(
            exhausted(budget, state, update.amount, address, now=now, renews_at=renews_at, bounded=bounded)
        )

    def _address(self, key: str) -> CounterAddress:
        """Return where a counter is. Who holds it is known if this process alone counts on it."""
        block, here = is_block(key), isinstance(self._store, MemoryStore)
        holders = None
        if block or here:
            holders = sum(any(update.key == key for _, update in grant.held) for grant in self._under_way())
        return CounterAddress(key=key, store=getattr(self._store, "address", ""), block=block, holders=holders)

    def record(self, denial: Denial) -> Denial:
        """Record a denial, and return it."""
        self._observed.count_denial(denial)
        return denial


def smaller_model(budget: Budget, budget_request: BudgetRequest) -> str | None:
    """Return the model that a budget wants instead of the requested one; None if it wants no other."""
    if budget.on_exceed != "downgrade":
        return None
    return budget.downgrade.get(budget_request.traits.get("model", ""))
