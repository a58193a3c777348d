"""What a call is charged in a budget, in the unit of the budget.

A strict budget charges a call by how it ended:

- a cost that was measured, or stated by the provider: that cost;
- an error status: nothing; never sent: nothing;
- a stream that broke off, or a response without usage: what it can have used at most, which is the bound of its input,
  and the output of the time that it was open (`Call.output_most`);
- anything else (a timeout before there was a response, a killed process): its reservation, because the provider may go
  on and bill it.

No call is charged more than its reservation in that way. The part beyond the record's own cost is counted as
`uncertain`: spent less uncertain is the sum of the records' costs, which the metric `tollspan.spend` shows.

A budget that estimates what is expected charges the record's own cost if there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.budget.policy.budget import Assumed
from tollspan.budget.stores import Charge

if TYPE_CHECKING:
    from tollspan.budget.bounds import Bound
    from tollspan.budget.policy.budget import Budget
    from tollspan.model.records import Call, Usage

_INCOMPLETE: Final = frozenset({"estimated", "floor"})
"""Qualities of a cost that may be less than what the provider bills."""

_COUNTING: Final = frozenset({"calls", "identical"})
"""Units that count calls, whatever they use."""


def charge_of(  # noqa: PLR0913, PLR0917 - a reservation, and what became of it
    budget: Budget, key: str, slot: int, reserved: int, call: Call, bound: Bound | None = None
) -> Charge:
    """Return what a call is charged in a budget's unit (see the module's text).

    Args:
        budget: the budget.
        key: the counter.
        slot: the slot of the counter that the call counts in.
        reserved: the amount that was reserved for the call; 0 if there was no check.
        call: the record of the call.
        bound: the upper bound that was computed for it; None if there was no check, or no need of it.
    """
    unit = budget.limit.unit
    counting = unit in _COUNTING
    if not call.billable:  # never sent, or refused by the provider
        return Charge(key, slot, reserved if counting and call.http_status is not None else 0)
    if counting:
        return Charge(key, slot, reserved if reserved or unit == "identical" else 1)
    cost = call.cost
    known = cost.amount if unit == "usd" and cost.amount is not None else known_of(budget, call.usage, cost.amount)
    if known is not None and (
        not reserved or not budget.hard or (cost.quality not in _INCOMPLETE and call.usage_quality not in _INCOMPLETE)
    ):
        return Charge(key, slot, known)
    certain = known or 0
    amount = max(certain, _possible(budget, reserved, call, bound))
    return Charge(key, slot, amount, amount - certain)


def _possible(budget: Budget, reserved: int, call: Call, bound: Bound | None) -> int:
    """Return what a call whose usage is not known can have used at most of its reservation."""
    if bound is None or call.output_most is None:
        return reserved
    # What the wire has said of the input is exact, also if the stream broke off after that.
    said = call.usage.input if call.usage is not None and call.usage_quality == "floor" else None
    used = bound.with_output(min(call.output_most, bound.output))
    if said is not None:
        used = used.with_input(min(said, bound.input))
    if budget.limit.unit == "tokens":
        return min(reserved, used.tokens)
    if used.cost is not None:
        return min(reserved, used.cost)
    if isinstance(budget.unpriced, Assumed):
        return min(reserved, used.input * budget.unpriced.input + used.output * budget.unpriced.output)
    return reserved


def known_of(budget: Budget, usage: Usage | None, cost: int | None) -> int | None:
    """Return usage and cost (atto-dollars) of a call as an amount in a budget's unit; None if it is not known."""
    if budget.limit.unit == "tokens":
        return None if usage is None else (usage.input or 0) + (usage.output or 0)
    if cost is not None:
        return cost
    if usage is None:
        return None
    if isinstance(budget.unpriced, Assumed):
        return (usage.input or 0) * budget.unpriced.input + (usage.output or 0) * budget.unpriced.output
    return 0 if budget.unpriced == "allow" else None
