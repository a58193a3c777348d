"""The SQLite file of a store: its connection, and transactions that hold the file's write lock.

    result = file.run(operation)      # calls operation(connection) inside a transaction

Operations that threads of this process run at the same time share one transaction (`operation_queue`). So the deadline
is for the locks of other processes only: an operation raises StoreError if the file was locked for `deadline` seconds
while it was next in line, and for a full disk or a broken file.

The schema is created with the first transaction. WAL is used without a sync per transaction: a killed process loses
nothing, and a machine that loses power may lose the last transactions.

A file that is deleted or replaced while it is open is noticed by the next operation, logged, and made up for: what the
old file had is written into the new one (`sqlite_carry_over`).
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from random import uniform
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tollspan.budget.stores import StoreError
from tollspan.budget.stores.operation_queue import Interrupting, OperationQueue
from tollspan.budget.stores.sqlite_carry_over import carry_over
from tollspan.runtime.forking import close_before_fork, in_sqlite, renew_in_child
from tollspan.runtime.private_files import make_private

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tollspan.budget.stores.operation_queue import Waiting

    Operation = Callable[[sqlite3.Connection], Any] | None  # None closes the file

Result = TypeVar("Result")

log = logging.getLogger("tollspan.budget")

PAUSES: Final = 0.0002, 0.002
"""Seconds, at least and at most, between two tries to lock a file that another process has locked.

Processes cannot wake each other. SQLite's own waiting ends in pauses of 100 ms, in which a busy process takes the lock
many times over.
"""

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
        """Use the file at `path`, which is created when it is first needed; wait `deadline` seconds for its lock."""
        self.path = path
        self.deadline = deadline
        self._queue: OperationQueue[Operation] = OperationQueue(self._run_batch, leaders=1)
        self._identity: tuple[int, int] | None = None
        self._clear()
        renew_in_child(self, CounterFile._clear)
        close_before_fork(self, CounterFile.disconnect)

    def _clear(self) -> None:
        """Forget the connections, which in a forked child are the parent's."""
        self.connection: sqlite3.Connection | None = None
        self._outdated: sqlite3.Connection | None = None  # to a file that was deleted or replaced

    def run(self, operation: Callable[[sqlite3.Connection], Result]) -> Result:
        """Return the result of `operation(connection)`, run inside a transaction; if it raises, it changes nothing.

        The operation may be run again if another one of the same transaction fails.

        Raises:
            StoreError: the file's lock is not free within the deadline, or SQLite fails.
        """
        try:
            result: Result = self._queue.run(operation)
        except Interrupting:
            raise StoreError(f"{self.path}: interrupted another operation on this thread; it is tried again") from None
        return result

    def _run_batch(self, batch: Sequence[Waiting[Operation]]) -> None:
        """Run operations in one transaction, and close the file if one of them says so. Raises StoreError."""
        closing = [each for each in batch if each.operation is None]
        if not closing:
            self._run_together(batch)
            return
        try:
            if len(batch) > len(closing):
                self._run_together([each for each in batch if each.operation is not None])
        finally:
            with in_sqlite:
                self.disconnect()

    def _run_together(self, batch: Sequence[Waiting[Operation]]) -> None:
        """Run operations in one transaction, or each in its own if one of them fails. Raises StoreError."""
        deadline = monotonic() + self.deadline
        while True:
            with in_sqlite:  # never while it waits: a fork would wait as long
                try:
                    connection = self._begin()
                except (sqlite3.Error, OSError) as error:
                    if not _is_busy(error) or monotonic() >= deadline:
                        raise self._failed(error) from error
                else:
                    failure = self._commit(connection, batch)
                    break
            sleep(uniform(*PAUSES))  # noqa: S311 - no secret
        if failure is None:
            return
        if len(batch) == 1:
            raise failure
        for each in batch:
            try:
                self._run_together([each])
            except Exception as error:  # noqa: BLE001 - it is raised in the thread whose operation it is
                each.error = error

    def _begin(self) -> sqlite3.Connection:
        """Return a connection that holds the file's write lock. Raises what SQLite and the system raise."""
        connection = self.connection
        if connection is None or self._outdated is not None or self._is_replaced():
            connection = self._reconnect()
        connection.execute("BEGIN IMMEDIATE")
        return connection

    def _commit(self, connection: sqlite3.Connection, batch: Sequence[Waiting[Operation]]) -> Exception | None:
        """Run operations and commit; if that fails, roll back and return the error."""
        try:
            results = [each.operation(connection) for each in batch if each.operation is not None]
            connection.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            if isinstance(error, (sqlite3.Error, OSError)):
                return self._failed(error)
            if isinstance(error, Exception):
                return error
            raise
        for each, result in zip(batch, results, strict=True):
            each.result = result
        return None

    def _failed(self, error: Exception) -> StoreError:
        """Return an error of SQLite as the store's; the next operation opens the file again, which may be broken."""
        if not _is_busy(error):
            self.disconnect()
        failure = StoreError(f"{self.path}: {error}")
        failure.__cause__ = error
        return failure

    def _is_replaced(self) -> bool:
        """Return whether another file than the open one is at the path, or none."""
        try:
            state = os.stat(self.path)  # noqa: PTH116 - with every transaction, and half as fast with Path
        except FileNotFoundError:
            return True
        return (state.st_dev, state.st_ino) != self._identity

    def _reconnect(self) -> sqlite3.Connection:
        """Open the file at the path, and write into it what a file that was there before had."""
        if self.connection is not None and self._outdated is None:
            self._outdated, self.connection = self.connection, None
        connection = self.connection
        if connection is None:
            connection = self.connection = self._connect()
        if (outdated := self._outdated) is not None:
            counters = carry_over(outdated, connection)
            self._outdated = None
            outdated.close()
            log.warning(
                "budgets: the file %s was deleted or replaced while it was in use; its %d counters were written into "
                "the new file, and limits hold",
                self.path,
                counters,
            )
        return connection

    def _connect(self) -> sqlite3.Connection:
        if not self.path.exists():
            self._create()
        connection = sqlite3.connect(
            self.path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=32
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
            state = self.path.stat()
        except BaseException:
            connection.close()
            raise
        self._identity = state.st_dev, state.st_ino
        return connection

    def _create(self) -> None:
        """Create an empty file. SQLite would read the log of an earlier file that was deleted without it."""
        make_private(self.path)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def disconnect(self) -> None:
        """Close the connections; the next transaction opens another one."""
        for connection in (self.connection, self._outdated):
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()
        self.connection = self._outdated = None

    def close(self) -> None:
        """Close the file when no other thread uses it."""
        with suppress(Interrupting):
            self._queue.run(None)


def _is_busy(error: Exception) -> bool:
    """Return whether another process holds a lock that the file needs."""
    name = getattr(error, "sqlite_errorname", None) or ""
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
