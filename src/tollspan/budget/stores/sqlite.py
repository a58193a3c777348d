"""Counters in a SQLite file: the processes of one machine share them, and they outlive the processes.

The largest SQLite integer is 9.2 dollars in atto-dollars. Amounts are therefore stored as decimal text and added up in
Python, inside a transaction that holds the file's write lock: they are exact, whatever their size.
"""

from __future__ import annotations

import json
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

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
from tollspan.budget.stores.sqlite_watch import SqliteWatch
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tollspan.budget.stores import Charge, CounterUpdate

Result = TypeVar("Result")

DEADLINE: Final = 0.5
"""Seconds that an operation waits for the locks of other processes."""
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
    skew: float = 0.0

    @property
    def address(self) -> str:
        """Return what `--store` has to name (see `Store`); empty for the default file."""
        path = self._file.path
        return "" if path == default_path() else f"sqlite:{path.absolute()}"

    def __init__(self, path: Path | str, deadline: float = DEADLINE) -> None:
        """Count in the file at `path`, created when it is first needed; wait `deadline` seconds for its lock."""
        self._file = CounterFile(Path(path), deadline)
        self._clear()
        renew_in_child(self, SqliteStore._clear)

    def _clear(self) -> None:
        self._next_sweep = 0.0

    def _run(self, now: float, operation: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run an operation that begins by charging the expired leases."""

        def charging_leases(db: sqlite3.Connection) -> Result:
            _charge_expired(db, now)
            return operation(db)

        return self._file.run(charging_leases)

    def watch(self) -> SqliteWatch:
        """Return a watch of the file. Raises StoreError."""
        return SqliteWatch(self._file.path)

    def reserve(self, attempt: str, updates: Sequence[CounterUpdate], now: float, until: float) -> ReservationResult:
        """Reserve all updates, or none (see `Store`)."""

        def reserve(db: sqlite3.Connection) -> ReservationResult:
            result = _reserve_all(db, attempt, updates, until)
            self._sweep(db, now)
            return result

        return self._run(now, reserve)

    def settle(self, attempt: str, charges: Sequence[Charge], now: float) -> tuple[CounterState, ...] | None:
        """Replace a reservation with its charges (see `Store`)."""
        return self._run(now, lambda db: _settle(db, attempt, charges))

    def settle_part(
        self, attempt: str, part: str, charges: Sequence[Charge], released: Sequence[int], now: float
    ) -> tuple[CounterState, ...] | None:
        """Charge a part of an attempt, and release a part of its reservation (see `Store`)."""
        return self._run(now, lambda db: _settle_part(db, attempt, part, charges, released, now))

    def charge(self, updates: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Charge amounts that were not reserved."""
        return self._run(now, lambda db: _charge_all(db, updates))

    def states(self, updates: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Return the state of each update's counter."""

        def states(db: sqlite3.Connection) -> tuple[CounterState, ...]:
            limits = _limits(db)
            return tuple(_state(db, update, limits)[0] for update in updates)

        return self._run(now, states)

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
        query = "SELECT key, name, spent, uncertain, reserved FROM counter ORDER BY key"
        sums: dict[str, list[Any]] = {}
        for key, name, spent, uncertain, reserved in self._run(now, lambda db: db.execute(query).fetchall()):
            row = sums.setdefault(key, [name, 0, 0, 0])
            row[1] += int(spent)
            row[2] += int(uncertain)
            row[3] += int(reserved)
        return [
            Counter(key=key, name=name, spent=spent, uncertain=uncertain, reserved=reserved)
            for key, (name, spent, uncertain, reserved) in sums.items()
        ]

    def mark(self, key: str, mark: str, now: float = 0.0, until: float = inf) -> bool:
        """Set a mark, and return whether this call set it."""
        return self._file.run(lambda db: _mark(db, key, mark, now, until))

    def unmark(self, key: str, mark: str) -> None:
        """Remove a mark."""
        self._file.run(lambda db: _unmark(db, key, mark))

    def register(self, budgets: Mapping[str, str]) -> None:
        """Store descriptions of budgets."""
        rows = list(budgets.items())
        self._file.run(lambda db: db.executemany("INSERT OR REPLACE INTO budget VALUES (?, ?)", rows))

    def unregister(self, name: str) -> None:
        """Delete the description of a budget, and the limit that was set for it."""

        def delete(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM budget WHERE name = ?", (name,))
            db.execute("DELETE FROM own_limit WHERE name = ?", (name,))

        self._file.run(delete)

    def registered(self) -> dict[str, str]:
        """Return the stored descriptions."""
        return self._file.run(lambda db: dict(db.execute("SELECT name, description FROM budget ORDER BY name")))

    def set_limit(self, name: str, limit: int | None) -> None:
        """Override the limit of a budget; None restores the configured one."""
        if limit is None:
            self._file.run(lambda db: db.execute("DELETE FROM own_limit WHERE name = ?", (name,)))
        else:
            self._file.run(lambda db: db.execute("INSERT OR REPLACE INTO own_limit VALUES (?, ?)", (name, str(limit))))

    def limits(self) -> dict[str, int]:
        """Return the limits that were set."""
        return self._file.run(_limits)

    def note(self, kind: str, name: str, text: str, until: float, now: float) -> None:
        """Keep a text until `until`."""
        self._file.run(lambda db: sqlite_notes.keep(db, kind, name, text, until, now))

    def noted(self, kind: str, name: str, now: float) -> str | None:
        """Return the text that is kept by this kind and name."""
        return self.notes(kind, now, name).get(name)

    def notes(self, kind: str, now: float, name: str | None = None) -> dict[str, str]:
        """Return the texts of a kind by name; with a `name`, only that one."""
        return self._file.run(lambda db: sqlite_notes.read(db, kind, now, name))

    def reset(self, keys: Sequence[str]) -> None:
        """Clear what was spent on these counters."""

        def reset(db: sqlite3.Connection) -> None:
            for key in keys:
                db.execute("UPDATE counter SET spent = '0', uncertain = '0', resets = resets + 1 WHERE key = ?", (key,))
                db.execute("DELETE FROM mark WHERE key = ?", (key,))

        self._file.run(reset)

    def forget(self, keys: Sequence[str]) -> None:
        """Delete these counters."""

        def forget(db: sqlite3.Connection) -> None:
            for key in keys:
                db.execute("DELETE FROM counter WHERE key = ?", (key,))
                db.execute("DELETE FROM mark WHERE key = ?", (key,))

        self._file.run(forget)

    def habits(self) -> dict[str, dict[str, float]]:
        """Return what was learned of calls."""
        return self._file.run(sqlite_habits.read)

    def learn(self, news: Mapping[str, Mapping[str, float]], now: float) -> dict[str, dict[str, float]]:
        """Add to what was learned of calls (see `Store`)."""
        return self._file.run(lambda db: sqlite_habits.merge(db, news, now))

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


def _reserve_all(
    db: sqlite3.Connection, attempt: str, updates: Sequence[CounterUpdate], until: float
) -> ReservationResult:
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
    after = [CounterState(s, r + amount, limit) for (s, r, limit), amount in zip(states, amounts, strict=True)]
    return ReservationResult(None, tuple(after), tuple(amounts))


def _settle(db: sqlite3.Connection, attempt: str, charges: Sequence[Charge]) -> tuple[CounterState, ...] | None:
    row = db.execute("SELECT ended, lines FROM lease WHERE attempt = ?", (attempt,)).fetchone()
    if row is None:
        return None
    db.execute("DELETE FROM lease WHERE attempt = ?", (attempt,))
    released = [(counter, int(counter[2])) for counter in json.loads(row[1])]
    return _release_and_charge(db, released, charges, expired=bool(row[0]))


def _settle_part(  # noqa: PLR0913, PLR0917 - one part of one attempt
    db: sqlite3.Connection,
    attempt: str,
    part: str,
    charges: Sequence[Charge],
    released: Sequence[int],
    now: float,
) -> tuple[CounterState, ...] | None:
    row = db.execute("SELECT ended, lines FROM lease WHERE attempt = ?", (attempt,)).fetchone()
    if row is None:
        return None
    if not sqlite_notes.is_new_part(db, f"{attempt} {part}", now):
        return ()
    leased = json.loads(row[1])
    wanted = {charge.key: amount for charge, amount in zip(charges, released, strict=True)}
    amounts = [(counter, min(wanted.get(counter[0], 0), int(counter[2]))) for counter in leased]
    for counter, amount in amounts:
        counter[2] = str(int(counter[2]) - amount)
    db.execute("UPDATE lease SET lines = ? WHERE attempt = ?", (json.dumps(leased), attempt))
    return _release_and_charge(db, amounts, charges, expired=bool(row[0]))


def _release_and_charge(
    db: sqlite3.Connection, released: Iterable[tuple[list[Any], int]], charges: Sequence[Charge], *, expired: bool
) -> tuple[CounterState, ...]:
    """Take amounts out of what a lease has reserved or, if it has expired, was charged; and charge others."""
    changes: dict[tuple[str, int], list[int]] = {}  # of one row: spent, uncertain, reserved
    for counter, amount in released:
        key, slot = counter[0], counter[1]
        change = changes.setdefault((key, slot), [0, 0, 0])
        if not expired:
            change[2] -= amount
        elif counter[3] == _resets(db, key, slot):
            change[0] -= amount
            change[1] -= amount
    for charge in charges:
        change = changes.setdefault((charge.key, charge.slot), [0, 0, 0])
        change[0] += charge.amount
        change[1] += charge.uncertain
    rows = {row: _add(db, *row, *amounts) for row, amounts in changes.items()}
    limits = _limits(db)
    return tuple(_charged(db, charge, rows[charge.key, charge.slot], limits) for charge in charges)


def _charge_all(db: sqlite3.Connection, updates: Sequence[CounterUpdate]) -> tuple[CounterState, ...]:
    limits = _limits(db)
    states = []
    for update in updates:
        state, slots = _state(db, update, limits)
        row = slots.get(update.slot) or _Row()
        row.spent += update.amount
        _write(db, update, row)
        states.append(state._replace(spent=state.spent + update.amount))
    return tuple(states)


def _mark(db: sqlite3.Connection, key: str, mark: str, now: float, until: float) -> bool:
    """Set a mark. One that is not set forever has its time behind it: `0.8?1790000000.0`."""
    marks = [text for (text,) in db.execute("SELECT mark FROM mark WHERE key = ?", (key,))]
    if mark in marks:
        return False
    before = max((float(text.rpartition("?")[2]) for text in marks if text.startswith(f"{mark}?")), default=-inf)
    _unmark(db, key, mark)
    text = mark if until == inf else f"{mark}?{max(before, until)!r}"
    db.execute("INSERT INTO mark VALUES (?, ?)", (key, text))
    return before <= now


def _unmark(db: sqlite3.Connection, key: str, mark: str) -> None:
    db.execute(
        "DELETE FROM mark WHERE key = ? AND (mark = ? OR substr(mark, 1, ?) = ?)",
        (key, mark, len(mark) + 1, f"{mark}?"),
    )


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


class _Changed(NamedTuple):
    """The amounts of a row after a change, and its budget."""

    name: str
    spent: int
    reserved: int


def _add(db: sqlite3.Connection, key: str, slot: int, spent: int, uncertain: int, reserved: int) -> _Changed | None:  # noqa: PLR0913, PLR0917 - a row
    """Add amounts to one row, and return the row; None if there is no such row."""
    row = db.execute(
        "SELECT name, spent, uncertain, reserved FROM counter WHERE key = ? AND slot = ?", (key, slot)
    ).fetchone()
    if row is None:
        return None
    changed = _Changed(row[0], int(row[1]) + spent, int(row[3]) + reserved)
    sums = str(changed.spent), str(int(row[2]) + uncertain), str(changed.reserved)
    db.execute(
        "UPDATE counter SET spent = ?, uncertain = ?, reserved = ? WHERE key = ? AND slot = ?", (*sums, key, slot)
    )
    return changed


def _charged(
    db: sqlite3.Connection, charge: Charge, changed: _Changed | None, limits: Mapping[str, int]
) -> CounterState:
    """Return the state of a counter after a charge to one of its rows."""
    limit = None if changed is None else limits.get(changed.name)
    if changed is not None and not charge.slot:  # not a rolling window: it has no other row
        return CounterState(changed.spent, changed.reserved, limit)
    rows = _rows(db, charge.key).values()
    return CounterState(sum(row.spent for row in rows), sum(row.reserved for row in rows), limit)


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
