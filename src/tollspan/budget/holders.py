"""Which calls of this process hold the reservations of a counter, and which of them are under way in the same context.

A call never waits for one that is under way in its own task or thread, such as a stream that is still open there: that
could only end after the wait. What is under way is inherited by tasks that are started meanwhile, because the task that
starts them usually waits for them.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tollspan.budget.request import BudgetRequest, Grant
    from tollspan.budget.settlements import Settlements

_here: Final[ContextVar[tuple[str, ...]]] = ContextVar("tollspan_under_way", default=())
"""The attempts granted in this context whose requests do not know that; those that have ended are dropped."""


class Holders:
    """Finds the calls under way that hold a counter."""

    __slots__ = ("_settlements",)

    def __init__(self, settlements: Settlements) -> None:
        self._settlements = settlements

    def remember(self, attempt: str) -> None:
        """Remember that an attempt is under way in this context."""
        _here.set((*filter(self._settlements.holds, _here.get()), attempt))

    def own(self, budget_request: BudgetRequest, key: str) -> int:
        """Return the amount that calls hold on a counter which are under way in the context of a call."""
        attempts = set(_here.get())
        if budget_request.under_way is not None:
            attempts.update(budget_request.under_way())
        grants = map(self._settlements.holds, attempts)
        return sum(_amount(grant, key) or 0 for grant in grants if grant is not None)

    def count(self, key: str, reserved: int) -> int | None:
        """Return how many calls hold what is reserved on a counter; None if other processes hold some of it."""
        amounts = [_amount(grant, key) for grant in self._settlements.holding()]
        held = [amount for amount in amounts if amount is not None]
        return len(held) if sum(held) == reserved else None


def _amount(grant: Grant, key: str) -> int | None:
    """Return the amount that a grant holds on a counter; None if it is not one of its counters."""
    for _, update in grant.held:
        if update.key == key:
            return update.amount
    return None
