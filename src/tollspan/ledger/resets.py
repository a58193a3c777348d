"""Resets of sessions: the rows stay, and the sums up to the reset are kept beside them.

A reset copies the totals of its session; from then on the summary is what came on top of them. Running processes notice
a reset with their next call, or when their summary is read (`ResetWatcher`).

No clock decides what a reset covers: it has a number that is larger than those before it, and covers the calls that the
ledger has by then. Its number is the time only as far as the clock goes forward.
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
    from collections.abc import Callable, Iterable
    from pathlib import Path

SESSION: Final = "session"
BEFORE: Final = "reset"
"""The kind of the totals that a session had when it was reset."""

_COARSE: Final = 0.05
"""Seconds by which a file's modification time may lag."""


def reset_session(path: Path, *sessions: str, patience: float = 5.0) -> None:
    """Reset the summaries of sessions, for every process; wait `patience` seconds for others that write.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    with opened(path, patience=patience) as db:
        try:
            db.execute(f"PRAGMA busy_timeout = {round(patience * 1000)}")
            db.execute("BEGIN IMMEDIATE")
            (last,) = db.execute("SELECT coalesce(max(at), 0) FROM resets").fetchone()
            at = max(time.time_ns(), last + 1)  # whatever the clock says, a later reset has a larger number
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
    """Reports each reset by another process once: those that come after what the ledger has when it is first read.

    Args:
        path: The ledger.
        apply: Called with a session that was reset.
        written: Called with ids of calls; `apply` has been called for every reset that the ledger had before them.
    """

    def __init__(
        self, path: Path, apply: Callable[[str], None], written: Callable[[Iterable[str]], None] | None = None
    ) -> None:
        self._path = path
        self._files = path, path.with_name(f"{path.name}-wal")
        self._apply = apply
        self._written = written
        self._last: int | None = None  # the number of the last reset that was reported; None = the file was never read
        self._stamped: tuple[int, int] | None = None
        self._stamped_at = 0.0  # when this state of the file was first seen, by a clock that is never set back
        self._is_read = False
        self._fresh()
        renew_in_child(self, ResetWatcher._fresh)

    def _fresh(self) -> None:
        self._lock = threading.RLock()  # reentrant: a signal handler may read, too

    def read(self, db: sqlite3.Connection) -> None:
        """Report the resets that `db` has, inside a writing transaction: no earlier reset can appear after it."""
        with self._lock:
            self._report(db)

    def commit(self, db: sqlite3.Connection, ids: Iterable[str]) -> None:
        """Commit a writing transaction in which these calls were written. A reset that `look` finds was before it."""
        with self._lock:
            db.execute("COMMIT")
            if self._written is not None:
                self._written(ids)

    def look(self, *, anyway: bool = False) -> bool:
        """Report the resets in the file if it has changed, or `anyway`; return whether all of them are reported."""
        stamp, now = self._stamp(), time.monotonic()
        if stamp is None:
            self._last = self._last or 0
            return True
        if stamp != self._stamped:
            self._stamped, self._stamped_at, self._is_read = stamp, now, False
        if self._is_read and not anyway:
            return True
        try:
            # In this order, as in the writer: whoever holds the lock must not wait for a fork.
            with opened(self._path, write=False, patience=0) as db, self._lock:
                self._report(db)
        except (LedgerError, sqlite3.Error):
            return False  # the writer says what is wrong with the file
        # A write soon after another may leave the file's time unchanged: file system clocks are coarse.
        self._is_read = now >= self._stamped_at + _COARSE
        return True

    def _report(self, db: sqlite3.Connection) -> None:
        rows = db.execute("SELECT key, at FROM resets WHERE kind = ? ORDER BY at", (SESSION,)).fetchall()
        last, self._last = self._last, max((at for _, at in rows), default=0)
        if last is not None:
            for session, at in rows:
                if at > last:
                    self._apply(session)

    def _stamp(self) -> tuple[int, int] | None:
        """Return the file's modification time and size, its log included, or None if it does not exist."""
        states = []
        for path in self._files:  # the log exists only while a process has the file open
            with contextlib.suppress(OSError):
                states.append(path.stat())
        if not states:
            return None
        return max(state.st_mtime_ns for state in states), sum(state.st_size for state in states)
