"""The counters of a fleet, read from Prometheus: read-only and late, so its limits are soft.

    prometheus:http://HOST:9090?refresh=15&max_age=300&lag=90&deadline=1&select=job="shop"

Every process counts what it spends and exports it (`tollspan.spend`, `.tokens`, `.calls`). This store queries
Prometheus for the sums, every `refresh` seconds and in a thread, so that no call waits for it. The fleet has no place
to reserve in. A call has to fit beside

    what the fleet has spent by the last reading, less what this process had spent `lag` seconds before it
    + what this process has spent and reserved, which it counts itself

`lag` is the time that a process's own spend may take to appear in Prometheus: until then it is counted twice rather
than not at all. What other processes have reserved, or spent and not exported yet, is not seen.

An operation raises StoreError if the last reading is older than `max_age` seconds, or if the newest sample in it is,
although this process must have exported some since. The first call waits `deadline` seconds for the first reading.
"""

from __future__ import annotations

import time
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final

from tollspan.budget.stores import Counter, CounterState, ReservationResult, StoreError
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.stores.prometheus_client import PrometheusClient
from tollspan.budget.stores.prometheus_reader import FleetReader
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.stores import Charge, CounterUpdate

_READ_ONLY: Final = "budgets in Prometheus are read only: "


class PrometheusStore:
    """A fleet's counters in Prometheus, and this process's counters beside them; safe for threads and forks."""

    remote: bool = False  # settling only counts in this process
    address: None = None  # it is read, and nothing can be changed there
    skew: float = 0.0

    def __init__(self, url: str, budgets: Iterable[Budget] = (), clock: Callable[[], float] = time.time) -> None:
        """Prepare to read; nothing is requested before the budgets are registered or first used.

        Args:
            url: Prometheus's address, with options.
            budgets: the budgets to query.
            clock: returns Unix time in seconds, for the thread that queries.

        Raises:
            SettingsError: the URL or an option is invalid, or Prometheus does not have what a budget needs.
        """
        self._client = PrometheusClient(url)
        self._clock = clock
        self._clear()
        renew_in_child(self, PrometheusStore._clear)
        self._reader = FleetReader(self._client, budgets, self._spent_here, clock)

    def _clear(self) -> None:
        """Start with nothing counted here; in a forked child, what is counted is the parent's."""
        self._own = MemoryStore()

    def _spent_here(self, now: float) -> dict[str, int]:
        return {counter.key: counter.spent - counter.uncertain for counter in self._own.counters(now)}

    def refresh(self) -> None:
        """Read once."""
        self._reader.refresh()

    def _others(self, updates: Sequence[CounterUpdate], now: float) -> list[int]:
        """Return what others have spent on each update's counter. Raises StoreError if that is not known."""
        reader = self._reader
        reader.start()
        reader.current(now)
        for update in updates:
            if update.name not in reader.budgets:
                raise StoreError(
                    f"Prometheus is not queried for {update.name!r}: it is not a budget of this program's settings"
                )
        return [reader.others(update.key) for update in updates]

    def reserve(self, attempt: str, updates: Sequence[CounterUpdate], now: float, until: float) -> ReservationResult:
        """Reserve all updates in this process, beside what others have spent, or none (see `Store`)."""
        others = self._others(updates, now)
        refused, states, amounts = self._own.reserve(attempt, _less(updates, others), now, until)
        return ReservationResult(refused, _with(states, others), amounts)

    def settle(self, attempt: str, charges: Sequence[Charge], now: float) -> tuple[CounterState, ...] | None:
        """Replace a reservation with its charges in this process."""
        states = self._own.settle(attempt, charges, now)
        return None if states is None else self._beside_others(states, charges)

    def _beside_others(self, states: Sequence[CounterState], charges: Sequence[Charge]) -> tuple[CounterState, ...]:
        return tuple(
            CounterState(state.spent + self._reader.others(charge.key), state.reserved, None)  # the budget's own limit
            for state, charge in zip(states, charges, strict=True)
        )

    def settle_part(
        self, attempt: str, part: str, charges: Sequence[Charge], released: Sequence[int], now: float
    ) -> tuple[CounterState, ...] | None:
        """Charge a part of an attempt in this process, and release a part of its reservation."""
        states = self._own.settle_part(attempt, part, charges, released, now)
        return self._beside_others(states, charges) if states else states

    def charge(self, updates: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Charge amounts that were not reserved, in this process."""
        others = [self._reader.others(update.key) for update in updates]
        return _with(self._own.charge(_less(updates, others), now), others)

    def states(self, updates: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Return the state of each update's counter."""
        others = self._others(updates, now)
        return _with(self._own.states(_less(updates, others), now), others)

    def counters(self, now: float) -> list[Counter]:
        """Return every counter of the fleet and of this process, by key, with the time of the figures."""
        reader = self._reader
        if not reader.started:
            reader.refresh()  # for a command, which reads once
        reading = reader.current(now)
        own = {counter.key: counter for counter in self._own.counters(now)}
        names = {**reading.names, **{key: counter.name for key, counter in own.items()}}
        counters = []
        for key, name in sorted(names.items()):
            ours = own.get(key) or Counter(key=key, name=name, spent=0, uncertain=0, reserved=0)
            counters.append(replace(ours, spent=ours.spent + reader.others(key), as_of=reading.newest))
        return counters

    def mark(self, key: str, mark: str, now: float = 0.0, until: float = inf) -> bool:
        """Set a mark in this process: each process sends its own warnings."""
        return self._own.mark(key, mark, now, until)

    def unmark(self, key: str, mark: str) -> None:
        """Remove a mark in this process."""
        self._own.unmark(key, mark)

    def note(self, kind: str, name: str, text: str, until: float, now: float) -> None:
        """Keep a text in this process."""
        self._own.note(kind, name, text, until, now)

    def noted(self, kind: str, name: str, now: float) -> str | None:
        """Return the text that this process keeps by this kind and name."""
        return self._own.noted(kind, name, now)

    def notes(self, kind: str, now: float) -> dict[str, str]:
        """Return the texts of a kind that this process keeps."""
        return self._own.notes(kind, now)

    def register(self, budgets: Mapping[str, str]) -> None:  # noqa: ARG002 - the settings have them
        """Start to read, so that the first call finds a reading."""
        self._reader.start()

    def unregister(self, name: str) -> None:
        """Raise StoreError."""
        raise StoreError(f"{_READ_ONLY}take {name!r} out of the settings")

    def registered(self) -> dict[str, str]:
        """Return the budgets that are queried, if Prometheus answers."""
        self._client.query("vector(1)", self._clock())
        return {name: f"{budget.limit}/{budget.period}" for name, budget in sorted(self._reader.budgets.items())}

    def set_limit(self, name: str, limit: int | None) -> None:  # noqa: ARG002 - there is nowhere to store it
        """Raise StoreError."""
        raise StoreError(f"{_READ_ONLY}change the limit of {name!r} where it is configured")

    def limits(self) -> dict[str, int]:
        """Return nothing: all limits are those of the settings."""
        return {}

    def reset(self, keys: Sequence[str]) -> None:  # noqa: ARG002 - nothing can be cleared
        """Raise StoreError."""
        raise StoreError(f"{_READ_ONLY}what was spent cannot be cleared; raise the limit where it is configured")

    def forget(self, keys: Sequence[str]) -> None:
        """Delete what this process has counted."""
        self._own.forget(keys)

    def habits(self) -> dict[str, dict[str, float]]:
        """Return nothing: what was learned is in `Habits` of this process."""
        return {}

    def learn(self, news: Mapping[str, Mapping[str, float]], now: float) -> dict[str, dict[str, float]]:  # noqa: ARG002 - as above
        """Keep nothing."""
        return {}

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()


def _less(updates: Sequence[CounterUpdate], others: Sequence[int]) -> list[CounterUpdate]:
    """Return the updates with the part of their limits that others have not spent."""
    return [
        update if update.limit is None else update._replace(limit=update.limit - spent)
        for update, spent in zip(updates, others, strict=True)
    ]


def _with(states: Sequence[CounterState], others: Sequence[int]) -> tuple[CounterState, ...]:
    """Return the states with what others have spent added."""
    return tuple(
        CounterState(state.spent + spent, state.reserved, None if state.limit is None else state.limit + spent)
        for state, spent in zip(states, others, strict=True)
    )
