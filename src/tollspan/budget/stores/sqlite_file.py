"""The SQLite file of a store: its connection, and transactions that hold the file's write lock.

    with file.transaction() as db: ...

The schema is created with the first transaction. WAL is used without a sync per transaction: a killed process loses
nothing, and a machine that loses power may lose the last transactions.

A transaction waits for the locks of other threads and processes, for at most `deadline` seconds. After that, and for a
full disk or a broken file, it raises StoreError.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

from tollspan.budget.stores import StoreError
from tollspan.runtime.forking import close_before_fork, in_sqlite, renew_in_child

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION: Final = 2
"""`user_version` of files with this schema. Version 1 had no table `habit`; a file of it gets one when it is opened."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS counter (
    key TEXT NOT NULL, slot INTEGER NOT NULL, name TEXT NOT NULL, spent TEXT NOT NULL, uncertain TEXT NOT NULL,
    reserved TEXT NOT NULL, resets INTEGER NOT NULL, kept_until REAL, PRIMARY KEY (key, slot)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (
    attempt TEXT PRIMARY KEY, until REAL NOT NULL, ended INTEGER NOT NULL, lines TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lease_until ON lease (ended, until);
CREATE TABLE IF NOT EXISTS budget (name TEXT PRIMARY KEY, description TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS own_limit (name TEXT PRIMARY KEY, amount TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS habit (key TEXT PRIMARY KEY, sums TEXT NOT NULL, learned_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mark (key TEXT NOT NULL, mark TEXT NOT NULL, PRIMARY KEY (key, mark)) WITHOUT ROWID;
"""


class CounterFile:
    """A SQLite file with counters, which threads, processes and forks can share."""

    def __init__(self, path: Path, deadline: float) -> None:
        """Use the file at `path`, which is created when it is first needed; wait `deadline` seconds for locks."""
        self.path = path
        self.deadline = deadline
        self._clear()
        renew_in_child(self, CounterFile._clear)
        close_before_fork(self, CounterFile.disconnect)

    def _clear(self) -> None:
        """Forget connection and locks, which in a forked child are the parent's."""
        self._lock = threading.RLock()
        self._in_transaction = False
        self.connection: sqlite3.Connection | None = None
        self._busy_timeout = self.deadline

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the file's write lock inside a `with` block: commit at its end, roll back if it raises.

        Raises:
            StoreError: the lock is not free within the deadline, or SQLite fails.
        """
        began = monotonic()
        if not self._lock.acquire(timeout=self.deadline):
            raise StoreError(f"{self.path} has been busy with another thread for more than {self.deadline} s")
        try:
            if self._in_transaction:
                raise StoreError(f"{self.path}: a finalizer interrupted a settlement with another one; it is retried")
            self._in_transaction = True
            try:
                with in_sqlite:
                    yield from self._transaction(self.deadline - (monotonic() - began))
            finally:
                self._in_transaction = False
        finally:
            self._lock.release()

    def _transaction(self, timeout: float) -> Iterator[sqlite3.Connection]:
        """Hold the file's write lock, and wait for it for at most `timeout` seconds."""
        connection = self.connection
        try:
            if connection is None:
                connection = self.connection = self._connect()
                self._busy_timeout = self.deadline
            if abs(timeout - self._busy_timeout) > self.deadline / 10:  # changing it costs a statement
                connection.execute(f"PRAGMA busy_timeout = {max(round(timeout * 1000), 1)}")
                self._busy_timeout = timeout
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            if not isinstance(error, sqlite3.OperationalError) or "locked" not in str(error):
                self.disconnect()  # the file may be broken or replaced: the next operation opens it again
            raise StoreError(f"{self.path}: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self.path, timeout=self.deadline, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise StoreError(  # noqa: TRY301 - the connection is closed below
                    f"{self.path} was written by a newer tollspan; upgrade this one, or use another file"
                )
            connection.execute("PRAGMA synchronous = NORMAL")
            if version < VERSION:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        except BaseException:
            connection.close()
            raise
        return connection

    def disconnect(self) -> None:
        """Close the connection; the next transaction opens another one."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def close(self) -> None:
        """Close the connection when no other thread uses it."""
        with self._lock, in_sqlite:
            self.disconnect()
