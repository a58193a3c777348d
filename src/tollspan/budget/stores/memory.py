"""Counters in the memory of this process: the fastest store; its counters are lost when the process ends."""

from __future__ import annotations

import threading
from math import inf
from typing import TYPE_CHECKING, Final

from tollspan.budget.stores import LEASE_REMEMBERED, Counter, CounterState, ReservationResult, reservable
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tollspan.budget.stores import Charge, CounterUpdate

SWEEP_EVERY: Final = 3600.0
"""Seconds between two searches for counters that may be deleted."""
MAX_NOTES: Final = 4096
"""Notes of one kind that are kept."""


class _Cell:
    """One counter: its amounts, and those of each slot of a rolling window."""

    __slots__ = ("first", "kept_until", "limit", "marks", "name", "reserved", "resets", "slots", "spent", "uncertain")

    def __init__(self, name: str) -> None:
        self.name = name
        self.limit: int | None = None
        self.resets = 0
        self.spent = 0
        self.uncertain = 0
        self.reserved = 0
        self.first = 0
        self.slots: dict[int, list[int]] | None = None  # of a rolling window: slot -> [spent, uncertain, reserved]
        self.marks: dict[str, float] = {}  # until when each is set
        self.kept_until: float | None = None

    def add(self, slot: int, spent: int, uncertain: int, reserved: int) -> None:
        """Add amounts; those of a slot that has left the window are dropped."""
        if self.slots is not None:
            if slot < self.first:
                return
            sums = self.slots.setdefault(slot, [0, 0, 0])
            sums[0] += spent
            sums[1] += uncertain
            sums[2] += reserved
        self.spent += spent
        self.uncertain += uncertain
        self.reserved += reserved

    def roll(self, first: int) -> None:
        """Drop the slots before `first`; the amounts that they have reserved move to the first slot that counts."""
        if self.slots is None:
            self.slots = {}
        self.first = max(self.first, first)
        for slot in [slot for slot in self.slots if slot < self.first]:
            spent, uncertain, reserved = self.slots.pop(slot)
            self.add(self.first, 0, 0, reserved)
            self.spent -= spent
            self.uncertain -= uncertain
            self.reserved -= reserved


class _Lease:
    """A reservation: its cells with slot and amount. `charged` has the resets of the cells at expiry; None before.

    `parts` are the parts of a batch that were settled.
    """

    __slots__ = ("cells", "charged", "parts", "until")

    def __init__(self, until: float, cells: list[tuple[_Cell, int, int]]) -> None:
        self.until = until
        self.cells = cells
        self.charged: tuple[int, ...] | None = None
        self.parts: set[str] | None = None

    def undo(self) -> None:
        """Remove the reservation or, if the lease has expired, its charge, unless that was reset since."""
        if self.charged is None:
            for cell, slot, amount in self.cells:
                cell.add(max(slot, cell.first), 0, 0, -amount)
            return
        for (cell, slot, amount), resets in zip(self.cells, self.charged, strict=True):
            if cell.resets == resets:
                cell.add(slot, -amount, -amount, 0)

    def release(self, of: _Cell, released: int) -> None:
        """Release a part of the reservation on one cell or, if the lease has expired, of its charge (see `undo`)."""
        for index, (cell, slot, amount) in enumerate(self.cells):
            if cell is not of:
                continue
            part = min(released, amount)
            self.cells[index] = cell, slot, amount - part
            if self.charged is None:
                cell.add(max(slot, cell.first), 0, 0, -part)
            elif cell.resets == self.charged[index]:
                cell.add(slot, -part, -part, 0)

    def expire(self) -> None:
        """Charge the reserved amounts."""
        self.undo()
        for cell, slot, amount in self.cells:
            cell.add(slot, amount, amount, 0)
        self.charged = tuple(cell.resets for cell, _, _ in self.cells)


class MemoryStore:
    """Counters of one process, safe for threads. A forked child starts empty."""

    remote: bool = False
    address: None = None  # another process cannot reach it
    skew: float = 0.0

    def __init__(self) -> None:
        """Start empty."""
        self._clear()
        renew_in_child(self, MemoryStore._clear)

    def _clear(self) -> None:
        self._lock = threading.RLock()  # reentrant: a finalizer may settle in the middle of a reservation
        self._cells: dict[str, _Cell] = {}
        self._leases: dict[str, _Lease] = {}
        self._next_expiry = float("inf")
        self._next_sweep = 0.0
        self._limits: dict[str, int] = {}
        self._budgets: dict[str, str] = {}
        self._notes: dict[str, dict[str, tuple[str, float]]] = {}

    def _cell(self, update: CounterUpdate) -> _Cell:
        cell = self._cells.get(update.key)
        if cell is None:
            cell = self._cells[update.key] = _Cell(update.name)
        if update.first > cell.first:
            cell.roll(update.first)
        cell.kept_until = update.kept_until
        cell.limit = update.limit
        return cell

    def _state(self, cell: _Cell) -> CounterState:
        limit = self._limits.get(cell.name, cell.limit) if self._limits else cell.limit
        return CounterState(cell.spent, cell.reserved, limit)

    def reserve(self, attempt: str, updates: Sequence[CounterUpdate], now: float, until: float) -> ReservationResult:
        """Reserve all updates, or none (see `Store`)."""
        with self._lock:
            if now >= self._next_expiry or now >= self._next_sweep:
                self._clean_up(now)
            if attempt in self._leases:
                known = tuple(self._state(self._cell(update)) for update in updates)
                return ReservationResult(None, known, tuple(update.amount for update in updates))
            cells, limits = [], []
            for index, update in enumerate(updates):
                cell, amount, limit = self._cells.get(update.key), update.amount, update.limit
                if cell is None or update.first or update.kept_until != cell.kept_until or limit != cell.limit:
                    cell = self._cell(update)
                if self._limits:
                    limit = self._limits.get(update.name, limit)
                if limit is not None and cell.spent + cell.reserved + amount > limit:
                    amount = reservable(update, CounterState(cell.spent, cell.reserved, limit))
                    if amount < 0:
                        return ReservationResult(index, tuple([self._state(self._cell(each)) for each in updates]))
                cells.append((cell, max(update.slot, cell.first), amount))  # `first` is later if the clock was set back
                limits.append(limit)
            states, amounts = [], []
            for (cell, slot, amount), limit in zip(cells, limits, strict=True):
                if cell.slots is None:
                    cell.reserved += amount
                else:
                    cell.add(slot, 0, 0, amount)
                amounts.append(amount)
                states.append(CounterState(cell.spent, cell.reserved, limit))
            self._leases[attempt] = _Lease(until, cells)
            self._next_expiry = min(self._next_expiry, until)
            return ReservationResult(None, tuple(states), tuple(amounts))

    def settle(self, attempt: str, charges: Sequence[Charge], now: float) -> tuple[CounterState, ...] | None:
        """Replace a reservation with its charges (see `Store`)."""
        with self._lock:
            if now >= self._next_expiry:
                self._clean_up(now)
            lease = self._leases.pop(attempt, None)
            if lease is None:
                return None
            slots: dict[int, int] = {}
            if lease.charged is None and len(lease.cells) == 1 and lease.cells[0][0].slots is None:
                lease.cells[0][0].reserved -= lease.cells[0][2]  # as `undo` does; most calls come here
            else:
                lease.undo()
                slots = {id(cell): slot for cell, slot, _ in lease.cells}
            states = []
            for charge in charges:
                cell = self._cells.get(charge.key)
                if cell is None:  # deleted since: there is no counter to charge
                    states.append(CounterState(0, 0, None))
                    continue
                if cell.slots is None:
                    cell.spent += charge.amount
                    cell.uncertain += charge.uncertain
                else:
                    cell.add(max(charge.slot, slots.get(id(cell), 0)), charge.amount, charge.uncertain, 0)
                limit = self._limits.get(cell.name, cell.limit) if self._limits else cell.limit
                states.append(CounterState(cell.spent, cell.reserved, limit))
            return tuple(states)

    def settle_part(
        self, attempt: str, part: str, charges: Sequence[Charge], released: Sequence[int], now: float
    ) -> tuple[CounterState, ...] | None:
        """Charge a part of an attempt, and release a part of its reservation (see `Store`)."""
        with self._lock:
            self._clean_up(now)
            lease = self._leases.get(attempt)
            if lease is None:
                return None
            lease.parts = lease.parts or set()
            if part in lease.parts:
                return ()
            lease.parts.add(part)
            slots = {id(cell): slot for cell, slot, _ in lease.cells}
            states = []
            for charge, amount in zip(charges, released, strict=True):
                cell = self._cells.get(charge.key)
                if cell is None:
                    states.append(CounterState(0, 0, None))
                    continue
                lease.release(cell, amount)
                cell.add(max(charge.slot, slots.get(id(cell), 0)), charge.amount, charge.uncertain, 0)
                states.append(self._state(cell))
            return tuple(states)

    def charge(self, updates: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Charge amounts that were not reserved."""
        with self._lock:
            self._clean_up(now)
            states = []
            for update in updates:
                cell = self._cell(update)
                cell.add(max(update.slot, cell.first), update.amount, 0, 0)
                states.append(self._state(cell))
            return tuple(states)

    def states(self, updates: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Return the state of each update's counter."""
        with self._lock:
            self._clean_up(now)
            return tuple(self._state(self._cell(update)) for update in updates)

    def _clean_up(self, now: float) -> None:
        """Charge expired leases, and delete the counters and leases that are no longer needed."""
        if now >= self._next_expiry:
            self._charge_expired(now)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_EVERY
            for key in [
                key for key, cell in self._cells.items() if cell.kept_until is not None and cell.kept_until < now
            ]:
                del self._cells[key]
            for attempt in [key for key, lease in self._leases.items() if lease.until + LEASE_REMEMBERED < now]:
                del self._leases[attempt]

    def _charge_expired(self, now: float) -> None:
        next_expiry = float("inf")
        for lease in self._leases.values():
            if lease.charged is not None:
                continue
            if lease.until <= now:
                lease.expire()
            else:
                next_expiry = min(next_expiry, lease.until)
        self._next_expiry = next_expiry

    def counters(self, now: float) -> list[Counter]:
        """Return every counter, by key."""
        with self._lock:
            self._clean_up(now)
            return [
                Counter(key=key, name=cell.name, spent=cell.spent, uncertain=cell.uncertain, reserved=cell.reserved)
                for key, cell in sorted(self._cells.items())
            ]

    def mark(self, key: str, mark: str, now: float = 0.0, until: float = inf) -> bool:
        """Set a mark, and return whether this call set it."""
        with self._lock:
            cell = self._cells.get(key)
            if cell is None:
                return False
            before = cell.marks.get(mark, -inf)
            cell.marks[mark] = max(before, until)
            return before <= now

    def unmark(self, key: str, mark: str) -> None:
        """Remove a mark."""
        with self._lock:
            if (cell := self._cells.get(key)) is not None:
                cell.marks.pop(mark, None)

    def register(self, budgets: Mapping[str, str]) -> None:
        """Store descriptions of budgets."""
        with self._lock:
            self._budgets.update(budgets)

    def unregister(self, name: str) -> None:
        """Delete the description of a budget, and the limit that was set for it."""
        with self._lock:
            self._budgets.pop(name, None)
            self._limits.pop(name, None)

    def registered(self) -> dict[str, str]:
        """Return the stored descriptions."""
        with self._lock:
            return dict(self._budgets)

    def set_limit(self, name: str, limit: int | None) -> None:
        """Override the limit of a budget; None restores the configured one."""
        with self._lock:
            if limit is None:
                self._limits.pop(name, None)
            else:
                self._limits[name] = limit

    def limits(self) -> dict[str, int]:
        """Return the limits that were set."""
        with self._lock:
            return dict(self._limits)

    def note(self, kind: str, name: str, text: str, until: float, now: float) -> None:
        """Keep a text until `until`; of too many, the oldest are dropped."""
        with self._lock:
            notes = self._notes.setdefault(kind, {})
            notes.pop(name, None)
            notes[name] = text, until
            over = [each for each, (_, end) in notes.items() if end < now]
            for known in over or list(notes)[: max(len(notes) - MAX_NOTES, 0)]:
                del notes[known]

    def noted(self, kind: str, name: str, now: float) -> str | None:
        """Return the text that is kept by this kind and name."""
        with self._lock:
            text, until = self._notes.get(kind, {}).get(name, (None, 0.0))
            return text if until >= now else None

    def notes(self, kind: str, now: float) -> dict[str, str]:
        """Return the texts of a kind by name."""
        with self._lock:
            return {name: text for name, (text, until) in self._notes.get(kind, {}).items() if until >= now}

    def reset(self, keys: Sequence[str]) -> None:
        """Clear what was spent on these counters."""
        with self._lock:
            for key in keys:
                if (cell := self._cells.get(key)) is not None:
                    cell.spent = cell.uncertain = 0
                    cell.resets += 1
                    cell.marks.clear()
                    for sums in (cell.slots or {}).values():
                        sums[0] = sums[1] = 0

    def forget(self, keys: Sequence[str]) -> None:
        """Delete these counters."""
        with self._lock:
            for key in keys:
                self._cells.pop(key, None)

    def habits(self) -> dict[str, dict[str, float]]:
        """Return nothing: what was learned is in `Habits` of this process."""
        return {}

    def learn(self, news: Mapping[str, Mapping[str, float]], now: float) -> dict[str, dict[str, float]]:  # noqa: ARG002 - as above
        """Keep nothing."""
        return {}

    def close(self) -> None:
        """Do nothing: there is nothing to close."""
