"""Counters in a SQLite file: the processes of one machine share them, and they outlive the processes.

The largest SQLite integer is 9.2 dollars in atto-dollars. Amounts are therefore stored as decimal text and added up in
Python, inside a transaction that holds the file's write lock: they are exact, whatever their size.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.stores import (
    LEASE_REMEMBERED,
    Counter,
    CounterState,
    ReservationResult,
    reservable,
    sqlite_habits,
    sqlite_notes,
)
from tollspan.budget.stores.sqlite_file import CounterFile
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

    from tollspan.budget.stores import Charge, CounterUpdate

DEADLINE: Final = 0.5
"""Seconds that an operation waits for locks."""
SWEEP_EVERY: Final = 3600.0
"""Seconds between two searches for rows that may be deleted."""

_READ: Final = "SELECT slot, spent, uncertain, reserved, resets FROM counter WHERE key = ?"
_WRITE: Final = (
    "INSERT INTO counter VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key, slot) DO UPDATE SET spent = excluded.spent, "
    "uncertain = excluded.uncertain, reserved = excluded.reserved, resets = excluded.resets, "
    "kept_until = excluded.kept_until"
)


def default_path() -> Path:
    """Return the path of the budgets' file in the user's state directory."""
    from tollspan.settings import state_folder

    return state_folder() / "budgets.sqlite"


class SqliteStore:
    """Counters in one file, safe for threads, processes and forks."""

    remote: bool = False

    def __init__(self, path: Path | str, deadline: float = DEADLINE) -> None:
        """Count in the file at `path`, created when it is first needed; wait at most `deadline` seconds for a lock."""
        self._file = CounterFile(Path(path), deadline)
        self._clear()
        renew_in_child(self, SqliteStore._clear)

    def _clear(self) -> None:
        self._next_sweep = 0.0

    @contextmanager
    def _charging_leases(self, now: float) -> Iterator[sqlite3.Connection]:
        """Open a transaction that begins by charging the expired leases."""
        with self._file.transaction() as db:
            _charge_expired(db, now)
            yield db

    def reserve(self, attempt: str, updates: Sequence[CounterUpdate], now: float, until: float) -> ReservationResult:
        """Reserve all updates, or none (see `Store`)."""
        with self._charging_leases(now) as db:
            limits = _limits(db)
            counters = [_state(db, update, limits) for update in updates]
            states = [state for state, _ in counters]
            if db.execute("SELECT 1 FROM lease WHERE attempt = ?", (attempt,)).fetchone():
                return ReservationResult(None, tuple(states), tuple(update.amount for update in updates))
            amounts = [reservable(update, state) for update, state in zip(updates, states, strict=True)]
            if -1 in amounts:
                return ReservationResult(amounts.index(-1), tuple(states))
            for update, amount, (_, slots) in zip(updates, amounts, counters, strict=True):
                _reserve(db, update, amount, slots)
            leased = [(update.key, update.slot, str(amount)) for update, amount in zip(updates, amounts, strict=True)]
            db.execute("INSERT INTO lease VALUES (?, ?, 0, ?)", (attempt, until, json.dumps(leased)))
            self._sweep(db, now)
            after = [CounterState(s, r + amount, limit) for (s, r, limit), amount in zip(states, amounts, strict=True)]
            return ReservationResult(None, tuple(after), tuple(amounts))

    def settle(self, attempt: str, charges: Sequence[Charge], now: float) -> tuple[CounterState, ...] | None:
        """Replace a reservation with its charges (see `Store`)."""
        with self._charging_leases(now) as db:
            row = db.execute("SELECT ended, lines FROM lease WHERE attempt = ?", (attempt,)).fetchone()
            if row is None:
                return None
            db.execute("DELETE FROM lease WHERE attempt = ?", (attempt,))
            expired, leased = row
            for counter in json.loads(leased):
                key, slot, amount = counter[0], counter[1], int(counter[2])
                if not expired:
                    _add(db, key, slot, 0, 0, -amount)
                elif counter[3] == _resets(db, key, slot):
                    _add(db, key, slot, -amount, -amount, 0)
            limits = _limits(db)
            return tuple(_charge(db, charge, limits) for charge in charges)

    def settle_part(
        self, attempt: str, part: str, charges: Sequence[Charge], released: Sequence[int], now: float
    ) -> tuple[CounterState, ...] | None:
        """Charge a part of an attempt, and release a part of its reservation (see `Store`)."""
        with self._charging_leases(now) as db:
            row = db.execute("SELECT ended, lines FROM lease WHERE attempt = ?", (attempt,)).fetchone()
            if row is None:
                return None
            if not sqlite_notes.is_new_part(db, f"{attempt} {part}", now):
                return ()
            expired, leased = row[0], json.loads(row[1])
            parts = {charge.key: amount for charge, amount in zip(charges, released, strict=True)}
            for counter in leased:
                key, slot, left = counter[0], counter[1], int(counter[2])
                amount = min(parts.get(key, 0), left)
                counter[2] = str(left - amount)
                if not expired:
                    _add(db, key, slot, 0, 0, -amount)
                elif counter[3] == _resets(db, key, slot):
                    _add(db, key, slot, -amount, -amount, 0)
            db.execute("UPDATE lease SET lines = ? WHERE attempt = ?", (json.dumps(leased), attempt))
            limits = _limits(db)
            return tuple(_charge(db, charge, limits) for charge in charges)

    def charge(self, updates: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Charge amounts that were not reserved."""
        with self._charging_leases(now) as db:
            limits = _limits(db)
            states = []
            for update in updates:
                state, slots = _state(db, update, limits)
                row = slots.get(update.slot) or _Row()
                row.spent += update.amount
                _write(db, update, row)
                states.append(state._replace(spent=state.spent + update.amount))
            return tuple(states)

    def states(self, updates: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Return the state of each update's counter."""
        with self._charging_leases(now) as db:
            limits = _limits(db)
            return tuple(_state(db, update, limits)[0] for update in updates)

    def _sweep(self, db: sqlite3.Connection, now: float) -> None:
        """Delete, once an hour, the rows that are no longer needed."""
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_EVERY
        db.execute("DELETE FROM lease WHERE ended = 1 AND until < ?", (now - LEASE_REMEMBERED,))
        db.execute("DELETE FROM counter WHERE kept_until < ?", (now,))
        db.execute("DELETE FROM mark WHERE key NOT IN (SELECT key FROM counter)")

    def counters(self, now: float) -> list[Counter]:
        """Return every counter, by key."""
        with self._charging_leases(now) as db:
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
        """Set a mark, and return whether this call set it."""
        with self._file.transaction() as db:
            return db.execute("INSERT OR IGNORE INTO mark VALUES (?, ?)", (key, mark)).rowcount == 1

    def register(self, budgets: Mapping[str, str]) -> None:
        """Store descriptions of budgets."""
        with self._file.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO budget VALUES (?, ?)", list(budgets.items()))

    def unregister(self, name: str) -> None:
        """Delete the description of a budget, and the limit that was set for it."""
        with self._file.transaction() as db:
            db.execute("DELETE FROM budget WHERE name = ?", (name,))
            db.execute("DELETE FROM own_limit WHERE name = ?", (name,))

    def registered(self) -> dict[str, str]:
        """Return the stored descriptions."""
        with self._file.transaction() as db:
            return dict(db.execute("SELECT name, description FROM budget ORDER BY name"))

    def set_limit(self, name: str, limit: int | None) -> None:
        """Override the limit of a budget; None restores the configured one."""
        with self._file.transaction() as db:
            if limit is None:
                db.execute("DELETE FROM own_limit WHERE name = ?", (name,))
            else:
                db.execute("INSERT OR REPLACE INTO own_limit VALUES (?, ?)", (name, str(limit)))

    def limits(self) -> dict[str, int]:
        """Return the limits that were set."""
        with self._file.transaction() as db:
            return _limits(db)

    def note(self, kind: str, name: str, text: str, until: float, now: float) -> None:
        """Keep a text until `until`."""
        with self._file.transaction() as db:
            sqlite_notes.keep(db, kind, name, text, until, now)

    def noted(self, kind: str, name: str, now: float) -> str | None:
        """Return the text that is kept by this kind and name."""
        return self.notes(kind, now, name).get(name)

    def notes(self, kind: str, now: float, name: str | None = None) -> dict[str, str]:
        """Return the texts of a kind by name; with a `name`, only that one."""
        with self._file.transaction() as db:
            return sqlite_notes.read(db, kind, now, name)

    def reset(self, keys: Sequence[str]) -> None:
        """Clear what was spent on these counters."""
        with self._file.transaction() as db:
            for key in keys:
                db.execute("UPDATE counter SET spent = '0', uncertain = '0', resets = resets + 1 WHERE key = ?", (key,))
                db.execute("DELETE FROM mark WHERE key = ?", (key,))

    def forget(self, keys: Sequence[str]) -> None:
        """Delete these counters."""
        with self._file.transaction() as db:
            for key in keys:
                db.execute("DELETE FROM counter WHERE key = ?", (key,))
                db.execute("DELETE FROM mark WHERE key = ?", (key,))

    def habits(self) -> dict[str, dict[str, float]]:
        """Return what was learned of calls."""
        with self._file.transaction() as db:
            return sqlite_habits.read(db)

    def learn(self, news: Mapping[str, Mapping[str, float]], now: float) -> dict[str, dict[str, float]]:
        """Add to what was learned of calls (see `Store`)."""
        with self._file.transaction() as db:
            return sqlite_habits.merge(db, news, now)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Row:
    """One row of a counter: the amounts of one slot."""

    __slots__ = ("reserved", "resets", "spent", "uncertain")

    def __init__(self, spent: int = 0, uncertain: int = 0, reserved: int = 0, resets: int = 0) -> None:
        self.spent = spent
        self.uncertain = uncertain
        self.reserved = reserved
        self.resets = resets


def _rows(db: sqlite3.Connection, key: str) -> dict[int, _Row]:
    """Return a counter's rows by slot."""
    return {
        slot: _Row(int(spent), int(uncertain), int(reserved), resets)
        for slot, spent, uncertain, reserved, resets in db.execute(_READ, (key,))
    }


def _limits(db: sqlite3.Connection) -> dict[str, int]:
    return {name: int(amount) for name, amount in db.execute("SELECT name, amount FROM own_limit")}


def _state(
    db: sqlite3.Connection, update: CounterUpdate, limits: Mapping[str, int]
) -> tuple[CounterState, dict[int, _Row]]:
    """Return the state of an update's counter, and its rows by slot."""
    rows = _rows(db, update.key)
    spent = sum(row.spent for slot, row in rows.items() if slot >= update.first)
    reserved = sum(row.reserved for row in rows.values())  # also before `first`: those calls are still under way
    return CounterState(spent, reserved, limits.get(update.name, update.limit)), rows


def _write(db: sqlite3.Connection, update: CounterUpdate, row: _Row) -> None:
    amounts = str(row.spent), str(row.uncertain), str(row.reserved)
    db.execute(_WRITE, (update.key, update.slot, update.name, *amounts, row.resets, update.kept_until))


def _reserve(db: sqlite3.Connection, update: CounterUpdate, amount: int, rows: Mapping[int, _Row]) -> None:
    row = rows.get(update.slot) or _Row(resets=max((each.resets for each in rows.values()), default=0))
    row.reserved += amount
    _write(db, update, row)
    if update.first:  # drop the slots that have left the window
        outdated = "DELETE FROM counter WHERE key = ? AND slot < ? AND reserved = '0'"
        db.execute(outdated, (update.key, update.first))


def _add(db: sqlite3.Connection, key: str, slot: int, spent: int, uncertain: int, reserved: int) -> str | None:  # noqa: PLR0913, PLR0917 - a row
    """Add amounts to one row, and return the budget's name; None if there is no such row."""
    row = db.execute(
        "SELECT name, spent, uncertain, reserved FROM counter WHERE key = ? AND slot = ?", (key, slot)
    ).fetchone()
    if row is None:
        return None
    name: str = row[0]
    sums = str(int(row[1]) + spent), str(int(row[2]) + uncertain), str(int(row[3]) + reserved)
    db.execute(
        "UPDATE counter SET spent = ?, uncertain = ?, reserved = ? WHERE key = ? AND slot = ?", (*sums, key, slot)
    )
    return name


def _charge(db: sqlite3.Connection, charge: Charge, limits: Mapping[str, int]) -> CounterState:
    name = _add(db, charge.key, charge.slot, charge.amount, charge.uncertain, 0)
    rows = _rows(db, charge.key).values()
    return CounterState(sum(r.spent for r in rows), sum(r.reserved for r in rows), limits.get(name or ""))


def _charge_expired(db: sqlite3.Connection, now: float) -> None:
    """Charge the leases that have expired."""
    expired = db.execute("SELECT attempt, lines FROM lease WHERE ended = 0 AND until <= ?", (now,)).fetchall()
    for attempt, leased in expired:
        charged = []
        for key, slot, text in json.loads(leased):
            amount = int(text)
            _add(db, key, slot, amount, amount, -amount)
            charged.append((key, slot, text, _resets(db, key, slot)))
        db.execute("UPDATE lease SET ended = 1, lines = ? WHERE attempt = ?", (json.dumps(charged), attempt))


def _resets(db: sqlite3.Connection, key: str, slot: int) -> int | None:
    row = db.execute("SELECT resets FROM counter WHERE key = ? AND slot = ?", (key, slot)).fetchone()
    return None if row is None else int(row[0])
