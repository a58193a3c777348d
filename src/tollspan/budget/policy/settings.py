"""The budgets of the settings: `budgets_of(settings)`.

Everything is read before anything is used: if one budget is not valid, none of them is active, and the error says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.policy.budget import checked, parse_tables, parse_text
from tollspan.model.errors import SettingsError
from tollspan.model.tables import wrong

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.budget.policy.budget import Budget
    from tollspan.settings import Settings

_TEXT_OR_TABLES: Final = "a text such as 5 USD/day, or a list of tables"


def budgets_of(settings: Settings) -> tuple[Budget, ...]:
    """Return the configured budgets, of the text and of the tables.

    Raises:
        SettingsError: one of them cannot be read; the message says where it is, and names key, value and what is
            expected.
    """
    estimate = settings.budget_estimate
    budgets: list[Budget] = []
    match settings.budgets:
        case str() as problem:
            raise SettingsError(problem)
        case list() | tuple() as tables:
            budgets += parse_tables([_table(table, estimate, "tollspan.toml: budget") for table in tables])
        case other:
            raise SettingsError(f"tollspan.toml: budget{wrong(other, '[[budget]] tables')}")
    match settings.budget:
        case None:
            pass
        case str() as line:
            budgets += parse_text(line, "TOLLSPAN_BUDGET", estimate)
        case list() | tuple() as tables:
            budgets += parse_tables([_table(table, estimate, "budget") for table in tables], "budget")
        case other:
            raise SettingsError(f"budget{wrong(other, _TEXT_OR_TABLES)}")
    return checked(budgets, "TOLLSPAN_BUDGET and tollspan.toml")


def _table(table: object, estimate: str, at: str) -> Mapping[str, Any]:
    if isinstance(table, dict):
        return {"estimate": estimate, **table}
    raise SettingsError(f"{at}{wrong(table, 'a table of keys')}")
