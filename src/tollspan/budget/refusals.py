"""What happens to a call that a budget does not admit now, and the count of what was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tollspan.budget.denials.denial import CounterAddress, exhausted
from tollspan.budget.policy.counter_names import is_block
from tollspan.budget.request import Downgrade, Obstruction

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.budget.denials.denial import Denial
    from tollspan.budget.holders import Holders
    from tollspan.budget.observations import Observations
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.request import BudgetRequest, Shortfall
    from tollspan.budget.stores import CounterUpdate, Store
    from tollspan.budget.waiting import Turn


class Refusals:
    """Decides between a smaller model, a wait and a denial, and records denials.

    Attributes:
        batches_on: returns what batches have reserved on a counter, and their names.
    """

    def __init__(
        self,
        store: Store,
        observed: Observations,
        holders: Holders,
        clock: Callable[[], float],
    ) -> None:
        """Decide on calls of this process.

        Args:
            store: the store of configured budgets; it says how commands reach it.
            observed: where denials are recorded.
            holders: knows which calls of this process hold a counter.
            clock: returns Unix time in seconds.
        """
        self._store = store
        self.batches_on: Callable[[str], tuple[int, tuple[str, ...]]] = lambda _: (0, ())
        self._observed = observed
        self._holders = holders
        self._clock = clock

    def decide(
        self, shortfall: Shortfall, budget_request: BudgetRequest, *, downgraded: bool, turn: Turn | None
    ) -> Denial | Downgrade | Obstruction:
        """Return what happens to a call that a budget has too little left for.

        Args:
            shortfall: the budget, and whether the call may wait.
            budget_request: the call.
            downgraded: whether the call already requests the smaller model.
            turn: the turn of a call that has waited; None when it is decided for the first time.
        """
        budget, update, state, wait, own = shortfall
        smaller = None if downgraded else smaller_model(budget, budget_request)
        if smaller is not None:
            return Downgrade(budget=budget.name, model=smaller)
        if wait and not budget_request.batch and (turn is None or not turn.final):
            return Obstruction(budget.name, update.key, wait)
        now = self._clock()
        batches = self.batches_on(update.key) if state.reserved else (0, ())
        address = self._address(update.key, state.reserved - batches[0])
        renews_at = None if address.block else budget.period.window(now).renews_at
        shape = budget_request.shape
        bounded = shape.facts.max_output is not None or shape.stated is not None
        return self.record(
            exhausted(
                budget,
                state,
                update.least or update.amount if budget_request.batch else update.amount,
                address,
                now=now,
                renews_at=renews_at,
                bounded=bounded,
                own=own,
                waited=turn.waited if turn is not None and turn.key else None,
                on_loop=turn is not None and not turn.key,
                subject="batch" if budget_request.batch else "call",
                batches=batches,
            )
        )

    def _address(self, key: str, reserved: int) -> CounterAddress:
        """Return where a counter is, and how many calls hold what is reserved on it."""
        holders = self._holders.count(key, reserved) if reserved > 0 else 0
        return CounterAddress(key=key, store=getattr(self._store, "address", ""), block=is_block(key), holders=holders)

    def behind(
        self, budget: Budget, update: CounterUpdate, budget_request: BudgetRequest, *, downgraded: bool
    ) -> Downgrade | Obstruction:
        """Return what happens to a call before which others wait: a smaller model comes before a wait."""
        smaller = None if downgraded else smaller_model(budget, budget_request)
        if smaller is not None:
            return Downgrade(budget=budget.name, model=smaller)
        return Obstruction(budget.name, update.key, budget.wait)

    def record(self, denial: Denial) -> Denial:
        """Record a denial, and return it."""
        self._observed.count_denial(denial)
        return denial


def smaller_model(budget: Budget, budget_request: BudgetRequest) -> str | None:
    """Return the model that a budget wants instead of the requested one; None if it wants no other."""
    if budget.on_exceed != "downgrade":
        return None
    return budget.downgrade.get(budget_request.traits.get("model", ""))
