"""Writes calls into the ledger, off the call path: `add(call)` puts it into a queue, a thread of its own does the rest.

The thread sleeps until there is a call, waits `INTERVAL` for more, and writes them in one transaction: so at most 200
milliseconds of calls are lost when the process is killed. With `durability="call"`, `add` returns when the call is on
disk, and nothing that was answered is lost.

The application never notices a failure. What cannot be written is kept, up to `LIMIT` calls, and tried again; each kind
of failure is told in one line, and so is its end.

Fork: a child begins anew, with a thread, a connection and a queue of its own; what its parent had in the queue is its
parent's to write. A fork waits until SQLite is at rest and its connections are closed (see `forking`); so that it need
not wait for other processes too, SQLite itself waits for them only briefly, and the patience is here.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sqlite3
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, Literal

from tollspan.ledger import rows, totals
from tollspan.ledger.schema import busy, check_version, connect, explain, opened
from tollspan.model.errors import LedgerError
from tollspan.model.text import as_text
from tollspan.runtime.forking import close_before_fork, in_sqlite, renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tollspan.ledger.resets import ResetWatcher
    from tollspan.ledger.rows import Row
    from tollspan.model.records import Call

log = logging.getLogger("tollspan")

Durability = Literal["batch", "call"]

INTERVAL: Final = 0.1
"""Seconds that the thread waits for more calls before it writes; with the writing itself they stay under 200 ms."""

LIMIT: Final = 100_000
"""Calls that are kept while they cannot be written; more are counted as lost."""

BATCH: Final = 4_000
"""Calls of one transaction: other processes wait while it lasts."""

PATIENCE: Final = 5.0
"""Seconds that a transaction waits for those of other processes, before that counts as a failure."""

RETRIES: Final = (0.2, 1.0, 5.0, 30.0)
"""Seconds to wait after a failure, after the next, and so on; the last one holds from then on."""

ANSWERED: Final = 5.0
"""Seconds that `durability="call"` keeps an answer waiting at most."""


class _Mark:
    """Stands in the queue for someone who waits until everything before it is written."""

    __slots__ = ("done", "good")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.good = False


class Writer:
    """Writes calls to the ledger at `path`.

    Args:
        path: The file; it is made when the first call is written.
        count: Is told the name of every failure, to count it; what the user has to know is logged here.
        durability: "batch", or "call" to have every call on disk before its answer is handed over.
        defaults: Session and run of calls whose attribution names none.
        news: Is shown the file in every transaction.
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
        self._fresh()
        renew_in_child(self, Writer._fresh)
        close_before_fork(self, lambda writer: writer._kept.disconnect())  # noqa: SLF001 - its own

    def _fresh(self) -> None:
        """Begin with nothing: at the start, and in a forked child."""
        # Calls end in finalizers too, which may run in the middle of any Python code; this queue is made for that.
        self._queue: queue.SimpleQueue[Call | _Mark] = queue.SimpleQueue()
        self._hurry = threading.Lock()  # held while nobody waits
        self._hurry.acquire()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
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
        """Have a call written. Takes a few microseconds; with `durability="call"` until it is on disk."""
        if self.waiting >= LIMIT:
            self._kept.lose(
                1, LedgerError(f"ledger {self.path}: {LIMIT} calls wait to be written; more are not kept", "late")
            )
            return
        self._queue.put(call)
        if self._thread is None or self._closed:
            self._start()
        if self._durability == "call":
            self.flush(ANSWERED)

    def enter(self, calls: Sequence[Call]) -> list[Call]:
        """Write calls now, those that the ledger does not have yet, and give these. Not for the call path.

        Of several processes that enter the same call, one is given it. Where the ledger cannot be written, all are
        given, and wait to be written as others do.
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
        """Write what is waiting, now; give whether all of it is on disk, after `timeout` seconds at the latest."""
        if self._thread is None and not self._closed:
            return not self.waiting
        mark = _Mark()
        self._queue.put(mark)
        if self._closed:
            self._write_here()
        else:
            with contextlib.suppress(RuntimeError):  # somebody else has woken it already
                self._hurry.release()
        return mark.done.wait(timeout) and mark.good

    def close(self, timeout: float = PATIENCE) -> bool:
        """Write what is waiting, and end the thread; give whether all is on disk. Later calls are written at once."""
        thread = self._thread
        good = self.flush(timeout)
        self._closed = True
        if thread is not None:
            self._queue.put(_STOP)
            with contextlib.suppress(RuntimeError):
                self._hurry.release()
            thread.join(timeout)
        if not good and self.waiting:
            log.warning("ledger %s: %d calls could not be written and are lost", self.path, self.waiting)
        return good

    def _start(self) -> None:
        """Start the thread, unless somebody else is doing so."""
        if self._closed:
            self._write_here()
            return
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                thread = threading.Thread(target=_work, args=(self, self._queue), name="tollspan-ledger", daemon=True)
                thread.start()
                self._thread = thread
                _write_before_child_ends(self)
        except RuntimeError:  # the interpreter is ending
            self._write_here()
        finally:
            self._starting.release()

    def _write_here(self) -> None:
        """Write in this thread what the queue holds: the process is about to end, and there is no other."""
        self._kept.take(self._queue)
        self._kept.write()

    def wait_for_more(self, seconds: float) -> None:
        """Let calls come in, unless somebody waits."""
        self._hurry.acquire(timeout=seconds)


class _Kept:
    """What the thread has taken out of the queue and not written yet."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._db: sqlite3.Connection | None = None
        self.taken: list[Call | _Mark] = []
        self.rows: list[Row] = []
        self._marks: list[_Mark] = []
        self._failing: str | None = None
        self._failures = 0
        self.written = 0
        self.lost = 0

    def take(self, items: queue.SimpleQueue[Call | _Mark]) -> bool:
        """Take what the queue holds: calls, as rows, and those who wait; give whether the work is to end."""
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
        if _STOP not in self._marks:
            return False
        self._marks.remove(_STOP)
        return True

    def write(self) -> None:
        """Write what is kept; what cannot be written stays."""
        writer, error = self._writer, None
        try:
            while self.rows:
                self._write_batch()
            if self._failing is not None:
                log.warning("ledger %s: calls are written again", writer.path)
                self._failing, self._failures = None, 0
        except (sqlite3.Error, OSError, LedgerError, ValueError, OverflowError) as caught:
            error = explain(caught, writer.path)
            self._tell(error)
            if self._in_writers_thread():
                with in_sqlite:
                    self.disconnect()
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

    def pause(self, waiting: int) -> float:
        """Return how long to wait before the next try: 0 where the waiting calls fill a transaction."""
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
        """Write those calls that are not there yet, and give them."""
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
        """Write rows in one transaction, all of them or those that are not there yet; give what was written."""
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
        """Open the file: the writer's thread keeps it open, any other one has it for the block."""
        if not self._in_writers_thread():
            return opened(self._writer.path, patience=0)
        if self._db is None:
            self._db = connect(self._writer.path, patience=0, any_thread=True)
        return contextlib.nullcontext(self._db)

    def _in_writers_thread(self) -> bool:
        return threading.current_thread() is self._writer._thread  # noqa: SLF001 - one class in two parts

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
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
            raise
        self.written += len(batch)
        return batch

    def _tell(self, error: LedgerError) -> None:
        """Tell of a failure where it is a new one."""
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


def _work(writer: Writer, items: queue.SimpleQueue[Call | _Mark]) -> None:
    """Write until told to stop."""
    kept = writer._kept  # noqa: SLF001 - one class in two parts
    while True:
        if not kept.rows:
            kept.taken.append(items.get())
        writer.wait_for_more(kept.pause(items.qsize()))
        stop = kept.take(items)
        try:
            kept.write()
        except Exception as error:  # noqa: BLE001 - the safe boundary of this thread
            kept.lose(len(kept.rows), error)
            kept.rows.clear()
            with in_sqlite:
                kept.disconnect()
        if stop:
            with in_sqlite:
                kept.disconnect()
            return


_STOP: Final = _Mark()


def _unknown(db: sqlite3.Connection, batch: list[Row]) -> list[Row]:
    """Leave out rows that the ledger has, and all but the first of those that share an id."""
    once = {row[0]: row for row in reversed(batch)}
    return [
        row
        for id_, row in reversed(once.items())
        if db.execute("SELECT 1 FROM calls WHERE id = ?", (id_,)).fetchone() is None
    ]


def _bindable(row: Row) -> Row | None:
    """Return a row with texts that SQLite takes; None where a number does not fit."""
    if any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in row):
        return None
    return tuple(as_text(value) if isinstance(value, str) else value for value in row)


def _write_before_child_ends(writer: Writer) -> None:
    """A child of multiprocessing leaves by `os._exit`, and runs its own finalizers before that."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(writer, writer.flush, exitpriority=0)
