"""The warning that callbacks, webhooks and spans get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tollspan.budget.denials.denial import amount

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetWarning:
    """A share of a budget that was passed. `spent` and `limit` in the budget's unit, dollars as atto-dollars."""

    budget: str
    counter: str
    share: Decimal
    spent: int
    limit: int
    unit: str

    def __str__(self) -> str:
        """Return the warning for people."""
        spent, limit = amount(self.spent, self.unit), amount(self.limit, self.unit, limit=True)
        return f'Budget "{self.budget}" passed {self.share:.0%}: {spent} of {limit} spent ({self.counter})'
