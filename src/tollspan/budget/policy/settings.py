"""From settings to budgets.

Everything is read before anything is used: one budget that is wrong leaves none of them in force, and an error that
says so.
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
    """Return the budgets that are configured, in text and in tables.

    Raises:
        SettingsError: any of them cannot be read; the message names place, key, value and what is accepted.
    """
    estimate = settings.budget_estimate
    found: list[Budget] = []
    match settings.budgets:
        case str() as problem:
            raise SettingsError(problem)
        case list() | tuple() as tables:
            found += parse_tables([_table(table, estimate, "tollspan.toml: [[budget]]") for table in tables])
        case other:
            raise SettingsError(f"tollspan.toml: budget: {other!r} is not usable; accepted are [[budget]] tables")
    match settings.budget:
        case None:
            pass
        case str() as text:
            found += parse_text(text, "TOLLSPAN_BUDGET", estimate)
        case list() | tuple() as tables:
            found += parse_tables([_table(table, estimate, "budget") for table in tables], "budget")
        case other:
            raise SettingsError(
                f"budget={other!r} is not usable; accepted is a text such as 5 USD/day, or a list of tables"
            )
    return checked(found, "TOLLSPAN_BUDGET and tollspan.toml")


def _table(table: object, estimate: str, where: str) -> Mapping[str, Any]:
    if isinstance(table, dict):
        return {"estimate": estimate, **table}
    raise SettingsError(f"{where}: {table!r} is not usable; accepted is a table of keys")
