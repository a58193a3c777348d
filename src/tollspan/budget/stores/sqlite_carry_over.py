"""What a file of counters had when it was deleted or replaced is written into the file that is there now.

The old file can still be read by who has it open. Every process that had it open does the same, in any order: nothing
is added twice, and no limit is lifted, because the larger amount of the two files counts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

_MERGE = (
    "INSERT INTO counter VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key, slot) DO UPDATE SET "
    "spent = excluded.spent, uncertain = excluded.uncertain, resets = excluded.resets"
)


def carry_over(old: sqlite3.Connection, new: sqlite3.Connection) -> int:
    """Write the rows of `old` into `new`, in one transaction, and return how many counters it had.

    Raises:
        sqlite3.Error: nothing was written.
    """
    new.execute("BEGIN IMMEDIATE")
    try:
        counters = _merge_counters(old, new)
        _add_leases(old, new)
        tables = old.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        for (table,) in tables:
            if table not in {"counter", "lease"}:
                _copy(table, old, new)
        new.execute("COMMIT")
    except BaseException:
        if new.in_transaction:
            new.execute("ROLLBACK")
        raise
    return counters


def _merge_counters(old: sqlite3.Connection, new: sqlite3.Connection) -> int:
    """Have each counter of `old` in `new`, with the larger amounts; what is reserved comes with the leases."""
    keys = set()
    for key, slot, name, spent, uncertain, _, resets, kept_until in old.execute("SELECT * FROM counter"):
        keys.add(key)
        known = new.execute(
            "SELECT spent, uncertain, resets FROM counter WHERE key = ? AND slot = ?", (key, slot)
        ).fetchone() or ("0", "0", 0)
        amounts = (str(max(int(spent), int(known[0]))), str(max(int(uncertain), int(known[1]))))
        new.execute(_MERGE, (key, slot, name, *amounts, "0", max(resets, known[2]), kept_until))
    return len(keys)


def _add_leases(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Add the leases of `old` to `new`, and what those of calls under way have reserved."""
    for lease in old.execute("SELECT attempt, until, ended, lines FROM lease"):
        added = new.execute("INSERT OR IGNORE INTO lease VALUES (?, ?, ?, ?)", lease).rowcount
        if not added or lease[2]:
            continue
        for key, slot, amount in json.loads(lease[3]):
            where = "WHERE key = ? AND slot = ?"
            row = new.execute(f"SELECT reserved FROM counter {where}", (key, slot)).fetchone()  # noqa: S608 - a constant
            if row is not None:
                reserved = str(int(row[0]) + int(amount))
                new.execute(f"UPDATE counter SET reserved = ? {where}", (reserved, key, slot))  # noqa: S608 - as above


def _copy(table: str, old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Add the rows of a table that `new` does not have."""
    rows = old.execute(f"SELECT * FROM {table}")  # noqa: S608 - the name of one of our tables
    marks = ", ".join("?" for _ in rows.description)
    new.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)  # noqa: S608 - as above
