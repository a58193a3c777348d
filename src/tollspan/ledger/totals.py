"""The sums that the ledger keeps. They are updated in the transaction that inserts the rows, from those rows.

A total is kept for each day, provider, model and operation: once over all calls, and once for each pair of attributions
in `KINDS`. Queries that a total can answer never read the rows. Every kind covers every call, calls without an
attribution under the empty string, so that all kinds have the same sum.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

from tollspan.model.money import usd

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence
    from decimal import Decimal

NANO: Final = 10**9
"""Atto-dollars in one nano-dollar: the bound of the `*_rest` columns."""

KINDS: Final[dict[str, tuple[str, str]]] = {
    "all": ("", ""),
    "session": ("session", "user"),
    "run": ("run", "step"),
    "user": ("user", "agent"),
}
"""Kind of total: the two attributions in its columns `a` and `b`; the empty string means none."""

GROUPED: Final = ("day", "provider", "model", "operation")
"""The dimensions of every total."""

_COUNTS: Final[dict[str, str]] = {
    # These four are `Call.counted`. A pending row counts 1, and 0 after another row has settled it.
    "calls": "billable",
    "failed": "NOT billable AND pending IS NULL AND outcome <> 'denied'",
    "pending": "NOT billable AND coalesce(pending, 0)",
    "denied": "NOT billable AND pending IS NULL AND outcome = 'denied'",
    "unpriced": "billable AND cost_nano IS NULL",
    "uncertain": "billable AND quality IN ('estimated', 'floor')",
    "broken": "billable AND outcome IN ('error', 'aborted')",
    "retries": "resend_count > 0",
    "input": "billable * input_tokens",
    "output": "billable * output_tokens",
    "cache_read": "billable * cache_read_tokens",
    "cache_write": "billable * cache_write_tokens",
    "reasoning": "billable * reasoning_tokens",
}
_AMOUNTS: Final[dict[str, str]] = {
    "spend": "billable * cost_{part}",
    "savings": "CASE WHEN billable AND cost_nano IS NOT NULL THEN savings_{part} END",
    "avoided": "billable * avoided_{part}",
    "broken_spend": "CASE WHEN billable AND outcome IN ('error', 'aborted') THEN cost_{part} END",
    "retry_spend": "CASE WHEN billable AND resend_count > 0 THEN cost_{part} END",
}
SUMS: Final[dict[str, str]] = {
    **_COUNTS,
    **{f"{name}_{part}": text.format(part=part) for name, text in _AMOUNTS.items() for part in ("nano", "rest")},
}
"""Each column that is a sum: the expression that is summed over rows of `calls`."""

_FIRST: Final = {"first_n": "n", "first_at": "started_at"}
_LAST: Final = {"last_n": "n", "last_at": "started_at"}

FIGURES: Final = (*SUMS, *_FIRST, *_LAST)
"""The columns of figures, in the order in which every query of this package returns them."""

TOTALS_TABLE: Final = f"""
CREATE TABLE totals (
  kind TEXT NOT NULL, a TEXT NOT NULL, b TEXT NOT NULL,
  day INTEGER NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, operation TEXT NOT NULL,
  {", ".join(f"{name} INTEGER NOT NULL" for name in FIGURES)},
  PRIMARY KEY (kind, a, b, day, provider, model, operation)
) WITHOUT ROWID;
"""

OVER_CALLS: Final = ", ".join(
    [f"coalesce(sum({text}), 0)" for text in SUMS.values()]
    + [f"min({column})" for column in _FIRST.values()]
    + [f"max({column})" for column in _LAST.values()]
)
"""The figures of a group of rows of `calls`."""

OVER_TOTALS: Final = ", ".join(
    [f"coalesce(sum({name}), 0)" for name in SUMS]
    + [f"min({name})" for name in _FIRST]
    + [f"max({name})" for name in _LAST]
)
"""The figures of a group of totals, or of figures."""

_UPDATES: Final = ", ".join(
    [f"{name} = {name} + excluded.{name}" for name in SUMS]
    + [f"{name} = min({name}, excluded.{name})" for name in _FIRST]
    + [f"{name} = max({name}, excluded.{name})" for name in _LAST]
)


_ATTRIBUTED: Final = tuple(dict.fromkeys(name for pair in KINDS.values() for name in pair if name))
_FINE: Final = (*_ATTRIBUTED, *GROUPED)

_FRESH: Final = f"""
CREATE TEMP TABLE IF NOT EXISTS fresh ({", ".join((*_FINE, *FIGURES, "dearest"))})
"""
_NAMES: Final = ", ".join(f"coalesce({name}, '')" for name in _ATTRIBUTED)
_ADD_FRESH: Final = f"""
INSERT INTO fresh
SELECT {_NAMES}, {", ".join(GROUPED)}, {OVER_CALLS}, max(CASE WHEN billable THEN cost_nano END)
FROM calls WHERE n > ? GROUP BY {", ".join(_FINE)}
"""  # noqa: S608 - our own names


def _adding(kind: str, a: str, b: str) -> str:
    columns = ", ".join([a or "''", b or "''", *GROUPED])
    return f"""
INSERT INTO totals (kind, a, b, {", ".join(GROUPED)}, {", ".join(FIGURES)})
SELECT '{kind}', {columns}, {OVER_TOTALS} FROM fresh WHERE true GROUP BY {columns}
ON CONFLICT DO UPDATE SET {_UPDATES}
"""  # noqa: S608 - our own names


_ADD: Final = tuple(_adding(kind, a, b) for kind, (a, b) in KINDS.items())

_SETTLES: Final = "SELECT DISTINCT settles FROM calls WHERE n > ? AND settles IS NOT NULL"
_SETTLED: Final = "SELECT n FROM calls WHERE id = ? AND pending = 1 AND NOT billable"


def recounting(kind: str, a: str, b: str, rows: str, change: str) -> str:
    """Return the statement that changes the `pending` sums of totals, for the pending rows that match `rows`."""
    columns = ", ".join([f"coalesce({name}, '')" if name else "''" for name in (a, b)] + [*GROUPED])
    return f"""
INSERT INTO totals (kind, a, b, {", ".join(GROUPED)}, {", ".join(FIGURES)})
SELECT '{kind}', {columns}, {OVER_CALLS} FROM calls WHERE {rows} GROUP BY {columns}
ON CONFLICT DO UPDATE SET pending = {change}
"""  # noqa: S608 - our own names


_LEAVE: Final = tuple(recounting(kind, a, b, "n = ?", "pending - 1") for kind, (a, b) in KINDS.items())

KEPT_MOST_EXPENSIVE: Final = 10
"""How many of each day's most expensive calls are kept."""

_DAYS_TO_UPDATE: Final = """
SELECT day FROM fresh GROUP BY day HAVING max(fresh.dearest) >= coalesce(
  (SELECT nano FROM dearest WHERE dearest.day = fresh.day ORDER BY nano DESC LIMIT 1 OFFSET ? - 1), 0
)
"""
_ADD_MOST_EXPENSIVE: Final = """
INSERT INTO dearest (day, nano, rest, n)
SELECT day, cost_nano, cost_rest, n FROM calls
WHERE n > ? AND day = ? AND billable AND (cost_nano > 0 OR cost_rest > 0)
ORDER BY cost_nano DESC, cost_rest DESC LIMIT ?
"""
_DROP_CHEAPER: Final = """
DELETE FROM dearest WHERE day = ? AND (nano, rest, n) NOT IN (
  SELECT nano, rest, n FROM dearest WHERE day = ? ORDER BY nano DESC, rest DESC LIMIT ?
)
"""


def add_rows_after(db: sqlite3.Connection, n: int) -> None:
    """Add the rows with a number larger than `n` to every total, inside the open transaction."""
    # The rows are summed once, at the finest grain that any kind needs; the kinds sum those few sums.
    db.execute(_FRESH)
    db.execute("DELETE FROM fresh")
    db.execute(_ADD_FRESH, (n,))
    for statement in _ADD:
        db.execute(statement)
    for (day,) in db.execute(_DAYS_TO_UPDATE, (KEPT_MOST_EXPENSIVE,)).fetchall():
        db.execute(_ADD_MOST_EXPENSIVE, (n, day, KEPT_MOST_EXPENSIVE))
        db.execute(_DROP_CHEAPER, (day, day, KEPT_MOST_EXPENSIVE))
    for (settled,) in db.execute(_SETTLES, (n,)).fetchall():
        _settle(db, settled)


def _settle(db: sqlite3.Connection, id_: str) -> None:
    """Subtract a row from the pending sums. A row that is missing or already settled changes nothing."""
    for (n,) in db.execute(_SETTLED, (id_,)).fetchall():
        for statement in _LEAVE:
            db.execute(statement, (n,))
        db.execute("UPDATE calls SET pending = 0 WHERE n = ?", (n,))


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over calls. Amounts are whole atto-dollars; `cost` is `spend` in US dollars.

    `calls` got a billable response, `failed` did not, and `denied` were never sent, because a budget refused them.
    `pending` are background responses and batches that are still in progress; their cost is not known yet. Of `calls`,
    `unpriced` have no known price and are not in `spend`; the cost of `uncertain` is an estimate or a lower bound;
    `broken` ended in an error or were abandoned early and cost `broken_spend`. `retries` repeated another attempt and
    cost `retry_spend`. `savings` is what cache reads at the provider saved, minus the surcharge of cache
    writes; `avoided` is what responses from other caches would have cost.
    """

    calls: int = 0
    failed: int = 0
    pending: int = 0
    denied: int = 0
    unpriced: int = 0
    uncertain: int = 0
    broken: int = 0
    retries: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    spend: int = 0
    savings: int = 0
    avoided: int = 0
    broken_spend: int = 0
    retry_spend: int = 0
    first_n: int | None = None
    first_at: int | None = None
    last_n: int | None = None
    last_at: int | None = None

    @property
    def attempts(self) -> int:
        """Return the number of records that are not pending: of calls that were answered, failed or were denied."""
        return self.calls + self.failed + self.denied

    @property
    def tokens(self) -> int:
        """Return the sum of input and output tokens."""
        return self.input + self.output

    @property
    def cost(self) -> Decimal:
        """Return the spend in US dollars, exactly."""
        return usd(self.spend)

    @classmethod
    def of(cls, values: Sequence[int | None]) -> Figures:
        """Read figures from the columns `FIGURES`."""
        counts = [value or 0 for value in values[: len(SUMS)]]
        plain, amounts = counts[: len(_COUNTS)], counts[len(_COUNTS) :]
        joined = [nano * NANO + rest for nano, rest in zip(amounts[::2], amounts[1::2], strict=True)]
        first_n, first_at, last_n, last_at = values[len(SUMS) :]
        sums = cls(*plain, *joined)
        return replace(sums, first_n=first_n, first_at=first_at, last_n=last_n, last_at=last_at)

    def __add__(self, other: Figures) -> Figures:
        """Return the sums of both."""
        added = {name: getattr(self, name) + getattr(other, name) for name in _ADDED}
        return replace(
            Figures(**added),
            first_n=_of(min, self.first_n, other.first_n),
            first_at=_of(min, self.first_at, other.first_at),
            last_n=_of(max, self.last_n, other.last_n),
            last_at=_of(max, self.last_at, other.last_at),
        )

    def __sub__(self, other: Figures) -> Figures:
        """Return what was added since `other`, an earlier state of the same sums."""
        rest = {name: getattr(self, name) - getattr(other, name) for name in _ADDED}
        rest["pending"] = max(rest["pending"], 0)  # settled since: nothing is left to subtract
        return Figures(**rest, first_n=self.first_n, first_at=self.first_at, last_n=self.last_n, last_at=self.last_at)


def _of(choose: Callable[[list[int]], int], one: int | None, other: int | None) -> int | None:
    known = [value for value in (one, other) if value is not None]
    return choose(known) if known else None


_ADDED: Final = tuple(item.name for item in fields(Figures) if item.name not in {*_FIRST, *_LAST})
NOTHING: Final = Figures()
"""The figures of no calls."""
