"""Stores of budget counters: the protocol that each of them implements, and the records that it takes and returns.

Amounts are integers: atto-dollars, tokens or calls. Every store keeps them exactly, whatever the range of its own
integers: SQLite and Redis keep decimal text. Times are Unix seconds and are passed in, by the clock of the store's
server if it has one: this machine's time plus `skew`.

Every store follows these rules, and one set of tests checks them:

- `reserve` is all or nothing: it reserves the amount of each update, or nothing if that would pass any limit.
- A reservation is a lease. If it expires unsettled, its amount is spent, because the call may have been made: the
  amount moves from reserved to spent, and is added to `uncertain`. Every operation first charges expired leases.
- `settle` replaces the reservation with what was spent, in the period of the reservation. It counts once per attempt,
  also if the lease has expired before.
- `reset` clears what was spent and keeps what is reserved: those calls are under way and will be charged.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

from tollspan.budget.policy.enforcement import CUT, SOFT, USUAL

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

LEASE_REMEMBERED: Final = 31 * 86_400.0
"""Seconds that an expired lease is kept, so that a call that ends later can still be settled with its actual cost.

The results of a batch can be downloaded for 30 days (OpenAI; 29 days at Anthropic).
"""


class CounterUpdate(NamedTuple):
    """The update that one call makes to one counter.

    Attributes:
        key: the counter: budget, period and the values of its `per` keys.
        name: the budget.
        amount: the amount to reserve or to charge.
        limit: the limit, unless the store has another one for `name`; None = no limit.
        mode: what happens if the amount does not fit: `HARD`, `SOFT`, `CUT` or `USUAL`.
        slot: the slot of the rolling window that the call counts in; 0 if there is none.
        first: the oldest slot that still counts.
        kept_until: the time from which the counter may be deleted, in Unix seconds; None = never.
        least: the smallest amount that may be reserved in place of `amount`, if that is left; 0 = only `amount`.
    """

    key: str
    name: str
    amount: int
    limit: int | None
    mode: int = 0
    slot: int = 0
    first: int = 0
    kept_until: float | None = None
    least: int = 0


class Charge(NamedTuple):
    """The amount that a call is charged on one counter; `uncertain` is the part that is assumed and not known."""

    key: str
    slot: int
    amount: int
    uncertain: int = 0


class CounterState(NamedTuple):
    """The amounts of a counter, and the limit that applies to it; None = no limit."""

    spent: int
    reserved: int
    limit: int | None

    @property
    def left(self) -> int | None:
        """Return the amount that can still be reserved, never below zero; None = no limit."""
        return None if self.limit is None else max(self.limit - self.spent - self.reserved, 0)

    @property
    def unspent(self) -> int | None:
        """Return the amount that is not spent, whether reserved or not, never below zero; None = no limit."""
        return None if self.limit is None else max(self.limit - self.spent, 0)


class ReservationResult(NamedTuple):
    """The result of `Store.reserve`.

    Attributes:
        refused: the index of the update that does not fit; None = all are reserved.
        states: the states of all counters, after the reservation or unchanged if it is refused.
        amounts: the amounts that were reserved, one per update; empty if the reservation is refused.
    """

    refused: int | None
    states: tuple[CounterState, ...]
    amounts: tuple[int, ...] = ()


def reservable(update: CounterUpdate, state: CounterState) -> int:
    """Return the amount of an update that can be reserved on a counter in this state; -1 = it is refused."""
    mode = update.mode
    spent, reserved, limit = state
    if limit is None or mode == SOFT or spent + reserved + update.amount <= limit:
        return update.amount
    left = limit - spent - reserved
    if left <= 0:
        return -1
    if mode == CUT or left >= (update.least or update.amount) or (mode == USUAL and not reserved):
        return left
    return -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """One counter as a status shows it; the slots of a rolling window are added up.

    `as_of` is the time of the figures in Unix seconds, for a store whose figures are late; None = now.
    """

    key: str
    name: str
    spent: int
    uncertain: int
    reserved: int
    as_of: float | None = None


class StoreError(Exception):
    """An operation of a store failed, or did not answer in time. The guard applies the budget's `store_failure`."""


class CounterWatch(Protocol):
    """Waits for what other processes change in a store; used by one thread."""

    def wait(self, seconds: float) -> Collection[str] | None:
        """Wait until a counter has changed since the last `wait`, or since the watch was opened, `seconds` at most.

        Returns:
            The keys of the counters that have changed; None if any of them may have.

        Raises:
            StoreError: the store does not respond. Another watch is opened.
        """
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...


@runtime_checkable
class EvictingStore(Protocol):
    """A store whose server may be set to delete what is counted when its memory is full."""

    def eviction_policy(self) -> str | None:
        """Return the policy of the server if it may delete what is counted, else None. Raises StoreError."""
        ...


class Store(Protocol):
    """A store of counters, which a process, a machine or a fleet shares. Every operation raises StoreError only.

    A store that several processes share also has `watch() -> CounterWatch`. Without it, calls that wait for others are
    woken only by the calls of their own process.
    """

    remote: bool
    """Whether an operation goes over a network; if so, calls are settled off the call path."""

    @property
    def address(self) -> str | None:
        """Return the value of `--store` with which `tollspan budget` changes this store, without a password.

        It is empty if the command finds the store by the setting, and None if no command can change it. A store that
        has no address is found by the setting.
        """
        ...

    skew: float
    """Seconds that the clock of a store's server is known to be ahead of this machine's; 0 if there is no server."""

    def reserve(self, attempt: str, updates: Sequence[CounterUpdate], now: float, until: float) -> ReservationResult:
        """Reserve all updates until `until`, or none. An attempt that is already reserved keeps its reservation."""
        ...

    def settle(self, attempt: str, charges: Sequence[Charge], now: float) -> tuple[CounterState, ...] | None:
        """Replace an attempt's reservation with its charges, and release counters that are not among them.

        Returns:
            The states of the charged counters, or None if nothing is reserved for the attempt.
        """
        ...

    def settle_part(
        self, attempt: str, part: str, charges: Sequence[Charge], released: Sequence[int], now: float
    ) -> tuple[CounterState, ...] | None:
        """Charge a part of what an attempt costs, and release a part of its reservation; the rest stays reserved.

        Args:
            attempt: the attempt, such as a batch whose results are read one by one.
            part: the id of the part, which counts once, also if the operation is tried again after a failure.
            charges: what the part has cost; an amount may be 0.
            released: by how much each charge's reservation shrinks, at most what is left of it.
            now: the current time in Unix seconds.

        Returns:
            The states of the charged counters, none if the part was settled before; None if nothing is reserved for the
            attempt.
        """
        ...

    def charge(self, updates: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Charge amounts that were not reserved, whatever the limits are, and return the states after that."""
        ...

    def states(self, updates: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Return the state of each update's counter."""
        ...

    def counters(self, now: float) -> list[Counter]:
        """Return every counter that is kept, by key."""
        ...

    def mark(self, key: str, mark: str, now: float = 0.0, until: float = inf) -> bool:
        """Set a mark on a counter until a time, and return whether it was not set: of all processes, one warns.

        Setting it again for longer extends it.
        """
        ...

    def unmark(self, key: str, mark: str) -> None:
        """Remove a mark, so that the next process sets it."""
        ...

    def register(self, budgets: Mapping[str, str]) -> None:
        """Store descriptions of budgets by name, so that another process can list them."""
        ...

    def unregister(self, name: str) -> None:
        """Delete the description of a budget, and the limit that was set for it."""
        ...

    def registered(self) -> dict[str, str]:
        """Return the stored descriptions by budget name."""
        ...

    def set_limit(self, name: str, limit: int | None) -> None:
        """Override the limit of a budget from the next reservation on; None restores the configured one."""
        ...

    def limits(self) -> dict[str, int]:
        """Return the limits that were set, by budget name."""
        ...

    def note(self, kind: str, name: str, text: str, until: float, now: float) -> None:
        """Keep a text by kind and name until `until`, in Unix seconds; it replaces an earlier one."""
        ...

    def noted(self, kind: str, name: str, now: float) -> str | None:
        """Return the text that is kept by this kind and name; None if there is none."""
        ...

    def notes(self, kind: str, now: float) -> dict[str, str]:
        """Return the texts of a kind by name."""
        ...

    def reset(self, keys: Sequence[str]) -> None:
        """Clear what was spent on these counters, and their marks."""
        ...

    def forget(self, keys: Sequence[str]) -> None:
        """Delete these counters."""
        ...

    def habits(self) -> dict[str, dict[str, float]]:
        """Return what was learned of calls: sums by name, by the texts of their keys. See `learn`."""
        ...

    def learn(self, news: Mapping[str, Mapping[str, float]], now: float) -> dict[str, dict[str, float]]:
        """Add sums to those that are kept, as `budget.habits.merged` does, and return these as they are then.

        A store in which nothing is shared keeps nothing, and returns nothing.
        """
        ...

    def close(self) -> None:
        """Close files and connections."""
        ...
