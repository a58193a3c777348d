"""Counters in this process's memory: the fastest store, gone when the process ends."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from tollspan.budget.stores import REMEMBERED, Counter, CounterState, Verdict, fitting
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tollspan.budget.stores import Charge, CounterUpdate

SWEEP_EVERY: Final = 3600.0
"""Seconds between two searches for counters that may be forgotten."""


class _Cell:
    """One counter. Money moves between its fields and never leaves them."""

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
        self.marks: set[str] = set()
        self.kept_until: float | None = None

    def add(self, slot: int, spent: int, uncertain: int, reserved: int) -> None:
        """Move amounts; what belongs to a slot that has rolled out of the window is dropped."""
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
        """Drop the slots before `first`; what they still had reserved moves to the first slot that counts."""
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
    """A reservation; `charged` has the cells' resets when it ended, and None before."""

    __slots__ = ("charged", "lines", "until")

    def __init__(self, until: float, lines: list[tuple[_Cell, int, int]]) -> None:
        self.until = until
        self.lines = lines
        self.charged: tuple[int, ...] | None = None

    def take_back(self) -> None:
        """Undo the reservation, or, where the lease has ended, what was charged for it and not reset since."""
        if self.charged is None:
            for cell, slot, amount in self.lines:
                cell.add(max(slot, cell.first), 0, 0, -amount)
            return
        for (cell, slot, amount), resets in zip(self.lines, self.charged, strict=True):
            if cell.resets == resets:
                cell.add(slot, -amount, -amount, 0)

    def end(self) -> None:
        """Charge what is reserved."""
        self.take_back()
        for cell, slot, amount in self.lines:
            cell.add(slot, amount, amount, 0)
        self.charged = tuple(cell.resets for cell, _, _ in self.lines)


class MemoryStore:
    """Counters of one process, safe under threads; a forked child starts empty."""

    remote: bool = False

    def __init__(self) -> None:
        """Start empty."""
        self._fresh()
        renew_in_child(self, MemoryStore._fresh)

    def _fresh(self) -> None:
        self._lock = threading.RLock()  # reentrant: a finalizer may settle in the middle of a reservation
        self._cells: dict[str, _Cell] = {}
        self._leases: dict[str, _Lease] = {}
        self._ends = float("inf")
        self._sweep_at = 0.0
        self._limits: dict[str, int] = {}
        self._budgets: dict[str, str] = {}

    def _cell(self, line: CounterUpdate) -> _Cell:
        cell = self._cells.get(line.key)
        if cell is None:
            cell = self._cells[line.key] = _Cell(line.name)
        if line.first > cell.first:
            cell.roll(line.first)
        cell.kept_until = line.kept_until
        cell.limit = line.limit
        return cell

    def _level(self, cell: _Cell) -> CounterState:
        limit = self._limits.get(cell.name, cell.limit) if self._limits else cell.limit
        return CounterState(cell.spent, cell.reserved, limit)

    def reserve(self, attempt: str, lines: Sequence[CounterUpdate], now: float, until: float) -> Verdict:
        """Reserve all lines, or none (see `Store`)."""
        with self._lock:
            if now >= self._ends or now >= self._sweep_at:
                self._tidy(now)
            if attempt in self._leases:
                known = tuple(self._level(self._cell(line)) for line in lines)
                return Verdict(None, known, tuple(line.amount for line in lines))
            kept, limits = [], []
            for index, line in enumerate(lines):
                cell, amount, limit = self._cells.get(line.key), line.amount, line.limit
                if cell is None or line.first or line.kept_until != cell.kept_until or limit != cell.limit:
                    cell = self._cell(line)
                if self._limits:
                    limit = self._limits.get(line.name, limit)
                if limit is not None and cell.spent + cell.reserved + amount > limit:
                    amount = fitting(line, CounterState(cell.spent, cell.reserved, limit))
                    if amount < 0:
                        return Verdict(index, tuple([self._level(self._cell(each)) for each in lines]))
                kept.append((cell, max(line.slot, cell.first), amount))  # before it where the clock was set back
                limits.append(limit)
            levels, amounts = [], []
            for (cell, slot, amount), limit in zip(kept, limits, strict=True):
                if cell.slots is None:
                    cell.reserved += amount
                else:
                    cell.add(slot, 0, 0, amount)
                amounts.append(amount)
                levels.append(CounterState(cell.spent, cell.reserved, limit))
            self._leases[attempt] = _Lease(until, kept)
            self._ends = min(self._ends, until)
            return Verdict(None, tuple(levels), tuple(amounts))

    def settle(self, attempt: str, charges: Sequence[Charge], now: float) -> tuple[CounterState, ...] | None:
        """Replace a reservation with what was really spent (see `Store`)."""
        with self._lock:
            if now >= self._ends:
                self._tidy(now)
            lease = self._leases.pop(attempt, None)
            if lease is None:
                return None
            slots: dict[int, int] = {}
            if lease.charged is None and len(lease.lines) == 1 and lease.lines[0][0].slots is None:
                lease.lines[0][0].reserved -= lease.lines[0][2]  # as `take_back`, which most calls need not be
            else:
                lease.take_back()
                slots = {id(cell): slot for cell, slot, _ in lease.lines}
            levels = []
            for charge in charges:
                cell = self._cells.get(charge.key)
                if cell is None:  # dropped since: there is nothing left to count on
                    levels.append(CounterState(0, 0, None))
                    continue
                if cell.slots is None:
                    cell.spent += charge.amount
                    cell.uncertain += charge.uncertain
                else:
                    cell.add(max(charge.slot, slots.get(id(cell), 0)), charge.amount, charge.uncertain, 0)
                limit = self._limits.get(cell.name, cell.limit) if self._limits else cell.limit
                levels.append(CounterState(cell.spent, cell.reserved, limit))
            return tuple(levels)

    def charge(self, lines: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Add amounts that nothing was reserved for."""
        with self._lock:
            self._tidy(now)
            levels = []
            for line in lines:
                cell = self._cell(line)
                cell.add(max(line.slot, cell.first), line.amount, 0, 0)
                levels.append(self._level(cell))
            return tuple(levels)

    def levels(self, lines: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Return how full counters are."""
        with self._lock:
            self._tidy(now)
            return tuple(self._level(self._cell(line)) for line in lines)

    def _tidy(self, now: float) -> None:
        """Charge the leases that have ended, and forget what may be forgotten."""
        if now >= self._ends:
            self._charge_ended(now)
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_EVERY
            for key in [
                key for key, cell in self._cells.items() if cell.kept_until is not None and cell.kept_until < now
            ]:
                del self._cells[key]
            for attempt in [key for key, lease in self._leases.items() if lease.until + REMEMBERED < now]:
                del self._leases[attempt]

    def _charge_ended(self, now: float) -> None:
        ends = float("inf")
        for lease in self._leases.values():
            if lease.charged is not None:
                continue
            if lease.until <= now:
                lease.end()
            else:
                ends = min(ends, lease.until)
        self._ends = ends

    def counters(self, now: float) -> list[Counter]:
        """Return every counter, by key."""
        with self._lock:
            self._tidy(now)
            return [
                Counter(key=key, name=cell.name, spent=cell.spent, uncertain=cell.uncertain, reserved=cell.reserved)
                for key, cell in sorted(self._cells.items())
            ]

    def mark(self, key: str, mark: str) -> bool:
        """Set a mark; True for the one who set it."""
        with self._lock:
            cell = self._cells.get(key)
            if cell is None or mark in cell.marks:
                return False
            cell.marks.add(mark)
            return True

    def register(self, budgets: Mapping[str, str]) -> None:
        """Keep descriptions of budgets."""
        with self._lock:
            self._budgets.update(budgets)

    def unregister(self, name: str) -> None:
        """Drop the description of a budget, and the limit that was set for it."""
        with self._lock:
            self._budgets.pop(name, None)
            self._limits.pop(name, None)

    def registered(self) -> dict[str, str]:
        """Return the descriptions that were kept."""
        with self._lock:
            return dict(self._budgets)

    def set_limit(self, name: str, limit: int | None) -> None:
        """Put a limit in place of a budget's own; None takes it back."""
        with self._lock:
            if limit is None:
                self._limits.pop(name, None)
            else:
                self._limits[name] = limit

    def limits(self) -> dict[str, int]:
        """Return the limits that were set."""
        with self._lock:
            return dict(self._limits)

    def reset(self, keys: Sequence[str]) -> None:
        """Forget what was spent on these counters."""
        with self._lock:
            for key in keys:
                if (cell := self._cells.get(key)) is not None:
                    cell.spent = cell.uncertain = 0
                    cell.resets += 1
                    cell.marks.clear()
                    for sums in (cell.slots or {}).values():
                        sums[0] = sums[1] = 0

    def forget(self, keys: Sequence[str]) -> None:
        """Drop these counters."""
        with self._lock:
            for key in keys:
                self._cells.pop(key, None)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""
