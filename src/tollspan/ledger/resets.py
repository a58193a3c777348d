"""Summaries that begin anew: the rows stay, and what they had come to until then is kept beside them.

A reset copies the totals of its session; from then on its summary is what came on top of them. Processes that run
notice it with their next call, or when they are asked (`ResetWatcher`).
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
"""The kind of the totals that a session had at its reset."""

_COARSE: Final = 50_000_000
"""Nanoseconds by which the time of a file may be behind."""


def reset_session(path: Path, *sessions: str) -> None:
    """Have the summaries of sessions begin anew, for every process.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    with opened(path) as db:
        try:
            db.execute("PRAGMA busy_timeout = 5000")
            db.execute("BEGIN IMMEDIATE")
            at = time.time_ns()  # once nobody else is writing
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
    """Tells what other processes have reset since this one began, each time once.

    Args:
        path: The ledger.
        apply: Is given a session and when it was reset, in Unix nanoseconds.
        heard: Is given a moment: `apply` was told of all resets from before then.
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
        self._lock = threading.RLock()  # reentrant: a signal's handler may ask too

    def read(self, db: sqlite3.Connection) -> None:
        """Return what `db` has, inside a transaction that writes, after which no reset can be from before it."""
        with self._lock:
            now = time.time_ns()
            self._tell(db)
            if self._heard is not None:
                self._heard(now)

    def look(self, *, anyway: bool = False) -> bool:
        """Return what the file has, where something was written to it, or `anyway`; give whether all of it is told."""
        seen = self._stamp()
        if not anyway and seen in (None, self._seen):
            return True
        try:
            # In this order, as the writer has it: who holds the lock waits for no fork.
            with opened(self._path, write=False, patience=0) as db, self._lock:
                self._tell(db)
        except (LedgerError, sqlite3.Error):
            return False  # the writer says what is wrong with the file
        # What is written right after a write may leave the file's time as it is: clocks of file systems are coarse.
        self._seen = None if seen is None or time.time_ns() - seen[0] < _COARSE else seen
        return True

    def _tell(self, db: sqlite3.Connection) -> None:
        found = db.execute("SELECT key, at FROM resets WHERE kind = ? AND at > ?", (SESSION, self._since))
        for session, at in found.fetchall():
            if at > self._applied.get(session, 0):
                self._applied[session] = at
                self._apply(session, at)

    def _stamp(self) -> tuple[int, int] | None:
        """Return when the file was written to, and how large it is, log included; None where it is not there."""
        found = []
        for path in self._files:  # the log is not there while nobody has the file open
            with contextlib.suppress(OSError):
                found.append(path.stat())
        return (max(state.st_mtime_ns for state in found), sum(state.st_size for state in found)) if found else None
