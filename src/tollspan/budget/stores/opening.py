"""Opens the store that a setting names: one that is built in, or one of an installed package.

`store_of("acme:frankfurt", budgets)` opens a store that an installed package has under the entry point `acme` of the
group `tollspan.budget_stores`: it is called as `acme("frankfurt", budgets)` and returns a `Store`. The metadata of
installed packages is read only for a name that is not built in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from tollspan.budget.stores.deadlines import deadline_of
from tollspan.budget.stores.memory import MemoryStore
from tollspan.model.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.stores import Store


STORES: Final = (
    "memory, sqlite, sqlite:PATH, redis://HOST:PORT/DB, rediss://..., valkey://..., prometheus:http://HOST:PORT"
)

_BUILT_IN: Final = frozenset({"memory", "sqlite", "redis", "rediss", "valkey", "valkeys", "unix", "prometheus"})
"""What stands before the colon of a built-in store."""


def store_of(text: str, budgets: Iterable[Budget] = ()) -> Store:
    """Return the store that a setting names.

    Args:
        text: the setting: a store's name, or its name, a colon and what that store needs.
        budgets: the configured budgets, for a store that queries each of them.

    Returns:
        The store, open; the caller closes it.

    Raises:
        SettingsError: the store is unknown, needs a package that is not installed, or cannot keep one of the budgets.
    """
    name, colon, rest = text.partition(":")
    match name.lower():
        case "memory" if not colon:
            return MemoryStore()
        case "sqlite":
            return _sqlite(rest)
        case "redis" | "rediss" | "valkey" | "valkeys" | "unix":
            from tollspan.budget.stores.redis import RedisStore

            return RedisStore(text)
        case "prometheus":
            check_kept(text, budgets)
            from tollspan.budget.stores.prometheus import PrometheusStore

            return PrometheusStore(rest, budgets)
    return _installed(name, rest, budgets)


def _sqlite(text: str) -> Store:
    """Open the file of `PATH?deadline=SECONDS`; both are optional."""
    from tollspan.budget.stores.sqlite import DEADLINE, SqliteStore, default_path

    if "\0" in text:
        raise SettingsError("invalid budget_store: the path contains a null character")
    path, _, query = text.removeprefix("//").partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    deadline = deadline_of(options, DEADLINE)
    if options:
        raise SettingsError("invalid budget_store; expected sqlite, sqlite:PATH or sqlite:PATH?deadline=SECONDS")
    return SqliteStore(path or default_path(), deadline)


def check_kept(text: str, budgets: Iterable[Budget]) -> None:
    """Raise SettingsError for a hard budget if the store that a setting names has late figures, and cannot keep it."""
    late = text.partition(":")[0].lower() == "prometheus"
    for budget in budgets:
        if late and budget.hard:
            raise SettingsError(
                f"budget {budget.name!r}: hard = true never lets a call pass the limit, and budgets in Prometheus are "
                "read late; use SQLite or Redis as budget_store, or remove hard"
            )


def _installed(name: str, rest: str, budgets: Iterable[Budget]) -> Store:
    """Open a store of an installed package."""
    from tollspan.runtime import plugins  # late: it reads the metadata of every installed package

    open_store = None if _is_built_in(name) else plugins.find(plugins.STORES, name, _is_built_in)
    if open_store is None:
        # Without the text, which may be an address with a password in it.
        raise SettingsError(f"unknown budget_store; expected one of {STORES}, or the name of an installed one")
    store: Store = open_store(rest, tuple(budgets))
    return store


def _is_built_in(name: str) -> bool:
    return name.lower() in _BUILT_IN
