"""Checks of tollspan's configuration: settings, budgets and the age of the price table."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from tollspan.budget.policy.settings import budgets_of
from tollspan.budget.stores import EvictingStore, StoreError
from tollspan.budget.stores.opening import store_of
from tollspan.cli.doctor.environment import Finding
from tollspan.model.errors import SettingsError
from tollspan.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tollspan.cli.doctor.environment import Environment


def configuration(env: Environment) -> Iterator[Finding]:
    """Report settings that have no effect or an unintended one."""
    settings = env.settings
    env.directory, env.table  # noqa: B018 - loading them adds to `warnings`
    for warning in dict.fromkeys(env.warnings):
        if warning == settings.budgets:
            continue  # it may be a limit: `budgets` reports it
        yield Finding(
            "setting",
            "problem",
            warning,
            "The default is used instead, so the program does not do what the setting says.",
            "Correct the setting; the message says where it is and what is expected.",
        )


def budgets(env: Environment) -> Iterator[Finding]:
    """Report budgets that are invalid, or whose store is not available."""
    settings = env.settings
    try:
        configured = budgets_of(settings)
        if not configured and settings.budget_store == Settings().budget_store:
            return
        with closing(store_of(settings.budget_store, configured)) as store:
            store.registered()
            policy = store.eviction_policy() if isinstance(store, EvictingStore) else None
        if policy is not None:
            yield Finding(
                "budget_store_evicts",
                "problem",
                f"the budget store's server deletes keys when its memory is full (maxmemory-policy {policy})",
                "A counter that is deleted starts at zero again: its limit is lifted by what was spent.",
                "Set maxmemory-policy noeviction on the server, or use a server of its own for budgets.",
            )
    except SettingsError as error:
        yield Finding(
            "budget",
            "problem",
            str(error),
            "An invalid limit is never ignored: tollspan run does not start, and instrument() refuses every call.",
            "Correct the setting that the message names.",
        )
    except StoreError as error:
        yield Finding(
            "budget_store",
            "problem",
            f"the budget store is not available: {error}",
            "Calls are refused, or allowed without being counted, as store_failure of each budget says.",
            "Start the store, or correct TOLLSPAN_BUDGET_STORE.",
        )


STALE: Final = timedelta(days=30)
"""The age from which a price table is reported: providers publish new models and prices every few weeks."""


def prices(env: Environment) -> Iterator[Finding]:
    """Report a price table that is old."""
    date = env.table.date
    if date is not None and env.now - date > STALE:
        yield Finding(
            "stale_prices",
            "problem",
            f"the price table is {(env.now - date).days} days old ({date:%Y-%m-%d})",
            "Newer models are unpriced, and newer prices are not known.",
            "Upgrade tollspan, or set TOLLSPAN_PRICING_URL and run tollspan prices refresh.",
        )
