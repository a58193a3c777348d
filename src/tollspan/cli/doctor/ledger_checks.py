"""Checks of the ledger: models without a price in it, and whether it can be written."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from tollspan.api.pricing import labels_now
from tollspan.cli.doctor.environment import Finding
from tollspan.ledger.conditions import DAY, Where
from tollspan.ledger.queries import Ledger
from tollspan.ledger.repricing import reprice
from tollspan.ledger.schema import explain, opened
from tollspan.model.errors import LedgerError
from tollspan.model.text import many
from tollspan.wire.providers import COMPATIBLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tollspan.cli.doctor.environment import Environment
    from tollspan.ledger.sums import Group

RECENT: Final = 30 * DAY
"""Nanoseconds before now in which unpriced calls are reported."""

SHOWN: Final = 5
"""Models that are reported one by one."""


def unpriced(env: Environment) -> Iterator[Finding]:
    """Report models without a price that the ledger recorded in the last month."""
    path = env.ledger
    if path is None or not path.exists():
        return
    since = (int(env.now.timestamp()) * 10**9 - RECENT) // DAY * DAY
    try:
        with Ledger(path) as ledger:
            groups = [
                group for group in ledger.groups(["provider", "model"], Where(since=since)) if group.figures.unpriced
            ]
            priced_now = [_has_price_now(env, ledger, group, since) for group in groups[:SHOWN]]
    except LedgerError:
        return  # the next check reports it
    for group, has_price in zip(groups, priced_now, strict=False):
        yield _unpriced_model(group, has_price=has_price)
    if len(groups) > SHOWN:
        yield Finding(
            "unpriced",
            "problem",
            f"{len(groups) - SHOWN} more models have no price",
            "As above.",
            "tollspan inspect --by model lists them.",
        )


def _unpriced_model(group: Group, *, has_price: bool) -> Finding:
    provider, model = group.key
    calls = many(group.figures.unpriced, "call")
    have = "has" if group.figures.unpriced == 1 else "have"
    if has_price:
        return Finding(
            "unpriced",
            "note",
            f"{calls} of {provider} {model} had no price, and {have} one now",
            "Recorded calls do not change: totals still do not include these.",
            "tollspan reprice --unpriced shows what they would cost.",
        )
    return Finding(
        "unpriced",
        "problem",
        f"{calls} of {provider} {model} {have} no price",
        "Totals do not include them, and budgets in dollars refuse such calls by default.",
        _how_to_price(provider, model),
    )


_MOST_READ: Final = 100_000
"""Calls of a model that are searched for unpriced ones."""

_MOST_REPRICED: Final = 100


def _has_price_now(env: Environment, ledger: Ledger, group: Group, since: int) -> bool:
    """Return whether unpriced calls of a model have a price now, by name or by the provider for the host."""
    provider, model = group.key
    calls = islice(ledger.each(Where(since=since, provider=provider, model=model)), _MOST_READ)
    repriced = reprice(calls, env.table, partial(labels_now, directory=env.directory), unpriced=True)
    amounts = [item.cost.amount for item in islice(repriced, _MOST_REPRICED)]
    return bool(amounts) and None not in amounts


def _how_to_price(provider: str, model: str) -> str:
    """Return how to set a price for a model; for an unrecognized host, the prices of a provider may apply."""
    table = f'in tollspan.toml: [[prices]] model = "{model}", unit = ..., input = ..., output = ...'
    if not provider.endswith(COMPATIBLE):
        return f"Set a price {table}"
    return f"Name the provider whose prices apply to that host: TOLLSPAN_HOSTS=HOST=PROVIDER. Or set a price {table}"


_LITTLE_SPACE: Final = 50 * 1024 * 1024
"""Bytes of free space below which a disk is reported."""


def ledger(env: Environment) -> Iterator[Finding]:
    """Report a ledger that is off, cannot be written, or will soon fill its disk."""
    path = env.ledger
    if path is None:
        yield Finding(
            "ledger_off",
            "note",
            "the ledger is off",
            "Calls and their costs are not recorded: inspect, top and ui have no data.",
            "Set TOLLSPAN_LEDGER=on, or unset it for tollspan run.",
        )
        return
    try:
        _try_to_write(path)
    except (LedgerError, sqlite3.Error, OSError) as error:
        yield Finding(
            "ledger",
            "problem",
            str(explain(error, path)),
            "Calls are kept in memory for a while, and are lost when the program ends.",
            "Repair the file or its folder, or name another file: TOLLSPAN_LEDGER=PATH.",
        )
        return
    free = shutil.disk_usage(_nearest(path)).free
    if free < _LITTLE_SPACE:
        yield Finding(
            "disk",
            "problem",
            f"only {free // 2**20} MiB are free on the disk of {path}",
            "On a full disk, calls are lost.",
            "Free some space; tollspan prune deletes old rows of the ledger.",
        )


def _try_to_write(path: Path) -> None:
    """Check that a ledger can be written, without changing or creating it.

    Raises:
        LedgerError, sqlite3.Error, OSError: it cannot be written.
    """
    if path.exists():
        with opened(path) as db:
            db.execute("PRAGMA busy_timeout = 2000")
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
    else:
        with tempfile.TemporaryFile(dir=_nearest(path)):
            pass


def _nearest(path: Path) -> Path:
    """Return the nearest parent of a path that exists; it may be a file."""
    return next(folder for folder in path.parents if folder.exists())
