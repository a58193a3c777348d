"""Compare price tables, validate one, and merge a refreshed table safely into an old one.

`diff` returns the changes, `verify` the anomalies. `reconcile` decides which entries of a refreshed table to accept: an
entry that jumps, falls to zero or loses a price is quarantined and keeps its earlier price; a model that is no longer
listed keeps its last price.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from tollspan.model.errors import PriceTableError
from tollspan.prices.fields import TIERS, YOCTO

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tollspan.prices.litellm_file import Rows
    from tollspan.prices.row import Row
    from tollspan.prices.table import PriceTable

JUMP: Final = 5
"""A price that changes by more than this factor is quarantined. Real cuts have gone down to a fifth."""

_MOST_LOST: Final = Fraction(1, 2)
"""A refreshed table that loses more than this share of its models is rejected."""

_MOST_QUARANTINED: Final = Fraction(1, 4)
"""A refreshed table that quarantines more than this share of the known models is rejected."""

_MAIN_FIELDS: Final = ("input", "output")
_HIGHEST_TOKEN_PRICE: Final = YOCTO // 1000  # 1,000 USD per million tokens: a higher price was meant per 1,000 tokens
_LONG_WRITE: Final = (Fraction(3, 2), Fraction(5, 2))  # a 1h cache write costs about twice the input
_TOKEN_KINDS: Final = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning")


@dataclass(frozen=True, slots=True)
class Change:
    """A price that differs between two tables, in yocto-dollars; None if a table does not have it."""

    key: str
    field: str
    before: int | None
    after: int | None

    @property
    def factor(self) -> Fraction | None:
        """Return the later price divided by the earlier one, or None if either is missing or the earlier is 0."""
        return Fraction(self.after, self.before) if self.before and self.after is not None else None

    @property
    def suspicious(self) -> bool:
        """Return whether the change is too large to accept without review."""
        if self.before is None:
            return False
        if self.after is None:
            return self.field in _MAIN_FIELDS and self.before > 0
        if self.before == 0:
            return False  # a free model that now has a price is plausible
        factor = Fraction(self.after, self.before)
        return factor > JUMP or factor * JUMP < 1


@dataclass(frozen=True, slots=True)
class Diff:
    """The differences between two tables."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class PriceProblem:
    """An anomaly in a table, in words."""

    key: str
    what: str


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The result of merging a refreshed table: the rows to use, and the quarantined and retired entries."""

    rows: Rows
    quarantined: tuple[Change, ...]
    retired: tuple[str, ...]


def diff(before: PriceTable, after: PriceTable) -> Diff:
    """Compare two tables, row by row."""
    old = {row.key: row for row in before}
    new = {row.key: row for row in after}
    changed = (change for key in sorted(old.keys() & new.keys()) for change in _changes(old[key], new[key]))
    return Diff(tuple(sorted(new.keys() - old.keys())), tuple(sorted(old.keys() - new.keys())), tuple(changed))


def _changes(before: Row, after: Row) -> Iterator[Change]:
    for name in sorted(before.prices.keys() | after.prices.keys()):
        if before.prices.get(name) != after.prices.get(name):
            yield Change(before.key, name, before.prices.get(name), after.prices.get(name))


def verify(table: PriceTable) -> tuple[PriceProblem, ...]:
    """Check every row against rules that every price list obeys; return the anomalies."""
    return tuple(PriceProblem(row.key, what) for row in table for what in _oddities(row))


def _oddities(row: Row) -> Iterator[str]:
    """Yield the anomalies of a row."""
    prices = row.prices
    for kind in _TOKEN_KINDS:
        price = prices.get(kind)
        if price is None:
            continue
        if price > _HIGHEST_TOKEN_PRICE:
            yield f"{kind} costs more than 1,000 USD per million tokens"
        batch = prices.get(f"{kind}/batches")
        if batch is not None and batch > price:
            yield f"{kind} costs more in a batch than at once"
    full = prices.get("input")
    if full:
        read, long_write = prices.get("cache_read", 0), prices.get("cache_write_1h")
        if read > full:
            yield "a cache read costs more than the input"
        if long_write and not _LONG_WRITE[0] <= Fraction(long_write, full) <= _LONG_WRITE[1]:
            yield f"a 1h cache write costs {float(Fraction(long_write, full)):.2f} times the input, not about twice"
    for name, price in prices.items():
        base, sign, rest = name.partition(">")
        if sign and not rest.endswith(TIERS) and price < prices.get(base, 0):
            yield f"{name} costs less than {base}"


def reconcile(
    old: PriceTable, new: PriceTable, rows: Rows, *, accept: Collection[str] = (), first: bool = False
) -> Reconciled:
    """Decide which entries of a refreshed table to accept.

    Args:
        old: The active table.
        new: The refreshed table, unchanged.
        rows: The rows of `new`.
        accept: Keys whose changes have been reviewed and are accepted, however large.
        first: Whether `old` is another table (the bundled one) and not an earlier version of this one. Then its other
            models are not carried over, and a smaller table is not a loss.

    Raises:
        PriceTableError: The table has changed too much to be trusted.
    """
    known = {row.key: row for row in old}
    listed = {row.key: row for row in new}
    if not listed:
        raise PriceTableError("the new price table is empty")
    gone = tuple(sorted(known.keys() - listed.keys()))
    shared = sorted(known.keys() & listed.keys() - set(accept))
    doubtful = tuple(change for key in shared for change in _changes(known[key], listed[key]) if change.suspicious)
    doubted = {change.key for change in doubtful}
    # Models that an earlier refresh retired do not count as lost again.
    retired = old.header.get("retired")
    before = frozenset(retired if isinstance(retired, list) else ())
    lost, current = len(set(gone) - before), len(known.keys() - before)
    if not first and lost > _MOST_LOST * current:
        raise PriceTableError(f"the new price table has lost {lost} of {current} models")
    if len(doubted) > _MOST_QUARANTINED * max(len(shared), 4):
        raise PriceTableError(
            f"{len(doubted)} of {len(shared)} models would change by more than {JUMP} times, such as {min(doubted)}"
        )
    kept = doubted if first else doubted | set(gone)
    taken = {key: row for key, row in rows.items() if key not in doubted}
    return Reconciled(taken | {key: old.fields(key) for key in kept}, doubtful, () if first else gone)
