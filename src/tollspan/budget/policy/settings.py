"""The budgets of the settings: `budgets_of(settings)`.

Everything is read before anything is used: if one budget is not valid, none of them is active, and the error says why.
`defaults_of(settings)` returns what the settings say for budgets that do not say it themselves, which blocks need too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.budget.policy.budget import checked, parse_tables, parse_text, parse_wait
from tollspan.model.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.budget.policy.budget import Budget
    from tollspan.settings import Settings


class Defaults(NamedTuple):
    """What the settings say for budgets that do not say it themselves; None = nothing."""

    hard: bool | None = None
    wait: float | None = None

    def completed(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """Return a `[[budget]]` table with the defaults that it needs.

        A table that says `on_exceed = "warn"` only counts: `hard` for all budgets is not meant for it.
        """
        defaults: dict[str, Any] = {}
        if self.hard is not None and "estimate" not in table and table.get("on_exceed") != "warn":
            defaults["hard"] = self.hard
        if self.wait is not None:
            defaults["wait"] = self.wait
        return {**defaults, **table}


_CONTRADICTION: Final = (
    'budget_hard and budget_estimate contradict each other; budget_estimate = "strict" is the older name of '
    "budget_hard = true"
)


def defaults_of(settings: Settings) -> Defaults:
    """Return what the settings say for budgets that do not say it themselves.

    Raises:
        SettingsError: they contradict each other, or one is not valid.
    """
    hard, estimate = settings.budget_hard, settings.budget_estimate
    if estimate is not None:
        if hard is not None and hard != (estimate == "strict"):
            raise SettingsError(_CONTRADICTION)
        hard = estimate == "strict"
    return Defaults(hard, None if settings.budget_wait is None else parse_wait(settings.budget_wait, "budget_wait"))


def budgets_of(settings: Settings) -> tuple[Budget, ...]:
    """Return the configured budgets, of the text and of the tables.

    Raises:
        SettingsError: one of them cannot be read; the message says where it is, and names key, value and what is
            expected.
    """
    defaults = defaults_of(settings)
    budgets: list[Budget] = []
    match settings.budgets:
        case str() as problem:
            raise SettingsError(problem)
        case list() | tuple() as tables:
            budgets += parse_tables([_table(table, "tollspan.toml: budget", defaults) for table in tables])
        case _:
            raise SettingsError(_invalid("tollspan.toml: budget"))
    match settings.budget:
        case None:
            pass
        case str() as line:
            budgets += parse_text(line, "TOLLSPAN_BUDGET", **defaults.completed({}))
        case list() | tuple() as tables:
            budgets += parse_tables([_table(table, "budget", defaults) for table in tables], "budget")
        case _:
            raise SettingsError(_invalid("budget"))
    return checked(budgets, "TOLLSPAN_BUDGET and tollspan.toml")


def leaves_hard_unsaid(settings: Settings) -> bool:
    """Return whether a valid budget is not hard only because neither it nor the settings say anything of that."""
    if defaults_of(settings).hard is not None:
        return False
    tables: list[Any] = [{}] if isinstance(settings.budget, str) else []
    for given in (settings.budget, settings.budgets):
        tables += given if isinstance(given, (list, tuple)) else ()
    return any({"hard", "estimate"}.isdisjoint(table) and table.get("on_exceed") != "warn" for table in tables)


def _table(table: object, at: str, defaults: Defaults) -> Mapping[str, Any]:
    if isinstance(table, dict):
        return defaults.completed(table)
    raise SettingsError(_invalid(at))


def _invalid(at: str) -> str:
    """Return the message for a value without its text: a table that is misplaced may hold the secret of a webhook."""
    return f"{at} is not valid; expected a text such as 5 USD/day, or a list of tables ([[budget]], not [budget])"
