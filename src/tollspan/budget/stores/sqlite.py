"""Counters in a SQLite file: shared by the processes of one machine, kept when they end.

SQLite's integers end at 9.2 dollars in atto-dollars, so amounts are kept as decimal text and added up in Python, inside
a transaction that holds the file's write lock: exact, whatever the amount. WAL without a sync per transaction: a killed
process loses nothing, a machine that loses power may lose the last moments.

A lock that another process holds is waited for, at most `deadline` seconds; then, as for a full disk or a broken file,
StoreError.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.stores import REMEMBERED, Counter, CounterState, StoreError, Verdict, fitting
from tollspan.runtime.forking import close_before_fork, in_sqlite, renew_in_child

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tollspan.budget.stores import Charge, CounterUpdate

VERSION: Final = 1
DEADLINE: Final = 0.5
SWEEP_EVERY: Final = 3600.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS counter (
    key TEXT NOT NULL, slot INTEGER NOT NULL, name TEXT NOT NULL, spent TEXT NOT NULL, uncertain TEXT NOT NULL,
    reserved TEXT NOT NULL, resets INTEGER NOT NULL, kept_until REAL, PRIMARY KEY (key, slot)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (
    attempt TEXT PRIMARY KEY, until REAL NOT NULL, ended INTEGER NOT NULL, lines TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lease_until ON lease (ended, until);
CREATE TABLE IF NOT EXISTS budget (name TEXT PRIMARY KEY, description TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS own_limit (name TEXT PRIMARY KEY, amount TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mark (key TEXT NOT NULL, mark TEXT NOT NULL, PRIMARY KEY (key, mark)) WITHOUT ROWID;
"""
_READ: Final = "SELECT slot, spent, uncertain, reserved, resets FROM counter WHERE key = ?"
_WRITE: Final = (
    "INSERT INTO counter VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key, slot) DO UPDATE SET spent = excluded.spent, "
    "uncertain = excluded.uncertain, reserved = excluded.reserved, resets = excluded.resets, "
    "kept_until = excluded.kept_until"
)


def default_path() -> Path:
    """Return the file in the user's state folder that budgets are counted in."""
    from tollspan.settings import state_folder

    return state_folder() / "budgets.sqlite"


class SqliteStore:
    """Counters in one file; safe under threads, processes and fork."""

    remote: bool = False

    def __init__(self, path: Path | str, deadline: float = DEADLINE) -> None:
        """Count in the file at `path`, made when it is first needed; wait at most `deadline` seconds for a lock."""
        self._path = Path(path)
        self._deadline = deadline
        self._fresh()
        renew_in_child(self, SqliteStore._fresh)
        close_before_fork(self, SqliteStore._drop)

    def _fresh(self) -> None:
        self._lock = threading.RLock()
        self._inside = False
        self._connection: sqlite3.Connection | None = None
        self._waits = self._deadline
        self._next_sweep = 0.0

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path, timeout=self._deadline, isolation_level=None, check_same_thread=False, cached_statements=32
        )
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise StoreError(  # noqa: TRY301 - the connection is closed below
                    f"{self._path} was made by a newer tollspan; update this one, or name another file"
                )
            connection.execute("PRAGMA synchronous = NORMAL")
            if version < VERSION:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _transaction(self, now: float | None = None) -> Iterator[sqlite3.Connection]:
        """Hold the file's write lock; charge ended leases first where `now` is given."""
        began = monotonic()
        if not self._lock.acquire(timeout=self._deadline):
            raise StoreError(f"{self._path} is busy with another thread for more than {self._deadline} s")
        try:
            if self._inside:
                raise StoreError("a finalizer settles in the middle of another settlement; it will try again")
            self._inside = True
            try:
                with in_sqlite:
                    yield from self._inside_transaction(now, self._deadline - (monotonic() - began))
            finally:
                self._inside = False
        finally:
            self._lock.release()

    def _inside_transaction(self, now: float | None, left: float) -> Iterator[sqlite3.Connection]:
        """Hold the file's write lock, waited for as long as is `left` of the deadline, in seconds."""
        connection = self._connection
        try:
            if connection is None:
                connection = self._connection = self._open()
                self._waits = self._deadline
            if abs(left - self._waits) > self._deadline / 10:  # to tell SQLite costs a statement
                connection.execute(f"PRAGMA busy_timeout = {max(round(left * 1000), 1)}")
                self._waits = left
            connection.execute("BEGIN IMMEDIATE")
            try:
                if now is not None:
                    self._end_leases(connection, now)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            if not isinstance(error, sqlite3.OperationalError) or "locked" not in str(error):
                self._drop()  # the file may have been replaced, or be broken: the next operation opens it anew
            raise StoreError(f"{self._path}: {error}") from error

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    # Counters

    def _level(
        self, db: sqlite3.Connection, line: CounterUpdate, limits: Mapping[str, int]
    ) -> tuple[CounterState, dict[int, _Cell]]:
        cells = _cells(db, line.key)
        live = [cell for slot, cell in cells.items() if slot >= line.first]
        stale = sum(
            cell.reserved for slot, cell in cells.items() if slot < line.first
        )  # calls that are still under way
        spent = sum(cell.spent for cell in live)
        reserved = sum(cell.reserved for cell in live) + stale
        return CounterState(spent, reserved, limits.get(line.name, line.limit)), cells

    @staticmethod
    def _own_limits(db: sqlite3.Connection) -> dict[str, int]:
        return {name: int(amount) for name, amount in db.execute("SELECT name, amount FROM own_limit")}

    def reserve(self, attempt: str, lines: Sequence[CounterUpdate], now: float, until: float) -> Verdict:
        """Reserve all lines, or none (see `Store`)."""
        with self._transaction(now) as db:
            limits = self._own_limits(db)
            found = [self._level(db, line, limits) for line in lines]
            levels = [level for level, _ in found]
            if db.execute("SELECT 1 FROM lease WHERE attempt = ?", (attempt,)).fetchone():
                return Verdict(None, tuple(levels), tuple(line.amount for line in lines))
            amounts = [fitting(line, level) for line, level in zip(lines, levels, strict=True)]
            if -1 in amounts:
                return Verdict(amounts.index(-1), tuple(levels))
            for line, amount, (_, cells) in zip(lines, amounts, found, strict=True):
                cell = cells.get(line.slot) or _Cell(resets=max((c.resets for c in cells.values()), default=0))
                cell.reserved += amount
                _write(db, line.key, line.slot, line.name, cell, line.kept_until)
                if line.first:  # slots that have rolled out of the window
                    stale = "DELETE FROM counter WHERE key = ? AND slot < ? AND reserved = '0'"
                    db.execute(stale, (line.key, line.first))
            kept = [(line.key, line.slot, str(amount)) for line, amount in zip(lines, amounts, strict=True)]
            db.execute("INSERT INTO lease VALUES (?, ?, 0, ?)", (attempt, until, json.dumps(kept)))
            self._sweep(db, now)
            after = [CounterState(s, r + amount, limit) for (s, r, limit), amount in zip(levels, amounts, strict=True)]
            return Verdict(None, tuple(after), tuple(amounts))

    def settle(self, attempt: str, charges: Sequence[Charge], now: float) -> tuple[CounterState, ...] | None:
        """Replace a reservation with what was really spent (see `Store`)."""
        with self._transaction(now) as db:
            row = db.execute("SELECT ended, lines FROM lease WHERE attempt = ?", (attempt,)).fetchone()
            if row is None:
                return None
            db.execute("DELETE FROM lease WHERE attempt = ?", (attempt,))
            ended, lines = row
            for line in json.loads(lines):
                key, slot, amount = line[0], line[1], int(line[2])
                if not ended:
                    _add(db, key, slot, 0, 0, -amount)
                elif line[3] == _resets(db, key, slot):
                    _add(db, key, slot, -amount, -amount, 0)
            limits = self._own_limits(db)
            return tuple(self._spend(db, charge, limits) for charge in charges)

    def _spend(self, db: sqlite3.Connection, charge: Charge, limits: Mapping[str, int]) -> CounterState:
        name = _add(db, charge.key, charge.slot, charge.amount, charge.uncertain, 0)
        cells = _cells(db, charge.key).values()
        return CounterState(sum(c.spent for c in cells), sum(c.reserved for c in cells), limits.get(name or ""))

    def charge(self, lines: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Add amounts that nothing was reserved for."""
        with self._transaction(now) as db:
            limits = self._own_limits(db)
            levels = []
            for line in lines:
                level, cells = self._level(db, line, limits)
                cell = cells.get(line.slot) or _Cell()
                cell.spent += line.amount
                _write(db, line.key, line.slot, line.name, cell, line.kept_until)
                levels.append(level._replace(spent=level.spent + line.amount))
            return tuple(levels)

    def levels(self, lines: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Return how full counters are."""
        with self._transaction(now) as db:
            limits = self._own_limits(db)
            return tuple(self._level(db, line, limits)[0] for line in lines)

    def _end_leases(self, db: sqlite3.Connection, now: float) -> None:
        """Charge the leases that have ended."""
        for attempt, lines in db.execute(
            "SELECT attempt, lines FROM lease WHERE ended = 0 AND until <= ?", (now,)
        ).fetchall():
            kept = []
            for key, slot, text in json.loads(lines):
                amount = int(text)
                _add(db, key, slot, amount, amount, -amount)
                kept.append((key, slot, text, _resets(db, key, slot)))
            db.execute("UPDATE lease SET ended = 1, lines = ? WHERE attempt = ?", (json.dumps(kept), attempt))

    def _sweep(self, db: sqlite3.Connection, now: float) -> None:
        """Forget what may be forgotten, once an hour."""
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_EVERY
        db.execute("DELETE FROM lease WHERE ended = 1 AND until < ?", (now - REMEMBERED,))
        db.execute("DELETE FROM counter WHERE kept_until < ?", (now,))
        db.execute("DELETE FROM mark WHERE key NOT IN (SELECT key FROM counter)")

    def counters(self, now: float) -> list[Counter]:
        """Return every counter, by key."""
        with self._transaction(now) as db:
            sums: dict[str, list[Any]] = {}
            for key, name, spent, uncertain, reserved in db.execute(
                "SELECT key, name, spent, uncertain, reserved FROM counter ORDER BY key"
            ):
                row = sums.setdefault(key, [name, 0, 0, 0])
                row[1] += int(spent)
                row[2] += int(uncertain)
                row[3] += int(reserved)
        return [
            Counter(key=key, name=name, spent=spent, uncertain=uncertain, reserved=reserved)
            for key, (name, spent, uncertain, reserved) in sums.items()
        ]

    def mark(self, key: str, mark: str) -> bool:
        """Set a mark; True for the one who set it."""
        with self._transaction() as db:
            return db.execute("INSERT OR IGNORE INTO mark VALUES (?, ?)", (key, mark)).rowcount == 1

    def register(self, budgets: Mapping[str, str]) -> None:
        """Keep descriptions of budgets."""
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO budget VALUES (?, ?)", list(budgets.items()))

    def unregister(self, name: str) -> None:
        """Drop the description of a budget, and the limit that was set for it."""
        with self._transaction() as db:
            db.execute("DELETE FROM budget WHERE name = ?", (name,))
            db.execute("DELETE FROM own_limit WHERE name = ?", (name,))

    def registered(self) -> dict[str, str]:
        """Return the descriptions that were kept."""
        with self._transaction() as db:
            return dict(db.execute("SELECT name, description FROM budget ORDER BY name"))

    def set_limit(self, name: str, limit: int | None) -> None:
        """Put a limit in place of a budget's own; None takes it back."""
        with self._transaction() as db:
            if limit is None:
                db.execute("DELETE FROM own_limit WHERE name = ?", (name,))
            else:
                db.execute("INSERT OR REPLACE INTO own_limit VALUES (?, ?)", (name, str(limit)))

    def limits(self) -> dict[str, int]:
        """Return the limits that were set."""
        with self._transaction() as db:
            return self._own_limits(db)

    def reset(self, keys: Sequence[str]) -> None:
        """Forget what was spent on these counters."""
        with self._transaction() as db:
            for key in keys:
                db.execute("UPDATE counter SET spent = '0', uncertain = '0', resets = resets + 1 WHERE key = ?", (key,))
                db.execute("DELETE FROM mark WHERE key = ?", (key,))

    def forget(self, keys: Sequence[str]) -> None:
        """Drop these counters."""
        with self._transaction() as db:
            for key in keys:
                db.execute("DELETE FROM counter WHERE key = ?", (key,))
                db.execute("DELETE FROM mark WHERE key = ?", (key,))

    def close(self) -> None:
        """Close the file."""
        with self._lock, in_sqlite:
            self._drop()


class _Cell:
    """One row of a counter."""

    __slots__ = ("reserved", "resets", "spent", "uncertain")

    def __init__(self, spent: int = 0, uncertain: int = 0, reserved: int = 0, resets: int = 0) -> None:
        self.spent = spent
        self.uncertain = uncertain
        self.reserved = reserved
        self.resets = resets


def _cells(db: sqlite3.Connection, key: str) -> dict[int, _Cell]:
    return {
        slot: _Cell(int(spent), int(uncertain), int(reserved), resets)
        for slot, spent, uncertain, reserved, resets in db.execute(_READ, (key,))
    }


def _write(db: sqlite3.Connection, key: str, slot: int, name: str, cell: _Cell, kept_until: float | None) -> None:  # noqa: PLR0913, PLR0917 - a row
    row = key, slot, name, str(cell.spent), str(cell.uncertain), str(cell.reserved), cell.resets, kept_until
    db.execute(_WRITE, row)


def _add(db: sqlite3.Connection, key: str, slot: int, spent: int, uncertain: int, reserved: int) -> str | None:  # noqa: PLR0913, PLR0917 - a row
    """Move amounts of one row; give the budget's name, None where the row is gone."""
    found = db.execute(
        "SELECT name, spent, uncertain, reserved FROM counter WHERE key = ? AND slot = ?", (key, slot)
    ).fetchone()
    if found is None:
        return None
    name: str = found[0]
    sums = str(int(found[1]) + spent), str(int(found[2]) + uncertain), str(int(found[3]) + reserved)
    db.execute(
        "UPDATE counter SET spent = ?, uncertain = ?, reserved = ? WHERE key = ? AND slot = ?", (*sums, key, slot)
    )
    return name


def _resets(db: sqlite3.Connection, key: str, slot: int) -> int | None:
    found = db.execute("SELECT resets FROM counter WHERE key = ? AND slot = ?", (key, slot)).fetchone()
    return None if found is None else int(found[0])
