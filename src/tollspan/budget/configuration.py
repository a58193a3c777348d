"""From settings to budgets and their store.

Everything is read before anything is used: one budget that is wrong leaves none of them in force, and an error that
says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tollspan.budget.policy import checked, parse_tables, parse_text
from tollspan.budget.stores.memory import MemoryStore
from tollspan.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tollspan.budget.policy import Budget
    from tollspan.budget.stores import Store
    from tollspan.settings import Settings

STORES = "memory, sqlite, sqlite:PATH, redis://HOST:PORT/DB, rediss://..., valkey://..., prometheus:http://HOST:PORT"


def budgets_of(settings: Settings) -> tuple[Budget, ...]:
    """Give the budgets that are configured, in text and in tables.

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


def store_of(text: str, budgets: Iterable[Budget] = ()) -> Store:
    """Open the store that a setting names.

    Args:
        text: the setting.
        budgets: what is configured, for a store that has to ask for each of them.

    Raises:
        SettingsError: there is no such store, what it needs is not installed, or it cannot keep one of the budgets.
    """
    kind, colon, rest = text.partition(":")
    match kind.lower():
        case "memory" if not colon:
            return MemoryStore()
        case "sqlite":
            from tollspan.budget.stores.sqlite import SqliteStore, default_path

            if "\0" in rest:
                raise SettingsError("budget_store is not usable: no path has a null character")
            return SqliteStore(rest.removeprefix("//") if colon else default_path())
        case "redis" | "rediss" | "valkey" | "valkeys" | "unix":
            from tollspan.budget.stores.redis import RedisStore

            return RedisStore(text)
        case "prometheus":
            from tollspan.budget.stores.prometheus import PrometheusStore

            return PrometheusStore(rest, budgets)
    # Without the text, which may be an address with a password in it.
    raise SettingsError(f"budget_store is no store that there is; accepted are {STORES}")
