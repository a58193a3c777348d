"""The budgets of the settings: `budgets_of(settings)`.

Everything is read before anything is used: if one budget is not valid, none of them is active, and the error says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tollspan.budget.policy.budget import checked, parse_tables, parse_text
from tollspan.model.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.budget.policy.budget import Budget
    from tollspan.settings import Settings


def budgets_of(settings: Settings) -> tuple[Budget, ...]:
    """Return the configured budgets, of the text and of the tables.

    Raises:
        SettingsError: one of them cannot be read; the message says where it is, and names key, value and what is
            expected.
    """
    hard = settings.budget_estimate == "strict"
    budgets: list[Budget] = []
    match settings.budgets:
        case str() as problem:
            raise SettingsError(problem)
        case list() | tuple() as tables:
            budgets += parse_tables([_table(table, "tollspan.toml: budget", hard=hard) for table in tables])
        case _:
            raise SettingsError(_invalid("tollspan.toml: budget"))
    match settings.budget:
        case None:
            pass
        case str() as line:
            budgets += parse_text(line, "TOLLSPAN_BUDGET", hard=hard)
        case list() | tuple() as tables:
            budgets += parse_tables([_table(table, "budget", hard=hard) for table in tables], "budget")
        case _:
            raise SettingsError(_invalid("budget"))
    return checked(budgets, "TOLLSPAN_BUDGET and tollspan.toml")


def _table(table: object, at: str, *, hard: bool) -> Mapping[str, Any]:
    if isinstance(table, dict):
        return table if "estimate" in table else {"hard": hard, **table}
    raise SettingsError(_invalid(at))


def _invalid(at: str) -> str:
    """Return the message for a value without its text: a table that is misplaced may hold the secret of a webhook."""
    return f"{at} is not valid; expected a text such as 5 USD/day, or a list of tables ([[budget]], not [budget])"
