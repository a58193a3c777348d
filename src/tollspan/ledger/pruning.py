"""Delete old rows from a ledger. Their sums stay in the totals unless these are deleted, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.ledger.conditions import DAY
from tollspan.ledger.schema import FAILURES, explain, opened

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

_TOGETHER: Final = 5_000
"""Rows deleted in one transaction; writers wait while it lasts."""


def prune(path: Path, before: int, *, totals: bool = False, progress: Callable[[int], None] | None = None) -> int:
    """Delete the rows of calls that began before a time (Unix nanoseconds) and return their number.

    Args:
        path: The ledger.
        before: The time.
        totals: Delete the totals of whole days before it as well.
        progress: Called with the number of rows deleted so far.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    with opened(path) as db:
        try:
            db.execute("PRAGMA busy_timeout = 5000")
            deleted = _rows(db, before, progress)
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM repriced WHERE n NOT IN (SELECT n FROM calls)")
            db.execute("DELETE FROM dearest WHERE n NOT IN (SELECT n FROM calls)")
            if totals:
                db.execute("DELETE FROM totals WHERE day < ?", (before // DAY,))
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except FAILURES as error:
            raise explain(error, path) from None
    return deleted


OLD: Final = "started_at < ? AND pending IS NOT 1"
"""Which rows are deleted. Pending rows stay, so that a later call can settle them."""


def _rows(db: sqlite3.Connection, before: int, progress: Callable[[int], None] | None) -> int:
    deleted = 0
    while True:
        some = f"SELECT n FROM calls WHERE {OLD} LIMIT ?"  # noqa: S608 - our own words
        count = db.execute(f"DELETE FROM calls WHERE n IN ({some})", (before, _TOGETHER)).rowcount  # noqa: S608
        deleted += count
        if progress is not None:
            progress(deleted)
        if count < _TOGETHER:
            return deleted


def compact(path: Path) -> None:
    """Return the space of deleted rows to the disk. This rewrites the file; writers wait meanwhile.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    with opened(path) as db:
        try:
            db.execute("PRAGMA busy_timeout = 60000")
            db.execute("VACUUM")
        except FAILURES as error:
            raise explain(error, path) from None
