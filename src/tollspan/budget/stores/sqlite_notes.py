"""Notes in a store's SQLite file: short texts by kind and name, such as what is in a file of requests for a batch.

Their table is created with the first note. It is none of the schema's version, so that an older tollspan, which does
not know it, can still use the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS note (kind TEXT NOT NULL, name TEXT NOT NULL, text TEXT NOT NULL, "
    "kept_until REAL NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID"
)


def keep(db: sqlite3.Connection, kind: str, name: str, text: str, until: float, now: float) -> None:  # noqa: PLR0913, PLR0917 - a row
    """Keep a text until `until`, in Unix seconds; delete the texts whose time is over."""
    db.execute(_TABLE)
    db.execute("DELETE FROM note WHERE kept_until < ?", (now,))
    db.execute("INSERT OR REPLACE INTO note VALUES (?, ?, ?, ?)", (kind, name, text, until))


def read(db: sqlite3.Connection, kind: str, now: float, name: str | None) -> dict[str, str]:
    """Return the texts of a kind by name; with a `name`, only that one."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'note'").fetchone() is None:
        return {}
    query, values = "SELECT name, text FROM note WHERE kind = ? AND kept_until >= ?", (kind, now)
    rows = db.execute(query, values) if name is None else db.execute(f"{query} AND name = ?", (*values, name))
    return dict(rows.fetchall())


def is_new_part(db: sqlite3.Connection, part: str, now: float) -> bool:
    """Note the part of a reservation that is settled now, and return whether it was not noted before."""
    known = bool(read(db, _PART, now, part))
    keep(db, _PART, part, "", now + _PART_REMEMBERED, now)
    return not known


_PART: Final = "part"
_PART_REMEMBERED: Final = 86_400.0
"""Seconds that a part is remembered: it is tried again for a minute at most."""
