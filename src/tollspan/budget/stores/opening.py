"""Open the store that the setting `budget_store` names."""

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
    """Return the store that a setting names.

    Args:
        text: the setting.
        budgets: the configured budgets, for a store that queries each of them.

    Raises:
        SettingsError: the store is unknown, needs a package that is not installed, or cannot keep one of the budgets.
    """
    scheme, colon, rest = text.partition(":")
    match scheme.lower():
        case "memory" if not colon:
            return MemoryStore()
        case "sqlite":
            from tollspan.budget.stores.sqlite import SqliteStore, default_path

            if "\0" in rest:
                raise SettingsError("invalid budget_store: the path contains a null character")
            return SqliteStore(rest.removeprefix("//") if colon else default_path())
        case "redis" | "rediss" | "valkey" | "valkeys" | "unix":
            from tollspan.budget.stores.redis import RedisStore

            return RedisStore(text)
        case "prometheus":
            from tollspan.budget.stores.prometheus import PrometheusStore

            return PrometheusStore(rest, budgets)
    # Without the text, which may be an address with a password in it.
    raise SettingsError(f"unknown budget_store; expected one of {STORES}")
