"""The amounts that a call reserves before it is sent, in the unit of each budget.

- `hard`: the most that the call can use. With `fit`, also less, down to what it can use with a lower output limit.
- otherwise: what nine of ten such calls do not pass; near the end of the budget also less, as long as it is what half
  of them do not pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tollspan.budget.expectations import Expectation, expected
from tollspan.budget.policy.budget import Assumed

if TYPE_CHECKING:
    from tollspan.budget.bounds import Bound, Bounds
    from tollspan.budget.habits import Basis, Habits
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.policy.matching import CompiledBudget
    from tollspan.budget.request import BudgetRequest
    from tollspan.budget.request_parts import Unbounded

    Amounts = tuple[int | None, int]
    """The amount to reserve (None: its cost is not known), and the least that may be reserved instead; 0 = no less."""


class AmountsToReserve(Protocol):
    """The amounts of a call, or of the requests of a batch."""

    @property
    def unbounded(self) -> Unbounded | None:
        """Return what has no upper bound in what was read by `to_reserve`."""
        ...

    def to_reserve(self, budget: CompiledBudget) -> Amounts:
        """Return what is reserved in a budget."""
        ...


class CallAmounts:
    """The amounts of one call: upper bound and expectation are computed once, when they are first needed.

    Attributes:
        bound: the upper bound; None if no budget needed it.
    """

    __slots__ = ("_bounds", "_expected", "_habits", "_now", "_request", "bound")

    def __init__(self, bounds: Bounds, habits: Habits, budget_request: BudgetRequest, now: float) -> None:
        self._bounds = bounds
        self._habits = habits
        self._request = budget_request
        self._now = now
        self.bound: Bound | None = None
        self._expected: Expectation | None = None

    @property
    def basis(self) -> Basis | None:
        """Return what the call was expected from; None if no budget needed that."""
        return None if self._expected is None else self._expected.basis

    @property
    def unbounded(self) -> Unbounded | None:
        """Return the part of the request that has no upper bound; None if there is none, or no budget needed that."""
        return None if self.bound is None else self.bound.unbounded

    def to_reserve(self, budget: CompiledBudget) -> Amounts:
        """Return what the call reserves in a budget."""
        unit = budget.unit
        if unit == "calls":
            return 1, 0
        if unit == "identical":
            return 0 if self._request.resent else 1, 0  # a retry by an SDK is not a loop of the application
        bound = self.bound
        if bound is None:
            bound = self.bound = self._bounds.strict(self._request.shape, self._now)
        if budget.assumes and bound.cost is None:
            bound = self._assumed(budget.budget)
        if budget.is_hard:
            least = self._least_fitting(budget.budget, bound) if budget.budget.fit else 0
            return (bound.cost if unit == "usd" else bound.tokens), least
        expectation = self._expected or self._expectation(bound)
        if unit != "usd":
            return expectation.input + expectation.high, expectation.input + expectation.usual
        if bound.cost is None:
            return None, 0
        return expectation.cost(expectation.high, bound), expectation.cost(expectation.usual, bound)

    def _expectation(self, bound: Bound) -> Expectation:
        request = self._request
        self._expected = expected(request.shape, request.traits.get("provider", ""), bound, self._habits)
        return self._expected

    def _assumed(self, budget: Budget) -> Bound:
        """Return the upper bound at the price that a budget assumes."""
        assumed = budget.unpriced if isinstance(budget.unpriced, Assumed) else None
        return self._bounds.strict(self._request.shape, self._now, assumed)

    def _upper_bound(self, budget: Budget) -> Bound:
        bound = self.bound or self._bounds.strict(self._request.shape, self._now)
        return self._assumed(budget) if bound.cost is None else bound

    def at_most(self, budget: Budget) -> int | None:
        """Return the amount that the call can use at most; None if its cost is not known."""
        bound = self._upper_bound(budget)
        return bound.cost if budget.limit.unit == "usd" else bound.tokens

    # A lower output limit

    def _least_fitting(self, budget: Budget, bound: Bound) -> int:
        """Return the amount that the call can use with the lowest output limit; 0 if its limit cannot be lowered.

        Thinking counts as output. A limit below the thinking that a request allows is refused by its provider, or
        leaves no response.
        """
        request = self._request
        if not bound.output or not request.can_limit():
            return 0
        expectation = self._expected or self._expectation(bound)
        texts, facts, lowest = expectation.basis.texts, request.shape.facts, budget.fit_at_least
        if facts.thinking_budget or facts.reasoning_level:
            usual = expectation.usual // texts if expectation.habit is not None else 0
            lowest = max(lowest, usual) + (facts.thinking_budget or 0)
        lower = bound.with_output(min(lowest * texts, bound.output))
        return (lower.cost or 0) if budget.limit.unit == "usd" else lower.tokens

    def output_limit(self, budget: Budget, amount: int) -> int:
        """Return the output limit with which a text of the call uses no more than `amount` in a budget."""
        bound = self._upper_bound(budget)
        texts = 1 if self._expected is None else self._expected.basis.texts
        without = bound.with_output(0)
        if budget.limit.unit != "usd":
            return (amount - without.tokens) // texts
        price = (bound.with_output(1).cost or 0) - (without.cost or 0)
        return (amount - (without.cost or 0)) // (price * texts) if price else bound.output // texts
