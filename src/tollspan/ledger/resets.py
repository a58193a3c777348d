"""Summaries that begin anew: the rows stay, and what they had come to until then is kept beside them.

A reset copies the totals of its session; from then on its summary is what came on top of them. Processes that run
notice it when they are next asked for that session (`News`).
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Final

from tollspan.errors import LedgerError
from tollspan.ledger.schema import FAILURES, explain, opened
from tollspan.usage import as_text

if TYPE_CHECKING:
    from pathlib import Path

SESSION: Final = "session"
BEFORE: Final = "reset"
"""The kind of the totals that a session had at its reset."""


def reset_session(path: Path, *sessions: str) -> None:
    """Have the summaries of sessions begin anew, for every process.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    with opened(path) as db:
        try:
            db.execute("PRAGMA busy_timeout = 5000")
            db.execute("BEGIN IMMEDIATE")
            for session in sessions:
                _reset(db, as_text(session))
            db.execute("COMMIT")
        except FAILURES as error:
            raise explain(error, path) from None


def _reset(db: sqlite3.Connection, session: str) -> None:
    db.execute("DELETE FROM totals WHERE kind = ? AND a = ?", (BEFORE, session))
    columns = [row[1] for row in db.execute("PRAGMA table_info(totals)") if row[1] != "kind"]
    names = ", ".join(columns)
    db.execute(
        f"INSERT INTO totals (kind, {names}) SELECT ?, {names} FROM totals WHERE kind = ? AND a = ?",  # noqa: S608
        (BEFORE, SESSION, session),
    )
    db.execute(
        "INSERT OR REPLACE INTO resets (kind, key, at, n) SELECT ?, ?, ?, coalesce(max(n), 0) FROM calls",
        (SESSION, session, time.time_ns()),
    )


class News:
    """Tells whether a session was reset by another process since this one began, or was last asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._since = time.time_ns()
        self._seen: tuple[int, int] | None = None
        self._applied: dict[str, int] = {}
        self._known: dict[str, int] = {}

    def reset(self, session: str) -> bool:
        """Tell whether a session was reset; the file is read only where something was written to it."""
        seen = self._stamp()
        if seen is not None and seen != self._seen:
            self._seen = seen
            try:
                with opened(self._path, write=False, patience=0) as db:
                    found = db.execute("SELECT key, at FROM resets WHERE kind = ? AND at > ?", (SESSION, self._since))
                    self._known.update(found.fetchall())
            except (LedgerError, sqlite3.Error):
                return False  # the writer tells what is wrong with the file
        at = self._known.get(as_text(session), 0)
        if at <= self._applied.get(session, self._since):
            return False
        self._applied[session] = at
        return True

    def _stamp(self) -> tuple[int, int] | None:
        try:
            state = self._log.stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_size
