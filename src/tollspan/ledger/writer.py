"""Writes calls into the ledger, off the call path: `add(call)` puts it into a queue, a background worker writes it.

The worker sleeps until there is a call, waits `INTERVAL` for more, and writes them in one transaction: so at most 200
milliseconds of calls are lost when the process is killed. With `durability="call"`, `add` returns when the call is on
disk, and no call whose response was handed over is lost.

The application never notices a failure. Calls that cannot be written are kept, up to `LIMIT`, and tried again; each
kind of failure is logged in one line, and so is its end.

A forked child starts with an empty queue and its own thread and connection; the parent writes what it had queued. A
fork waits until SQLite is at rest and its connections are closed (see `forking`); so that it need not wait for other
processes too, SQLite itself waits for them only briefly, and the patience is here.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Final, Literal

from tollspan.ledger import rows, totals
from tollspan.ledger.schema import busy, check_version, connect, explain, opened
from tollspan.model.errors import LedgerError
from tollspan.model.text import as_text
from tollspan.runtime.forking import close_before_fork, in_sqlite, renew_in_child
from tollspan.runtime.worker import BackgroundWorker, before_child_ends

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tollspan.ledger.resets import ResetWatcher
    from tollspan.ledger.rows import Row
    from tollspan.model.records import Call

log = logging.getLogger("tollspan")

Durability = Literal["batch", "call"]

INTERVAL: Final = 0.1
"""Seconds that the worker waits for more calls before it writes; with the writing itself they stay under 200 ms."""

LIMIT: Final = 100_000
"""Calls that are kept while they cannot be written; more are counted as lost."""

BATCH: Final = 4_000
"""Calls of one transaction: other processes wait while it lasts."""

PATIENCE: Final = 5.0
"""Seconds that a transaction waits for those of other processes, before that counts as a failure."""

RETRIES: Final = (0.2, 1.0, 5.0, 30.0)
"""Seconds to wait after a failure, after the next, and so on; the last one holds from then on."""

ANSWERED: Final = 5.0
"""Seconds that `durability="call"` keeps a response waiting at most."""


class _Mark:
    """Put into the queue by a thread that waits until everything before it is written."""

    __slots__ = ("done", "good")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.good = False


class Writer:
    """Writes calls to the ledger at `path`.

    Args:
        path: The file; it is made when the first call is written.
        count: Takes the name of every failure, to count it; the user reads of it in the log.
        durability: "batch", or "call" to write every call to disk before its response is handed over.
        defaults: Session and run of calls whose attribution has none.
        news: Reads the file in every transaction.
    """

    def __init__(
        self,
        path: Path,
        count: Callable[[str], object],
        *,
        durability: Durability = "batch",
        defaults: Mapping[str, str] | None = None,
        news: ResetWatcher | None = None,
    ) -> None:
        self.path = path
        self.news = news
        self.defaults = dict(defaults or {})
        self.count = count
        self._durability = durability
        self._worker = BackgroundWorker("tollspan-ledger", "ledger", lambda kind, _: count(kind))
        self._fresh()
        renew_in_child(self, Writer._fresh)
        close_before_fork(self, lambda writer: writer._kept.disconnect())  # noqa: SLF001 - its own

    def _fresh(self) -> None:
        """Start with nothing: in a new writer, and in a forked child."""
        # Calls end in finalizers too, which may run in the middle of any Python code; this queue is made for that.
        self._queue: queue.SimpleQueue[Call | _Mark] = queue.SimpleQueue()
        self._hurry = threading.Lock()  # held while no thread waits for the writing
        self._hurry.acquire()
        self._scheduled = False  # a job that writes what is in the queue is put, and has not begun to take it
        self._closed = False
        self._kept = _Kept(self)

    @property
    def waiting(self) -> int:
        """Return how many calls are not written yet."""
        return self._queue.qsize() + len(self._kept.taken) + len(self._kept.rows)

    @property
    def written(self) -> int:
        """Return how many calls this process has written."""
        return self._kept.written

    @property
    def lost(self) -> int:
        """Return how many calls this process could not keep."""
        return self._kept.lost

    def add(self, call: Call) -> None:
        """Schedule the writing of a call. Takes a few microseconds; with `durability="call"` until it is on disk."""
        if self.waiting >= LIMIT:
            self._kept.lose(
                1, LedgerError(f"ledger {self.path}: {LIMIT} calls wait to be written; more are not kept", "late")
            )
            return
        self._queue.put(call)
        if not self._scheduled:
            self._schedule()
        if self._durability == "call":
            self.flush(ANSWERED)

    def enter(self, calls: Sequence[Call]) -> list[Call]:
        """Write the calls that the ledger does not have yet, now, and return these. Not for the call path.

        Of several processes that enter the same call, it is returned to one. If the ledger cannot be written, all calls
        are returned, and wait to be written as others do.
        """
        try:
            new = self._kept.enter(calls)
        except (sqlite3.Error, OSError, LedgerError) as error:
            self.count(f"ledger:{explain(error, self.path).kind}")
            for call in calls:
                self.add(call)
            return list(calls)
        return new

    def has(self, id_: str) -> bool:
        """Return whether the ledger has a call of this id. Not for the call path."""
        try:
            with opened(self.path, write=False) as db:
                return db.execute("SELECT 1 FROM calls WHERE id = ?", (id_,)).fetchone() is not None
        except (sqlite3.Error, LedgerError):
            return False

    def flush(self, timeout: float = 10.0) -> bool:
        """Write what is waiting, now; return whether all of it is on disk, after `timeout` seconds at the latest."""
        if not self._worker.started and not self.waiting:
            return True
        mark = _Mark()
        self._queue.put(mark)
        if self._closed:
            self._write()
        else:
            self._worker.put(self._write_for_marks)  # in any case: what is scheduled may have taken the queue already
            self._hurry_up()
        return mark.done.wait(timeout) and mark.good

    def close(self, timeout: float = PATIENCE) -> bool:
        """Write what is waiting, and end the thread; return whether all is on disk. Later calls are written at once."""
        good = self.flush(timeout)
        self._closed = True
        if self._worker.started:
            self._worker.put(self._kept.disconnect_at_rest)
            self._hurry_up()
            self._worker.close(timeout)
        if not good and self.waiting:
            log.warning("ledger %s: %d calls could not be written and are lost", self.path, self.waiting)
        return good

    def _schedule(self) -> None:
        """Schedule the writing of what is in the queue; after `close`, write it here."""
        if self._closed:
            self._write()
            return
        if not self._worker.started:
            before_child_ends(self, self.flush, 0)
        self._scheduled = True
        self._worker.put(self._write_soon)

    def _write_soon(self) -> None:
        """Write once more calls have come in; what cannot be written is scheduled again."""
        if self.in_worker() and not self._closed:
            self._hurry.acquire(timeout=self._kept.pause(self._queue.qsize()))
        self._scheduled = False
        self._write()
        if self._kept.rows and not self._scheduled and self.in_worker() and not self._closed:
            self._schedule()

    def _write_for_marks(self) -> None:
        """Write if a thread still waits for that."""
        if self._kept.take(self._queue):
            self._write()

    def _write(self) -> None:
        """Write what the queue holds, and what could not be written before."""
        kept = self._kept
        kept.take(self._queue)
        try:
            kept.write()
        except Exception as error:  # noqa: BLE001 - the safe boundary
            kept.lose(len(kept.rows), error)
            kept.rows.clear()
            if self.in_worker():
                kept.disconnect_at_rest()

    def _hurry_up(self) -> None:
        """Let the worker write without waiting for more calls."""
        with contextlib.suppress(RuntimeError):  # another thread has done that already
            self._hurry.release()

    def in_worker(self) -> bool:
        """Return whether the caller is the worker's thread, which keeps the file open."""
        return self._worker.is_current()


class _Kept:
    """What was taken out of the queue and is not written yet."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None  # of the file that is open
        self.taken: list[Call | _Mark] = []
        self.rows: list[Row] = []
        self._marks: list[_Mark] = []
        self._failing: str | None = None
        self._failures = 0
        self.written = 0
        self.lost = 0

    def take(self, items: queue.SimpleQueue[Call | _Mark]) -> bool:
        """Take what the queue holds: calls, as rows, and marks; return whether a thread waits for the writing."""
        with contextlib.suppress(queue.Empty):
            while len(self.taken) < LIMIT:
                self.taken.append(items.get_nowait())
        for item in self.taken:
            if isinstance(item, _Mark):
                self._marks.append(item)
                continue
            try:
                self.rows.append(rows.row_of(item, self._writer.defaults))
            except Exception as error:  # noqa: BLE001 - one call must not keep the others from the ledger
                self.lose(1, error)
        self.taken.clear()
        return bool(self._marks)

    def write(self) -> None:
        """Write what was taken; what cannot be written stays."""
        writer, error = self._writer, None
        try:
            while self.rows:
                self._write_batch()
            if self._failing is not None:
                log.warning("ledger %s: writing recovered", writer.path)
                self._failing, self._failures = None, 0
        except (sqlite3.Error, OSError, LedgerError, ValueError, OverflowError) as caught:
            error = explain(caught, writer.path)
            self._report(error)
            if writer.in_worker():
                self.disconnect_at_rest()
        for mark in self._marks:
            mark.good = error is None
            mark.done.set()
        self._marks.clear()

    def disconnect(self) -> None:
        """Close the file; the next write opens it again."""
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def disconnect_at_rest(self) -> None:
        """Close the file while no fork happens."""
        with in_sqlite:
            self.disconnect()

    def pause(self, waiting: int) -> float:
        """Return how many seconds to wait before the next try: 0 if the waiting calls fill a transaction."""
        if self._failures:
            return RETRIES[min(self._failures, len(RETRIES)) - 1]
        return INTERVAL if waiting < BATCH else 0.0

    def _write_batch(self) -> None:
        batch = self.rows[:BATCH]
        try:
            self._commit(batch)
        except sqlite3.IntegrityError:  # a call is there already: it was written, and its success was not seen
            self._commit(batch, only_new=True)
        except (OverflowError, UnicodeEncodeError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
            self._commit([row for row in map(_bindable, batch) if row is not None])
        del self.rows[: len(batch)]

    def enter(self, calls: Sequence[Call]) -> list[Call]:
        """Write the calls that are not in the ledger yet, and return them."""
        known: dict[object, Call] = {}
        found: list[Row] = []
        for call in calls:
            try:
                row = _bindable(rows.row_of(call, self._writer.defaults))
            except LedgerError as error:
                self.lose(1, error)
                continue
            if row is not None:
                known[row[0]] = call
                found.append(row)
        return [known[row[0]] for row in self._commit(found, only_new=True)]

    def _commit(self, batch: list[Row], *, only_new: bool = False) -> list[Row]:
        """Write rows in one transaction, all of them or those that are not there yet; return those."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with in_sqlite, contextlib.ExitStack() as done:
                try:
                    db = done.enter_context(self._opened())
                    db.execute("BEGIN IMMEDIATE")
                except (sqlite3.OperationalError, LedgerError) as error:
                    if not busy(error) or time.monotonic() >= deadline:
                        raise
                else:
                    return self._insert(db, batch, only_new=only_new)
            time.sleep(0.001)

    def _opened(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Open the file: the worker keeps it open, any other thread opens it for the block."""
        if not self._writer.in_worker():
            return opened(self._writer.path, patience=0)
        if self._db is not None and self._identity != _identity_of(self._writer.path):
            # SQLite would go on writing into the file that was deleted or moved.
            log.warning(
                "ledger %s: the file was deleted or replaced while this program used it; the calls recorded in it are "
                "gone with it, and later ones are written into a new file",
                self._writer.path,
            )
            self._writer.count("ledger:replaced")
            self.disconnect()
        if self._db is None:
            self._db = connect(self._writer.path, patience=0, any_thread=True)
            self._identity = _identity_of(self._writer.path)
        return contextlib.nullcontext(self._db)

    def _insert(self, db: sqlite3.Connection, batch: list[Row], *, only_new: bool) -> list[Row]:
        try:
            check_version(db, self._writer.path)
            if self._writer.news is not None:
                self._writer.news.read(db)
            if only_new:
                batch = _unknown(db, batch)
            (last,) = db.execute("SELECT coalesce(max(n), 0) FROM calls").fetchone()
            rows.insert(db, batch)
            totals.add_rows_after(db, last)
            if self._writer.news is None:
                db.execute("COMMIT")
            else:
                self._writer.news.commit(db, [str(row[0]) for row in batch])
        except BaseException:
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
            raise
        self.written += len(batch)
        return batch

    def _report(self, error: LedgerError) -> None:
        """Count a failure, and log it if it is of a new kind."""
        self._failures += 1
        if self._failing != error.kind:
            self._failing = error.kind
            log.warning("%s; the application is not affected, and calls are kept in memory for now", error)
        self._writer.count(f"ledger:{error.kind}")

    def lose(self, count: int, error: Exception) -> None:
        """Count calls that cannot be kept."""
        if not self.lost:
            log.warning("%s", error)
        self.lost += count
        self._writer.count("ledger:lost")


def _identity_of(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one of the same name; None if there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _unknown(db: sqlite3.Connection, batch: list[Row]) -> list[Row]:
    """Leave out rows that the ledger has, and all but the first of those that share an id."""
    once = {row[0]: row for row in reversed(batch)}
    return [
        row
        for id_, row in reversed(once.items())
        if db.execute("SELECT 1 FROM calls WHERE id = ?", (id_,)).fetchone() is None
    ]


def _bindable(row: Row) -> Row | None:
    """Return a row with texts that SQLite takes, None if a number does not fit."""
    if any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in row):
        return None
    return tuple(as_text(value) if isinstance(value, str) else value for value in row)
