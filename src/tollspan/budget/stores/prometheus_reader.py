"""What the other processes of a fleet have spent: read from Prometheus every `refresh` seconds, in a thread.

    reader.others(key)   # spent by other processes on a counter, from the last reading
    reader.current(now)  # the last reading; raises StoreError if there is none, or it is too old

The spend of this process that the reading includes is subtracted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tollspan.budget.policy.counter_names import key_of, prefix_of
from tollspan.budget.stores import StoreError
from tollspan.budget.stores.prometheus_client import UnsupportedQueryError
from tollspan.budget.stores.prometheus_queries import (
    COUNTERS,
    LOOKBACK,
    difference,
    increase,
    label_of,
    matchers_of,
)
from tollspan.model.money import atto
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.stores.prometheus_client import PrometheusClient


@dataclass(frozen=True, slots=True)
class Reading:
    """The results of one refresh.

    Attributes:
        at: the time of the queries, in Unix seconds.
        newest: the time of the fleet's newest sample, in Unix seconds; None if there is none.
        spent: the amounts that the fleet has spent, by counter.
        names: the budgets of these counters.
    """

    at: float
    newest: float | None
    spent: Mapping[str, int]
    names: Mapping[str, str] = field(default_factory=dict)


class FleetReader:
    """Reads a fleet's spend of `budgets` in the background, and subtracts what this process has spent of it."""

    def __init__(
        self,
        client: PrometheusClient,
        budgets: Iterable[Budget],
        own: Callable[[float], dict[str, int]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare to read; nothing is requested before `start` or `refresh`.

        Args:
            client: the server.
            budgets: the budgets to query.
            own: returns what this process has spent at a time, by counter.
            clock: returns Unix time in seconds.

        Raises:
            SettingsError: Prometheus does not have what one of the budgets needs.
        """
        self._client = client
        self.budgets = {budget.name: budget for budget in budgets}
        self._matchers = {name: matchers_of(budget, client.select) for name, budget in self.budgets.items()}
        self._own = own
        self._clock = clock
        self._extended = True
        self._clear()
        renew_in_child(self, FleetReader._clear)

    def _clear(self) -> None:
        """Start without a reading; in a forked child the thread is the parent's."""
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._refreshed = threading.Event()
        self._reading: Reading | None = None
        self._others: dict[str, int] = {}
        self._past: deque[tuple[float, dict[str, int]]] = deque()
        self._problem: str | None = None  # why the last refresh failed
        self._incomplete: str | None = None  # why the last reading lacks recent spend

    @property
    def started(self) -> bool:
        """Return whether the thread was started."""
        return self._thread is not None

    def start(self) -> None:
        """Start the thread, once."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="tollspan-prometheus", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop refreshing."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            self.refresh()
            self._closed.wait(self._client.options["refresh"])

    def refresh(self) -> None:
        """Query once. A failure is kept for `current`, and the previous reading stays until it is too old."""
        now = self._clock()
        own = self._own(now)
        try:
            reading = self._read(now)
        except StoreError as error:
            self._problem = str(error)
        else:
            self._apply(reading, own)
        self._refreshed.set()

    def _apply(self, reading: Reading, own: dict[str, int]) -> None:
        """Use a new reading. It includes what this process had spent `lag` seconds before it."""
        options = self._client.options
        self._past.append((reading.at, own))
        while len(self._past) > 1 and self._past[1][0] <= reading.at - options["lag"]:
            self._past.popleft()
        since, spent_then = self._past[0]
        exported = spent_then if since <= reading.at - options["lag"] else {}
        self._others = {key: max(spent - exported.get(key, 0), 0) for key, spent in reading.spent.items()}
        self._problem = self._incomplete = None
        is_old = reading.newest is None or reading.at - reading.newest > options["max_age"]
        if is_old and any(exported.values()):  # our own spend should be there, so that of others may be missing, too
            age = "" if reading.newest is None else f"; its newest sample is {reading.at - reading.newest:.0f} s old"
            self._incomplete = f"Prometheus at {self._client.host} lacks what this process has exported{age}"
        self._reading = reading

    def _read(self, now: float) -> Reading:
        spent: dict[str, int] = {}
        names: dict[str, str] = {}
        for budget in self.budgets.values():
            for key, amount in self._spent(budget, now).items():
                spent[key] = amount
                names[key] = budget.name
        return Reading(now, self._newest(now), spent, names)

    def _newest(self, now: float) -> float | None:
        """Return the time of the fleet's newest sample of the last day, in Unix seconds."""
        times = f"timestamp(tollspan_calls_total{{{self._client.select}}})"
        query = self._client.query
        samples = query(f"max({times})", now) or query(f"max(max_over_time({times}[1d:{LOOKBACK}]))", now)
        return max((float(value) for _, value in samples), default=None)

    def _spent(self, budget: Budget, now: float) -> dict[str, int]:
        """Return what the fleet has spent of a budget in the current period, by counter."""
        window = budget.period.window(now)
        since = now - budget.period.length if budget.period.kind == "rolling" else window.since
        labels = [label_of(key) for key in budget.per]
        prefix = prefix_of(budget.name)
        spent = {}
        for sample, value in self._sums(budget, labels, since, now):
            values = [sample.get(label, "") for label in labels]
            key = key_of(prefix, window.name, zip(budget.per, values, strict=True))
            spent[key] = atto(value) if budget.limit.unit == "usd" else round(float(value))
        return spent

    def _sums(self, budget: Budget, labels: list[str], since: float, now: float) -> list[tuple[Mapping[str, str], str]]:
        series = f"{COUNTERS[budget.limit.unit][0]}{{{self._matchers[budget.name]}}}"
        if self._extended:
            try:
                return self._client.query(increase(series, labels, since, now), now)
            except UnsupportedQueryError:
                self._extended = False
        return self._client.query(difference(series, labels, since, now), now)

    def others(self, key: str) -> int:
        """Return what other processes have spent on a counter, from the last reading."""
        return self._others.get(key, 0)

    def current(self, now: float) -> Reading:
        """Return the last reading; the first one is waited for, at most `deadline` seconds.

        Raises:
            StoreError: there is no reading, it is too old, or it lacks what this process has exported.
        """
        options = self._client.options
        if self._reading is None:
            self._refreshed.wait(options["deadline"])
        reading, incomplete = self._reading, self._incomplete
        if reading is None:
            raise StoreError(self._problem or f"Prometheus at {self._client.host} has not answered yet")
        age = abs(now - reading.at)  # a clock that was set makes it unknown, in either direction
        if age > options["max_age"]:
            reason = self._problem or self._client.host
            raise StoreError(f"the last reading of Prometheus is {age:.0f} s old: {reason}")
        if incomplete is not None:
            raise StoreError(incomplete)
        return reading
