"""Sees that another process has changed a SQLite file, by its `data_version`: SQLite cannot wake another process.

Each look reads one number in shared memory and takes no lock. Looks are `EVERY` seconds apart, more or less, so that
processes that wait for the same file do not look, and then write, at the same moment.
"""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from tollspan.budget.stores import StoreError
from tollspan.runtime.forking import close_before_fork, in_sqlite

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

EVERY: Final = 0.02


class SqliteWatch:
    """Watches one file through a connection of its own."""

    def __init__(self, path: Path) -> None:
        """Start to watch the file at `path`. Raises StoreError."""
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._seen: int | None = None
        close_before_fork(self, SqliteWatch.close)
        self._has_changed()

    def wait(self, seconds: float) -> Collection[str] | None:
        """Wait until any counter may have changed (see `CounterWatch`)."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(EVERY * random.uniform(0.5, 1.5))  # noqa: S311 - see the module's text
            if self._has_changed():
                return None
        return ()

    def _has_changed(self) -> bool:
        """Return whether the file has changed since the last look, or has been opened again since: after a fork."""
        try:
            with in_sqlite:  # in which no fork closes the connection
                before, connection = self._seen, self._connection
                if connection is None:
                    before, connection = None, self._connect()
                (self._seen,) = connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        return self._seen != before

    def _connect(self) -> sqlite3.Connection:
        self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        return self._connection

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with in_sqlite, suppress(sqlite3.Error):
                connection.close()
