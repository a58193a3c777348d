"""Open the store that a setting names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.budget.stores.memory import MemoryStore
from tollspan.model.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.stores import Store


STORES: Final = (
    "memory, sqlite, sqlite:PATH, redis://HOST:PORT/DB, rediss://..., valkey://..., prometheus:http://HOST:PORT"
)


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
