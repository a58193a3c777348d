"""The warning that callbacks, webhooks and spans receive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tollspan.budget.denials.denial import amount

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetWarning:
    """A warning that a budget has passed a share of its limit.

    Attributes:
        budget: the budget's name.
        counter: the counter's name.
        share: the share that was passed, above 0 and up to 1.
        spent: what is spent, in the budget's unit; dollars as atto-dollars.
        limit: the limit, in the budget's unit; dollars as atto-dollars.
        unit: usd, tokens, calls or identical.
    """

    budget: str
    counter: str
    share: Decimal
    spent: int
    limit: int
    unit: str

    def __str__(self) -> str:
        """Return the warning as text."""
        spent, limit = amount(self.spent, self.unit), amount(self.limit, self.unit, limit=True)
        noun = {"usd": "", "identical": " identical calls"}.get(self.unit, f" {self.unit}")
        return f'Budget "{self.budget}" passed {self.share:.0%}: {spent} of {limit}{noun} spent ({self.counter})'
