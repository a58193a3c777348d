"""What happens to a call that a budget does not admit, and the count of what was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tollspan.budget.denials.denial import exhausted
from tollspan.budget.policy.counter_names import is_block
from tollspan.budget.request import Downgrade

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.budget.denials.denial import Denial
    from tollspan.budget.observations import Observations
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.request import BudgetRequest, Shortfall


class Refusals:
    """Decides between a smaller model and a denial, and records denials."""

    def __init__(self, observed: Observations, clock: Callable[[], float]) -> None:
        """Record denials in `observed`; `clock` returns Unix time in seconds.

        `batches_on` returns what batches have reserved on a counter, and their names.
        """
        self.batches_on: Callable[[str], tuple[int, tuple[str, ...]]] = lambda _: (0, ())
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
        block = is_block(update.key)
        renews_at = None if block else budget.period.window(now).renews_at
        shape = budget_request.shape
        bounded = shape.facts.max_output is not None or shape.stated is not None
        return self.record(
            exhausted(
                budget,
                state,
                update.least or update.amount,
                now=now,
                renews_at=renews_at,
                bounded=bounded,
                block=block,
                subject="batch" if budget_request.batch else "call",
                batches=self.batches_on(update.key) if state.reserved else (0, ()),
            )
        )

    def record(self, denial: Denial) -> Denial:
        """Record a denial, and return it."""
        self._observed.count_denial(denial)
        return denial


def smaller_model(budget: Budget, budget_request: BudgetRequest) -> str | None:
    """Return the model that a budget wants instead of the requested one; None if it wants no other."""
    if budget.on_exceed != "downgrade":
        return None
    return budget.downgrade.get(budget_request.traits.get("model", ""))
