"""The table of a counters' file with what was learned of calls: sums as JSON objects, by the texts of their keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tollspan.budget.habits import MAX_KEYS, merged

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping


def read(db: sqlite3.Connection) -> dict[str, dict[str, float]]:
    """Return all sums."""
    return {key: _sums(text) for key, text in db.execute("SELECT key, sums FROM habit")}


def _sums(text: str) -> dict[str, float]:
    """Return sums; none if others have written something else there."""
    try:
        sums = json.loads(text)
    except ValueError:
        return {}
    return sums if isinstance(sums, dict) else {}


def merge(db: sqlite3.Connection, news: Mapping[str, Mapping[str, float]], now: float) -> dict[str, dict[str, float]]:
    """Add sums to those that are kept, and return these; of more than `MAX_KEYS` keys, the oldest are deleted."""
    known = {}
    for key, sums in news.items():
        row = db.execute("SELECT sums FROM habit WHERE key = ?", (key,)).fetchone()
        known[key] = merged(_sums(row[0]) if row else {}, sums)
        db.execute("INSERT OR REPLACE INTO habit VALUES (?, ?, ?)", (key, json.dumps(known[key]), now))
    oldest = "SELECT key FROM habit ORDER BY learned_at DESC LIMIT -1 OFFSET ?"
    db.execute(f"DELETE FROM habit WHERE key IN ({oldest})", (MAX_KEYS,))  # noqa: S608 - a constant
    return known
