"""The amounts that a call reserves before it is sent, in the unit of each budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tollspan.budget.policy.budget import Assumed

if TYPE_CHECKING:
    from tollspan.budget.bounds import Bound, Bounds
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.policy.matching import CompiledBudget
    from tollspan.budget.request import BudgetRequest


class CallAmounts:
    """The amounts of one call: the upper bound is computed once, when it is first needed.

    Attributes:
        bound: the upper bound; None if it was not needed yet.
    """

    __slots__ = ("_bounds", "_now", "_request", "bound")

    def __init__(self, bounds: Bounds, budget_request: BudgetRequest, now: float) -> None:
        self._bounds = bounds
        self._request = budget_request
        self._now = now
        self.bound: Bound | None = None

    def to_reserve(self, budget: CompiledBudget) -> int | None:
        """Return the amount that the call reserves in a budget; None if its cost is not known."""
        unit = budget.unit
        if unit == "calls":
            return 1
        if unit == "identical":
            return 0 if self._request.resent else 1  # a retry by an SDK is not a loop of the application
        bound = self.bound
        if bound is None:
            bound = self.bound = self._bounds.strict(self._request.shape, self._now)
        if budget.adjusts_bound:
            bound = self._adjusted(budget.budget, bound, expected=not budget.budget.hard)
        return bound.cost if unit == "usd" else bound.tokens

    def at_most(self, budget: Budget) -> int | None:
        """Return the amount that the call can use at most; None if its cost is not known."""
        bound = self.bound or self._bounds.strict(self._request.shape, self._now)
        bound = self._adjusted(budget, bound, expected=False)
        return bound.cost if budget.limit.unit == "usd" else bound.tokens

    def _adjusted(self, budget: Budget, bound: Bound, *, expected: bool) -> Bound:
        """Return the bound at a price that the budget assumes, or reduced to what the model usually uses."""
        shape = self._request.shape
        if bound.cost is None and isinstance(budget.unpriced, Assumed):
            bound = self._bounds.strict(shape, self._now, budget.unpriced)
        if expected:
            bound = self._bounds.expected(shape, bound, self._request.traits.get("provider", ""), self._now)
        return bound
