"""Where budgets keep their counters: one protocol, and what goes in and out of it.

Amounts are whole numbers: atto-dollars, tokens or calls. Every store keeps them exactly, whatever its own integers can
hold: SQLite and Redis keep them as decimal text. A store has no clock: moments are Unix seconds, passed in.

The rules that all stores keep, and one set of tests checks:

- `reserve` is all or nothing: it reserves each line's amount, or, where any line's limit would be passed, nothing.
- A reservation is a lease. When it has ended unsettled, its amount is spent, for the call may have been made: it moves
  from reserved to spent, and to `uncertain` besides. Every operation moves the ended leases first.
- `settle` puts what was really spent in the place of the reservation, in the period it was reserved in. It counts once
  per attempt, also when the lease has ended before.
- `reset` forgets what was spent, and keeps what is reserved: those calls are under way and will be charged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from tollspan.budget.policy.enforcement import FIT, HARD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REMEMBERED: Final = 86_400.0
"""Seconds that an ended lease is remembered, so that a call that ends later can still be settled with its real cost."""


class CounterUpdate(NamedTuple):
    """What one call does to one counter.

    `key` names the counter: budget, period and the values of its `per` keys. `slot` is where the call counts, `first`
    the oldest slot that still does. `limit` holds unless the store has another one for `name`; None = no limit. `mode`
    says what happens where the amount does not fit: see `HARD`, `SOFT`, `FIT`. `kept_until`: when the counter may be
    forgotten.
    """

    key: str
    name: str
    amount: int
    limit: int | None
    mode: int = 0
    slot: int = 0
    first: int = 0
    kept_until: float | None = None


class Charge(NamedTuple):
    """What a call really cost one counter; `uncertain` is how much of it was charged without being known."""

    key: str
    slot: int
    amount: int
    uncertain: int = 0


class CounterState(NamedTuple):
    """How full a counter is. `limit` is the one in force; None = no limit."""

    spent: int
    reserved: int
    limit: int | None

    @property
    def left(self) -> int | None:
        """Return what can still be reserved, never below zero; None = no limit."""
        return None if self.limit is None else max(self.limit - self.spent - self.reserved, 0)

    @property
    def unspent(self) -> int | None:
        """Return what is not spent yet, reserved or not, never below zero; None = no limit."""
        return None if self.limit is None else max(self.limit - self.spent, 0)


class Verdict(NamedTuple):
    """What became of a reservation: `refused` is the index of the line that did not fit, None = all are reserved.

    `levels` are those of all lines: after the reservation, or where it was refused, as they stand. `amounts` are what
    was reserved, line by line.
    """

    refused: int | None
    levels: tuple[CounterState, ...]
    amounts: tuple[int, ...] = ()


def fitting(line: CounterUpdate, level: CounterState) -> int:
    """Return what may be reserved of a line; -1 = it is refused."""
    mode = line.mode
    spent, reserved, limit = level
    if limit is None or spent + reserved + line.amount <= limit:
        return line.amount
    if mode == HARD:
        return -1
    if mode == FIT:
        left = limit - spent - reserved
        return left if left > 0 else -1
    return line.amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """One counter as a status shows it. `slots` of rolling windows are summed up by `Store.counters`.

    `as_of`: the moment that the figures are of, in Unix seconds, where the store has them late; None = now.
    """

    key: str
    name: str
    spent: int
    uncertain: int
    reserved: int
    as_of: float | None = None


class StoreError(Exception):
    """The store did not do what was asked, or did not answer in time. The guard turns it into the budget's policy."""


class Store(Protocol):
    """A place for counters, shared by as much as it can: a process, a machine, a fleet. All raise StoreError only."""

    remote: bool
    """Whether an operation goes over a network, so that settling is done off the call path."""

    def reserve(self, attempt: str, lines: Sequence[CounterUpdate], now: float, until: float) -> Verdict:
        """Reserve all lines until `until`, or none. An attempt that is reserved already stays as it is."""
        ...

    def settle(self, attempt: str, charges: Sequence[Charge], now: float) -> tuple[CounterState, ...] | None:
        """Replace an attempt's reservation; counters not in `charges` are freed. None = nothing is reserved."""
        ...

    def charge(self, lines: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Add amounts that nothing was reserved for, whatever the limits say."""
        ...

    def levels(self, lines: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Return how full counters are."""
        ...

    def counters(self, now: float) -> list[Counter]:
        """Return every counter that is kept, by key."""
        ...

    def mark(self, key: str, mark: str) -> bool:
        """Set a mark on a counter; True for the one who set it, so that of all who share it one gives a warning."""
        ...

    def register(self, budgets: Mapping[str, str]) -> None:
        """Keep descriptions of budgets by name, so that another process can list them."""
        ...

    def unregister(self, name: str) -> None:
        """Drop the description of a budget, and the limit that was set for it."""
        ...

    def registered(self) -> dict[str, str]:
        """Return the descriptions that were kept."""
        ...

    def set_limit(self, name: str, limit: int | None) -> None:
        """Put a limit in place of a budget's own, from the next reservation on; None takes it back."""
        ...

    def limits(self) -> dict[str, int]:
        """Return the limits that were set."""
        ...

    def reset(self, keys: Sequence[str]) -> None:
        """Forget what was spent on these counters, and their marks."""
        ...

    def forget(self, keys: Sequence[str]) -> None:
        """Drop these counters."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
