"""What recorded calls would cost by another price table. The records stay; the new figures are kept beside them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from tollspan.ledger.rows import amount_of
from tollspan.ledger.schema import FAILURES, explain, opened
from tollspan.ledger.totals import NANO
from tollspan.model.records import Billable, Cost
from tollspan.prices import price

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tollspan.ledger.queries import Kept, Ledger
    from tollspan.model.records import Call
    from tollspan.prices import PriceTable

_TOGETHER: Final = 2_000
_UNLISTED: Final = frozenset({"tool"})
"""Rules of costs that no price table knows."""


@dataclass(frozen=True, slots=True)
class Repriced:
    """A call, and what it would cost."""

    kept: Kept
    cost: Cost


@dataclass(frozen=True, slots=True)
class Repricing:
    """An earlier repricing of one call: its time, its table, and the amount."""

    made_at: int
    table_version: str
    amount: int | None


def reprice(
    calls: Iterable[Kept],
    table: PriceTable,
    labels: Callable[[Call], tuple[str, ...]],
    *,
    as_of: datetime | None = None,
    unpriced: bool = False,
) -> Iterator[Repriced]:
    """Price recorded calls again.

    Args:
        calls: The calls, as `Ledger.each` yields them.
        table: The prices.
        labels: Returns the price labels of a call, best first.
        as_of: The time whose prices apply; each call's own time by default.
        unpriced: Whether to price only calls that have no price.
    """
    for kept in calls:
        call = kept.call
        if call.billable and call.usage is not None and not (unpriced and call.cost.amount is not None):
            yield Repriced(kept, cost_by(call, table, labels(call), as_of))


def cost_by(call: Call, table: PriceTable, labels: tuple[str, ...], as_of: datetime | None = None) -> Cost:
    """Return what a recorded call would cost by a table. A cost that the provider stated does not change."""
    if (
        call.usage is None
        or call.cost.source == "provider"
        or call.cost.rule in _UNLISTED
        or call.cached_by is not None
    ):
        return call.cost
    billable = Billable(
        usage=call.usage,
        price_providers=labels,
        model=call.response_model,
        request_model=call.request_model,
        operation=call.operation,
        tier=call.tier,
        geography=call.geography,
        speed=call.speed,
        region=call.region,
        search_context=call.search_context,
        parts=call.parts,
    )
    cost = price(billable, table, as_of or datetime.fromtimestamp(call.started_at / 1e9, UTC))
    if cost.amount is not None and call.usage_quality != "measured":
        cost = replace(cost, quality=call.usage_quality)
    return cost


def keep(path: Path, found: Iterator[Repriced], table: PriceTable, as_of: datetime | None) -> Iterator[Repriced]:
    """Write repriced calls to the ledger, beside their records, and yield them.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    with opened(path) as db:
        try:
            db.execute("PRAGMA busy_timeout = 5000")
            moment = None if as_of is None else int(as_of.timestamp() * 10**9)
            sql = "INSERT INTO repricings (made_at, table_version, as_of, calls) VALUES (?, ?, ?, 0)"
            number = db.execute(sql, (time.time_ns(), table.version, moment)).lastrowid
            waiting: list[Repriced] = []
            for repriced in found:
                waiting.append(repriced)
                if len(waiting) == _TOGETHER:
                    _write(db, number, waiting)
                    waiting.clear()
                yield repriced
            _write(db, number, waiting)
        except FAILURES as error:
            raise explain(error, path) from None


def _write(db: sqlite3.Connection, number: int | None, found: list[Repriced]) -> None:
    rows = []
    for repriced in found:
        cost = repriced.cost
        nano, rest = (None, None) if cost.amount is None else divmod(cost.amount, NANO)
        breakdown = json.dumps(dict(cost.breakdown), separators=(",", ":"))
        rows.append((number, repriced.kept.n, nano, rest, cost.quality, cost.price_key, cost.rule, breakdown))
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT INTO repriced VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    db.execute("UPDATE repricings SET calls = calls + ? WHERE id = ?", (len(rows), number))
    db.execute("COMMIT")


def repricings_of(ledger: Ledger, n: int) -> list[Repricing]:
    """Return the repricings of a call, the latest first."""
    sql = """
        SELECT made_at, table_version, cost_nano, cost_rest FROM repricings JOIN repriced ON repricing = id
        WHERE n = ? ORDER BY id DESC
    """
    return [
        Repricing(made, version, amount_of(nano, rest)) for made, version, nano, rest in ledger.db.execute(sql, (n,))
    ]
