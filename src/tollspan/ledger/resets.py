"""Resets of sessions: the rows stay, and the sums up to the reset are kept beside them.

A reset copies the totals of its session; from then on the summary is what came on top of them. Running processes notice
a reset with their next call, or when their summary is read (`ResetWatcher`).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Final

from tollspan.ledger.schema import FAILURES, explain, opened
from tollspan.model.errors import LedgerError
from tollspan.model.text import as_text
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SESSION: Final = "session"
BEFORE: Final = "reset"
"""The kind of the totals that a session had when it was reset."""

_COARSE: Final = 50_000_000
"""Nanoseconds by which a file's modification time may lag."""


def reset_session(path: Path, *sessions: str) -> None:
    """Reset the summaries of sessions, for every process.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    with opened(path) as db:
        try:
            db.execute("PRAGMA busy_timeout = 5000")
            db.execute("BEGIN IMMEDIATE")
            at = time.time_ns()  # after the lock: no other process is writing
            for session in sessions:
                _reset(db, as_text(session), at)
            db.execute("COMMIT")
        except FAILURES as error:
            raise explain(error, path) from None


def _reset(db: sqlite3.Connection, session: str, at: int) -> None:
    db.execute("DELETE FROM totals WHERE kind = ? AND a = ?", (BEFORE, session))
    columns = [row[1] for row in db.execute("PRAGMA table_info(totals)") if row[1] != "kind"]
    names = ", ".join(columns)
    db.execute(
        f"INSERT INTO totals (kind, {names}) SELECT ?, {names} FROM totals WHERE kind = ? AND a = ?",  # noqa: S608
        (BEFORE, SESSION, session),
    )
    db.execute(
        "INSERT OR REPLACE INTO resets (kind, key, at, n) SELECT ?, ?, ?, coalesce(max(n), 0) FROM calls",
        (SESSION, session, at),
    )


class ResetWatcher:
    """Reports each reset by another process once.

    Args:
        path: The ledger.
        apply: Called with a session and the time of its reset, in Unix nanoseconds.
        heard: Called with a time; `apply` has been called for every reset before it.
    """

    def __init__(
        self, path: Path, apply: Callable[[str, int], None], heard: Callable[[int], None] | None = None
    ) -> None:
        self._path = path
        self._files = path, path.with_name(f"{path.name}-wal")
        self._apply = apply
        self._heard = heard
        self._since = time.time_ns()
        self._seen: tuple[int, int] | None = None
        self._applied: dict[str, int] = {}
        self._fresh()
        renew_in_child(self, ResetWatcher._fresh)

    def _fresh(self) -> None:
        self._lock = threading.RLock()  # reentrant: a signal handler may read, too

    def read(self, db: sqlite3.Connection) -> None:
        """Report the resets that `db` has, inside a writing transaction: no earlier reset can appear after it."""
        with self._lock:
            now = time.time_ns()
            self._report(db)
            if self._heard is not None:
                self._heard(now)

    def look(self, *, anyway: bool = False) -> bool:
        """Report the resets in the file if it has changed, or `anyway`; return whether all of them are reported."""
        seen = self._stamp()
        if not anyway and seen in (None, self._seen):
            return True
        try:
            # In this order, as in the writer: whoever holds the lock must not wait for a fork.
            with opened(self._path, write=False, patience=0) as db, self._lock:
                self._report(db)
        except (LedgerError, sqlite3.Error):
            return False  # the writer says what is wrong with the file
        # A write soon after another may leave the file's time unchanged: file system clocks are coarse.
        self._seen = None if seen is None or time.time_ns() - seen[0] < _COARSE else seen
        return True

    def _report(self, db: sqlite3.Connection) -> None:
        rows = db.execute("SELECT key, at FROM resets WHERE kind = ? AND at > ?", (SESSION, self._since))
        for session, at in rows.fetchall():
            if at > self._applied.get(session, 0):
                self._applied[session] = at
                self._apply(session, at)

    def _stamp(self) -> tuple[int, int] | None:
        """Return the file's modification time and size, its log included, or None if it does not exist."""
        states = []
        for path in self._files:  # the log exists only while a process has the file open
            with contextlib.suppress(OSError):
                states.append(path.stat())
        if not states:
            return None
        return max(state.st_mtime_ns for state in states), sum(state.st_size for state in states)
