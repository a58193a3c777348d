"""What a fleet has spent, as Prometheus has it: read only, some time late, and so a soft limit.

    prometheus:http://HOST:9090?refresh=15&max_age=300&lag=90&deadline=1&select=job="shop"

Every process counts what it spends and exports it (`tollspan.spend`, `.tokens`, `.calls`); this store asks Prometheus
for the sums, every `refresh` seconds and in a thread of its own, so that no call waits for it. There is nothing that a
fleet could reserve in. A call has to fit beside

    what the fleet has spent, by the last answer, less what this process had spent `lag` seconds before it
    + what this process has spent and reserved, which it counts itself

`lag` is how long a process's own spending may take to show in Prometheus: until then it is counted twice, and never
not at all. Not seen is what the other processes have spent and not exported yet, and what they have reserved.

An operation is a StoreError where the last answer is older than `max_age` seconds, or where the newest figure in it is,
though this process must have told some since. `deadline` is what the first call waits for the first answer.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import re
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from tollspan.budget.policy.counter_names import key_of, prefix_of
from tollspan.budget.stores import Counter, CounterState, StoreError, Verdict
from tollspan.budget.stores.memory import MemoryStore
from tollspan.model.errors import SettingsError
from tollspan.model.money import atto
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.stores import Charge, CounterUpdate

OPTIONS: Final = {"refresh": 15.0, "max_age": 300.0, "lag": 90.0, "deadline": 1.0}
"""Seconds, by option of the URL."""

TIMEOUT: Final = 10.0
"""Seconds that one question may take, in the thread that asks."""

COUNTERS: Final = {
    "usd": ("tollspan_spend_total", ""),
    "tokens": ("tollspan_tokens_total", 'gen_ai_token_type=~"input|output"'),
    "calls": ("tollspan_calls_total", 'tollspan_outcome!="denied"'),
}
"""The counter that a unit's budgets read, as Prometheus names it, and which of its series."""

LABELS: Final = {
    "provider": "gen_ai_provider_name",
    "model": "gen_ai_response_model",
    "operation": "gen_ai_operation_name",
    "user": "user_id",
    "session": "session_id",
    "run": "tollspan_run_id",
    "step": "tollspan_step",
    "agent": "gen_ai_agent_name",
}
"""The label by what a budget matches and tells apart; of attribution, only what is let onto metrics is there."""

PERIODS: Final = ("hour", "day", "week", "month", "rolling")
LOOKBACK: Final = "5m"
"""How far back Prometheus looks for a series' value at a moment, by default."""

_READ_ONLY: Final = "budgets in Prometheus are read only: "


@dataclass(frozen=True, slots=True)
class Read:
    """An answer: at which moment (Unix seconds), the moment of the newest figure in it, what was spent by counter."""

    at: float
    newest: float | None
    spent: Mapping[str, int]
    names: Mapping[str, str] = field(default_factory=dict)


class PrometheusStore:
    """A fleet's counters as Prometheus has them, and this process's own beside them; safe under threads and fork."""

    remote: bool = False  # settling only counts in this process

    def __init__(self, url: str, budgets: Iterable[Budget] = (), clock: Callable[[], float] = time.time) -> None:
        """Prepare to ask; nothing is asked before the budgets are registered or first used.

        Args:
            url: Prometheus's address, with options.
            budgets: what is asked for.
            clock: gives Unix time in seconds, for the thread that asks.

        Raises:
            SettingsError: the URL or an option is not usable, or a budget is none that Prometheus's figures can tell.
        """
        try:
            parts = urlsplit(url)
            is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:  # half of an IPv6 address, a port that is no number
            is_usable = False
        if not is_usable:
            raise SettingsError("budget_store is not usable; accepted is prometheus:http://HOST:PORT, or https")
        options = dict(parse_qsl(parts.query))
        self._select = options.pop("select", "").strip("{} ")
        self._options = _seconds(options)
        self._where = parts.hostname
        self._headers = _headers(parts.username, parts.password)
        plain = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        self._address = urlunsplit(plain).rstrip("/") + "/api/v1/query"
        self._budgets = {budget.name: budget for budget in budgets}
        self._matchers = {name: _matchers(budget, self._select) for name, budget in self._budgets.items()}
        self._clock = clock
        self._extended = True
        self._fresh()
        renew_in_child(self, PrometheusStore._fresh)

    def _fresh(self) -> None:
        """Begin with what others have spent alone; in a forked child, what is counted here is the parent's."""
        self._own = MemoryStore()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._answered = threading.Event()
        self._read: Read | None = None
        self._others: dict[str, int] = {}
        self._past: deque[tuple[float, dict[str, int]]] = deque()
        self._problem: str | None = None  # why the last question has no answer
        self._silent: str | None = None  # why the last answer says nothing of now

    # Asking

    def _begin(self) -> None:
        """Have the thread ask from now on."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="tollspan-prometheus", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closed.is_set():
            self.refresh()
            self._closed.wait(self._options["refresh"])

    def refresh(self) -> None:
        """Ask once; a failure is kept for whoever uses the store, and what was known stays until it is too old."""
        now = self._clock()
        counted = {counter.key: counter.spent - counter.uncertain for counter in self._own.counters(now)}
        try:
            read = self._ask(now)
        except StoreError as error:
            self._problem = str(error)
        else:
            self._take(read, counted)
        self._answered.set()

    def _take(self, read: Read, counted: dict[str, int]) -> None:
        """Put an answer in force. What this process had spent `lag` seconds before is in the answer already."""
        self._past.append((read.at, counted))
        while len(self._past) > 1 and self._past[1][0] <= read.at - self._options["lag"]:
            self._past.popleft()
        since, then = self._past[0]
        told = then if since <= read.at - self._options["lag"] else {}
        self._others = {key: max(spent - told.get(key, 0), 0) for key, spent in read.spent.items()}
        self._problem = self._silent = None
        old = read.newest is None or read.at - read.newest > self._options["max_age"]
        if old and any(told.values()):  # what this process has told should be there, so others' may be missing too
            age = "" if read.newest is None else f", and its newest is {read.at - read.newest:.0f} s old"
            self._silent = f"Prometheus at {self._where} lacks what this process has told{age}"
        self._read = read

    def _ask(self, now: float) -> Read:
        spent: dict[str, int] = {}
        names: dict[str, str] = {}
        for budget in self._budgets.values():
            for key, amount in self._spent(budget, now):
                spent[key] = amount
                names[key] = budget.name
        return Read(now, self._newest(now), spent, names)

    def _newest(self, now: float) -> float | None:
        """Return the moment of the fleet's newest figure of the last day, in Unix seconds."""
        moments = f"timestamp(tollspan_calls_total{{{self._select}}})"
        found = self._query(f"max({moments})", now) or self._query(f"max(max_over_time({moments}[1d:{LOOKBACK}]))", now)
        return max((float(value) for _, value in found), default=None)

    def _spent(self, budget: Budget, now: float) -> Iterable[tuple[str, int]]:
        """Return what was spent of a budget in the period that is on, by counter."""
        window = budget.period.window(now)
        since = now - budget.period.length if budget.period.kind == "rolling" else window.since
        labels = [_label(key) for key in budget.per]
        prefix = prefix_of(budget.name)
        found = {}
        for sample, value in self._sums(budget, labels, since, now):
            values = [sample.get(label, "") for label in labels]
            key = key_of(prefix, window.name, zip(budget.per, values, strict=True))
            found[key] = atto(value) if budget.limit.unit == "usd" else round(float(value))
        return found.items()

    def _sums(self, budget: Budget, labels: list[str], since: float, now: float) -> list[tuple[Mapping[str, str], str]]:
        series = f"{COUNTERS[budget.limit.unit][0]}{{{self._matchers[budget.name]}}}"
        if self._extended:
            try:
                return self._query(increase(series, labels, since, now), now)
            except _NotUnderstoodError:
                self._extended = False
        return self._query(difference(series, labels, since, now), now)

    def _query(self, promql: str, now: float) -> list[tuple[Mapping[str, str], str]]:
        """Return an instant query's samples. Raises StoreError."""
        body = urlencode({"query": promql, "time": f"{now:.3f}"}).encode()
        request = urllib.request.Request(self._address, body, self._headers)  # noqa: S310 - http or https: checked
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - as above
                data = json.loads(answer.read())
            return [(_texts(sample["metric"]), _number(sample["value"][1])) for sample in data["data"]["result"]]
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(500).decode(errors="replace")
            kind = _NotUnderstoodError if error.code == 400 else StoreError  # noqa: PLR2004 - Bad Request
            raise kind(f"Prometheus at {self._where} answered {error.code}: {said}") from error
        except (OSError, http.client.HTTPException) as error:
            raise StoreError(f"Prometheus at {self._where} does not answer ({error})") from error
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise StoreError(f"Prometheus at {self._where} gave no answer that can be read") from error

    # What is in force

    def _current(self, now: float) -> Read:
        """Return the last answer. Raises StoreError where there is none, or none that is young enough."""
        if self._read is None:
            self._answered.wait(self._options["deadline"])
        read, silent = self._read, self._silent
        if read is None:
            raise StoreError(self._problem or f"Prometheus at {self._where} has not answered yet")
        age = abs(now - read.at)  # either way: a clock that jumped says nothing of an answer's age
        if age > self._options["max_age"]:
            raise StoreError(f"the last answer of Prometheus is {age:.0f} s old: {self._problem or self._where}")
        if silent is not None:
            raise StoreError(silent)
        return read

    def _seen(self, lines: Sequence[CounterUpdate], now: float) -> list[int]:
        """Return what others have spent of each line's counter."""
        self._begin()
        self._current(now)
        for line in lines:
            if line.name not in self._budgets:
                raise StoreError(
                    f"Prometheus is not asked for {line.name!r}: it is no budget of this program's settings"
                )
        return [self._others.get(line.key, 0) for line in lines]

    def reserve(self, attempt: str, lines: Sequence[CounterUpdate], now: float, until: float) -> Verdict:
        """Reserve all lines in this process, beside what others have spent, or none (see `Store`)."""
        others = self._seen(lines, now)
        refused, levels, amounts = self._own.reserve(attempt, _beside(lines, others), now, until)
        return Verdict(refused, _together(levels, others), amounts)

    def settle(self, attempt: str, charges: Sequence[Charge], now: float) -> tuple[CounterState, ...] | None:
        """Replace a reservation with what was really spent; nobody is asked."""
        levels = self._own.settle(attempt, charges, now)
        if levels is None:
            return None
        return tuple(
            CounterState(level.spent + self._others.get(charge.key, 0), level.reserved, None)  # the budget's own limit
            for level, charge in zip(levels, charges, strict=True)
        )

    def charge(self, lines: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Add amounts that nothing was reserved for; nobody is asked."""
        others = [self._others.get(line.key, 0) for line in lines]
        return _together(self._own.charge(_beside(lines, others), now), others)

    def levels(self, lines: Sequence[CounterUpdate], now: float) -> tuple[CounterState, ...]:
        """Return how full counters are."""
        others = self._seen(lines, now)
        return _together(self._own.levels(_beside(lines, others), now), others)

    def counters(self, now: float) -> list[Counter]:
        """Return every counter that the fleet or this process has, by key, and of which moment the figures are."""
        if self._thread is None:
            self.refresh()  # for a command, which asks once
        read = self._current(now)
        own = {counter.key: counter for counter in self._own.counters(now)}
        names = {**read.names, **{key: counter.name for key, counter in own.items()}}
        found = []
        for key, name in sorted(names.items()):
            ours = own.get(key) or Counter(key=key, name=name, spent=0, uncertain=0, reserved=0)
            found.append(replace(ours, spent=ours.spent + self._others.get(key, 0), as_of=read.newest))
        return found

    def mark(self, key: str, mark: str) -> bool:
        """Set a mark in this process: each warns for itself."""
        return self._own.mark(key, mark)

    def register(self, budgets: Mapping[str, str]) -> None:  # noqa: ARG002 - the settings say which they are
        """Begin to ask, so that the first call finds an answer."""
        self._begin()

    def unregister(self, name: str) -> None:
        """Raise StoreError."""
        raise StoreError(f"{_READ_ONLY}take {name!r} out of the settings")

    def registered(self) -> dict[str, str]:
        """Return the budgets that are asked for, if Prometheus answers."""
        self._query("vector(1)", self._clock())
        return {name: f"{budget.limit}/{budget.period}" for name, budget in sorted(self._budgets.items())}

    def set_limit(self, name: str, limit: int | None) -> None:  # noqa: ARG002 - there is nowhere to keep it
        """Raise StoreError."""
        raise StoreError(f"{_READ_ONLY}change the limit of {name!r} where it is configured")

    def limits(self) -> dict[str, int]:
        """Return none: limits are those of the settings."""
        return {}

    def reset(self, keys: Sequence[str]) -> None:  # noqa: ARG002 - nothing can be forgotten
        """Raise StoreError."""
        raise StoreError(f"{_READ_ONLY}what was spent cannot be forgotten; raise the limit where it is configured")

    def forget(self, keys: Sequence[str]) -> None:
        """Drop what this process has counted."""
        self._own.forget(keys)

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()


class _NotUnderstoodError(StoreError):
    """Prometheus takes the question for no PromQL."""


def increase(series: str, labels: Sequence[str], since: float, now: float) -> str:
    """Return the PromQL for what counters have grown by: exact (`anchored`), also where a counter began anew."""
    return f"{_sum(labels)}(increase({series}[{_length(since, now)}] anchored))"


def difference(series: str, labels: Sequence[str], since: float, now: float) -> str:
    """Return the PromQL for the same on a Prometheus that has not switched extended range selectors on.

    Exact where each process has series of its own, as the SDK's `service.instance.id` gives it: a counter that began
    anew under the same labels counts from its new beginning.
    """
    last = f"last_over_time({series}[{_length(since, now)}])"
    return f"{_sum(labels)}({last} - (last_over_time({series}[{LOOKBACK}] @ {since:.3f}) or 0 * {last}))"


def _sum(labels: Sequence[str]) -> str:
    return f"sum by ({', '.join(labels)}) " if labels else "sum"


def _length(since: float, now: float) -> str:
    return f"{max(math.ceil((now - since) * 1000), 1)}ms"


def _beside(lines: Sequence[CounterUpdate], others: Sequence[int]) -> list[CounterUpdate]:
    """Return the lines with what others have left of their limits."""
    return [
        line if line.limit is None else line._replace(limit=line.limit - spent)
        for line, spent in zip(lines, others, strict=True)
    ]


def _together(levels: Sequence[CounterState], others: Sequence[int]) -> tuple[CounterState, ...]:
    """Return the levels with what others have spent."""
    return tuple(
        CounterState(level.spent + spent, level.reserved, None if level.limit is None else level.limit + spent)
        for level, spent in zip(levels, others, strict=True)
    )


def _seconds(options: Mapping[str, str]) -> dict[str, float]:
    """Return the options that are seconds. Raises SettingsError."""
    found = dict(OPTIONS)
    for name, text in options.items():
        try:
            found[name] = float(text) if name in OPTIONS else -1.0
        except ValueError:
            found[name] = -1.0
        if not 0 < found[name] <= 86_400:  # noqa: PLR2004 - a day; nan is refused, too
            raise SettingsError(
                f"budget_store: {name}={text!r} is not usable; accepted are select=LABELS, and seconds above 0 for "
                f"{', '.join(OPTIONS)}"
            )
    return found


def _headers(user: str | None, password: str | None) -> dict[str, str]:
    headers = {"user-agent": "tollspan"}
    if user is not None:
        pair = f"{unquote(user)}:{unquote(password or '')}"
        headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return headers


def _matchers(budget: Budget, select: str) -> str:
    """Return the label matchers of a budget's series. Raises SettingsError."""
    where = f"budget {budget.name!r} cannot be read from Prometheus"
    if budget.limit.unit not in COUNTERS:
        raise SettingsError(f"{where}: {budget.limit.unit} calls are no counter; accepted are USD, tokens and calls")
    if budget.period.kind not in PERIODS:
        raise SettingsError(
            f"{where}: its period is {budget.period}, and Prometheus tells what was spent since a moment; accepted "
            f"are {', '.join(PERIODS)} periods, such as {budget.limit}/day"
        )
    found = [COUNTERS[budget.limit.unit][1], select]
    try:
        found += [f"{_label(key)}=~{_pattern(patterns)}" for key, patterns in budget.match.items()]
        for key in budget.per:
            _label(key)
    except LookupError as error:
        raise SettingsError(
            f"{where}: no label tells the {error.args[0]} of what was spent; accepted are {', '.join(LABELS)} and "
            "tag.NAME"
        ) from None
    return ",".join(part for part in found if part)


def _label(key: str) -> str:
    """Return the label for what a budget matches or tells apart. Raises LookupError."""
    if key.startswith("tag."):
        return "tollspan_tag_" + re.sub(r"\W", "_", key.removeprefix("tag."), flags=re.ASCII)
    return LABELS[key]


_PART: Final = re.compile(r"\[(!?)(\]?[^\]]*)\]|.", re.DOTALL)


def _pattern(patterns: Iterable[str]) -> str:
    """Return shell patterns as one PromQL regular expression, quoted."""

    def part(found: re.Match[str]) -> str:
        if found[2] is not None:
            return f"[{'^' if found[1] else ''}{found[2].replace(chr(92), chr(92) * 2).replace('[', chr(92) + '[')}]"
        return {"*": ".*", "?": "."}.get(found[0]) or re.escape(found[0])

    return json.dumps("|".join(_PART.sub(part, pattern) for pattern in patterns), ensure_ascii=False)


def _texts(labels: Mapping[str, Any]) -> Mapping[str, str]:
    return {str(name): str(value) for name, value in labels.items()}


def _number(text: str) -> str:
    if not math.isfinite(float(text)):
        raise ValueError(text)
    return text
