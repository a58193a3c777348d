"""What a call reserves and is charged in a budget, in that budget's own unit.

What a call is charged, by how it ended (strict budgets):

- a cost that was measured or stated by the provider: that cost;
- answered with an error status: nothing; never sent: nothing;
- anything else (a time-out, a broken connection, a stream that was left, usage never told): its reservation, for the
  provider may bill it. What is charged beyond the record's own cost is kept apart as `uncertain`: spent less uncertain
  is the sum of the records' costs, which `tollspan.spend` shows.

A budget that estimates what is expected takes the record's own cost where it has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.budget.policy.budget import Assumed
from tollspan.budget.stores import Charge

if TYPE_CHECKING:
    from tollspan.budget.bounds import Bound, Bounds
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.policy.matching import CompiledBudget
    from tollspan.budget.request import BudgetRequest
    from tollspan.model.records import Call, Usage

_UNSURE: Final = frozenset({"estimated", "floor"})
"""Qualities of a cost that may be less than what the provider bills."""

_COUNTED: Final = frozenset({"calls", "identical"})
"""Units that count calls, whatever they use."""


class Prices:
    """What one call costs at most, or probably; worked out once per kind, when first asked for."""

    __slots__ = ("_bounds", "_now", "_request", "_strict")

    def __init__(self, bounds: Bounds, budget_request: BudgetRequest, now: float) -> None:
        self._bounds = bounds
        self._request = budget_request
        self._now = now
        self._strict: Bound | None = None

    def amount(self, rule: CompiledBudget) -> int | None:
        """Return what a budget has to reserve, in its own unit; None where no price is known."""
        unit = rule.unit
        if unit == "calls":
            return 1
        if unit == "identical":
            return 0 if self._request.resent else 1  # an SDK's retry is no loop of the application's
        bound = self._strict
        if bound is None:
            bound = self._strict = self._bounds.strict(self._request.shape, self._now)
        if rule.adjusts:
            bound = self._adjusted(rule.budget, bound, expected=rule.budget.estimate == "expected")
        return bound.cost if unit == "usd" else bound.tokens

    def most(self, budget: Budget) -> int | None:
        """Return what a call may use at most, in a budget's own unit; None where no price is known."""
        bound = self._strict or self._bounds.strict(self._request.shape, self._now)
        bound = self._adjusted(budget, bound, expected=False)
        return bound.cost if budget.limit.unit == "usd" else bound.tokens

    def _adjusted(self, budget: Budget, bound: Bound, *, expected: bool) -> Bound:
        """Return the bound by a price that the budget assumes, or by what the model has been producing."""
        budget_request = self._request
        if bound.cost is None and isinstance(budget.unpriced, Assumed):
            bound = self._bounds.strict(budget_request.shape, self._now, budget.unpriced)
        if expected:
            bound = self._bounds.expected(
                budget_request.shape, bound, budget_request.traits.get("provider", ""), self._now
            )
        return bound


def charge_of(budget: Budget, key: str, slot: int, reserved: int, call: Call) -> Charge:
    """Return what a call is charged in a budget's own unit (see the module's text)."""
    unit = budget.limit.unit
    counted = unit in _COUNTED
    if not call.billable:  # never sent, or refused by the provider
        return Charge(key, slot, reserved if counted and call.http_status is not None else 0)
    if counted:
        return Charge(key, slot, reserved if reserved or unit == "identical" else 1)
    cost = call.cost
    known = cost.amount if unit == "usd" and cost.amount is not None else known_of(budget, call.usage, cost.amount)
    if known is not None and (
        not reserved
        or budget.estimate == "expected"
        or (cost.quality not in _UNSURE and call.usage_quality not in _UNSURE)
    ):
        return Charge(key, slot, known)
    own = known or 0
    amount = max(own, reserved)
    return Charge(key, slot, amount, amount - own)


def known_of(budget: Budget, usage: Usage | None, cost: int | None) -> int | None:
    """Return what a usage and its cost in atto-dollars come to in a budget's unit; None where they do not tell."""
    if budget.limit.unit == "tokens":
        return None if usage is None else (usage.input or 0) + (usage.output or 0)
    if cost is not None:
        return cost
    if usage is None:
        return None
    if isinstance(budget.unpriced, Assumed):
        return (usage.input or 0) * budget.unpriced.input + (usage.output or 0) * budget.unpriced.output
    return 0 if budget.unpriced == "allow" else None
