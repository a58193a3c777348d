"""What panels show, as the ledger grows: the one in the terminal and the page are two forms of the same `Board`.

How it is fed: programs write calls into the ledger, panels read it. `BoardReader.look()` asks SQLite for the file's
`data_version`, which another process's commit changes and which costs some microseconds, and reads on only where it
has changed; then it reads the kept totals, and of the rows only those that are new. So a panel sees all processes,
needs nothing of them, and costs next to nothing while nothing happens.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from tollspan.budget.policy.settings import budgets_of
from tollspan.budget.stores import StoreError
from tollspan.budget.stores.opening import store_of
from tollspan.budget.stores.sqlite import default_path
from tollspan.cli.budget import statuses
from tollspan.cli.reports.inspect import as_data
from tollspan.cli.times import shown
from tollspan.ledger.keys import TAG
from tollspan.ledger.queries import DAY, Group, Ledger, Where
from tollspan.ledger.totals import NOTHING, Figures
from tollspan.model.errors import LedgerError, SettingsError
from tollspan.model.money import usd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tollspan.budget.api import Status
    from tollspan.budget.stores import Store
    from tollspan.ledger.queries import Kept
    from tollspan.settings import Settings

SECOND: Final = 10**9
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
_EVER: Final = 2**62
"""A step so long that all calls lie in the same one."""

SERVICE_TIER: Final = "service tier"
MODELS: Final = "models"
MOST_FIRST_TOKENS: Final = 20_000
"""Times to the first token that are kept of one piece of rows."""
LAST_CALLS: Final = 50
FIRST_PIECE: Final = 50_000
"""Rows that are read before a panel is shown for the first time."""
PIECE: Final = 10_000
"""Rows of earlier calls that are read at each look after that."""
BUDGETS_EVERY: Final = 2.0
"""Seconds between two looks at the budgets' store: what is reserved there changes without a call in the ledger."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range that ends now: `steps` steps of `step` nanoseconds each."""

    step: int
    steps: int

    def since(self, now: int) -> int:
        """Return where the range begins that `now` lies in the last step of."""
        return (now // self.step - self.steps + 1) * self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelFilter:
    """Which calls a panel is about: a session, a run, those since a moment or of a span; by default today's (UTC)."""

    session: str | None = None
    run: str | None = None
    since: int | None = None
    span: Span | None = None

    @property
    def name(self) -> str:
        """Return the words for it."""
        if self.session is not None:
            return f"session {self.session}"
        if self.run is not None:
            return f"run {self.run}"
        return "today (UTC)" if self.since is None else f"since {shown(self.since)[:-3]} UTC"

    def where(self, now: int) -> Where:
        """Return the condition as of `now`, Unix nanoseconds."""
        if self.span is not None:
            return Where(session=self.session, run=self.run, since=self.span.since(now))
        if self.session is not None or self.run is not None:
            return Where(session=self.session, run=self.run, since=self.since)
        return Where(since=now // DAY * DAY if self.since is None else self.since)


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """What there is to show. `models` are keyed by provider and model, `tiers` by tag (or "service tier") and value.

    `read` is the share of the rows that tiers and, where the totals do not have them, models are known of so far.
    `calls_per_minute` and `spend_per_hour` (atto-dollars) are those of the last minute. `waiting` = there is no ledger.
    """

    at: int
    scope: str
    models: Sequence[Group] = ()
    tiers: Mapping[str, Mapping[str, Figures]] = field(default_factory=dict)
    calls_per_minute: int = 0
    spend_per_hour: int = 0
    budgets: Sequence[Status] = ()
    budgets_unknown: str | None = None
    calls: Sequence[Kept] = ()
    waiting: bool = False
    read: float = 1.0

    @property
    def total(self) -> Figures:
        """Return all calls together."""
        return sum((group.figures for group in self.models), NOTHING)


class Budgets:
    """The budgets' store, looked at from time to time.

    Args:
        settings: They name the store; what programs count in memory cannot be seen from here.
        clock: Seconds.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._named = settings.budget_store if settings.budget_store != "memory" else "sqlite"
        self._clock = clock
        self._store: Store | None = None
        self._due = float("-inf")
        self.found: Sequence[Status] = ()
        self.problem: str | None = None

    def look(self) -> bool:
        """Read the store if that is due; tell whether anything changed."""
        if self._clock() < self._due:
            return False
        self._due = self._clock() + BUDGETS_EVERY
        before = self.found, self.problem
        try:
            self.found, self.problem = self._read(), None
        except (StoreError, SettingsError, click.ClickException) as error:
            self.found, self.problem = (), str(error)
        return (self.found, self.problem) != before

    def _read(self) -> Sequence[Status]:
        if self._named == "sqlite" and not default_path().exists():
            return ()  # to look for budgets does not make a file for them
        if self._store is None:
            self._store = store_of(self._named, budgets_of(self._settings))
        return sorted(statuses(self._store), key=lambda item: -(item.utilization or 0))

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()


class ReadWindow:
    """Which rows have been read: new ones at once, and those that were there before piece by piece, the newest first.

    So a panel over a large ledger is there at once, and completes itself while it is looked at.
    """

    def __init__(self) -> None:
        self._low = self._high = self._first = 0
        self._begun = False

    def windows(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return what to read now, of the rows `first` to `last`: pairs of numbers, after one and up to the other."""
        found = []
        if not self._begun:
            self._low = self._high = last
        elif last > self._high:
            found.append((self._high, last))
        self._high = last
        self._first = first
        ground = max(min(first - 1, last), 0)
        if self._low > ground:
            down = max(self._low - (PIECE if self._begun else FIRST_PIECE), ground)
            found.append((down, self._low))
            self._low = down
        self._begun = True
        return found

    @property
    def share(self) -> float:
        """Return how much of the rows has been read, from 0 to 1."""
        left = self._low - self._first + 1
        return 1.0 if left <= 0 else 1 - left / (self._high - self._first + 1)


class GroupedTotals:
    """Sums over rows, by time and by several facets at once.

    Args:
        facets: Name of a facet: the dimensions that it tells calls apart by.
        step: Nanoseconds by which calls are told apart in time; without it all lie in step 0.
    """

    def __init__(self, facets: Mapping[str, Sequence[str]], step: int = _EVER) -> None:
        self._facets = dict(facets)
        self._by = tuple(dict.fromkeys(name for names in self._facets.values() for name in names))
        self._step = step
        self.found: dict[str, dict[tuple[str, ...], Figures]] = {name: {} for name in self._facets}

    def read(self, ledger: Ledger, where: Where, rows: tuple[int, int]) -> None:
        """Add the rows of a window."""
        for group in ledger.timeline(self._step, self._by, where, rows):
            values = dict(zip(self._by, group.key[1:], strict=True))
            for name, dimensions in self._facets.items():
                key = (group.key[0], *(values[dimension] for dimension in dimensions))
                found = self.found[name]
                found[key] = found.get(key, NOTHING) + group.figures

    def drop_before(self, step: int) -> None:
        """Forget the steps before one."""
        for name, found in self.found.items():
            self.found[name] = {key: figures for key, figures in found.items() if int(key[0]) >= step}

    def by(self, facet: str) -> dict[tuple[str, ...], Figures]:
        """Return a facet's sums over all steps."""
        added: dict[tuple[str, ...], Figures] = {}
        for key, figures in self.found[facet].items():
            added[key[1:]] = added.get(key[1:], NOTHING) + figures
        return added


class BoardReader:
    """Reads the board of one scope, again and again.

    Args:
        path: The ledger; it may not be there yet.
        scope: Which calls are meant.
        settings: Tags whose values are shown also at zero, and the budgets' store.
        now: Unix nanoseconds.
        step: Nanoseconds by which sums are kept, for charts.
    """

    def __init__(
        self,
        path: Path,
        scope: PanelFilter,
        settings: Settings,
        now: Callable[[], int] | None = None,
        *,
        step: int = _EVER,
    ) -> None:
        self._path = path
        self._scope = scope
        self.step = step
        self._tags = settings.tags or {"tier": ()}
        self._now = now or time.time_ns
        self._budgets = Budgets(settings)
        self._ledger: Ledger | None = None
        self._file: tuple[int, int] | None = None
        self._seen: tuple[int, Where] | None = None
        self._forget()

    def _forget(self) -> None:
        self._past: deque[tuple[int, int, int]] = deque()
        self._board: Board | None = None
        self._seen = None
        self._read_anew(None)

    def _read_anew(self, where: Where | None) -> None:
        """Forget what was read of the rows, which are from now on read under another condition."""
        facets = {name: (TAG + name,) for name in self._tags} | {SERVICE_TIER: ("service_tier",)}
        self.sums = GroupedTotals(facets | {MODELS: ("provider", "model")}, self.step)
        self.first_tokens: dict[int, list[float]] = {}
        self.where = where
        self._reach = ReadWindow()

    @property
    def ledger(self) -> Ledger | None:
        """Return the ledger, opened; None while there is none.

        Raises:
            LedgerError: there is a file, and it cannot be used.
        """
        try:
            state = self._path.stat()
        except OSError:
            self.close()
            return None
        if self._file != (state.st_dev, state.st_ino):  # the first time, or another file has taken its place
            self.close()
            try:
                self._ledger = Ledger(self._path)
            except LedgerError as error:
                if error.kind in {"missing", "older"}:  # it is just being made
                    return None
                raise
            self._file = (state.st_dev, state.st_ino)
        return self._ledger

    def close(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
            self._forget()
        self._file = None

    def look(self) -> Board | None:
        """Return the board; None where nothing has changed since the last look.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        now = self._now()
        ledger = self.ledger
        changed = self._budgets.look()
        if ledger is None:
            if self._board is not None and self._board.waiting and not changed:
                return None
            self._board = self._with_budgets(Board(at=now, scope=self._scope.name, waiting=True))
            return self._board
        seen = ledger.version, self._scope.where(now)
        if seen == self._seen and self._board is not None and self._board.read == 1:
            return self._same(now, changed=changed)
        self._seen = seen
        self._board = self._read(ledger, seen[1], now)
        return self._board

    def _same(self, now: int, *, changed: bool) -> Board | None:
        """Return what the passing of time alone, or the budgets, have changed."""
        board = self._board
        if board is None:
            return None
        rate = self._rate(board.total, now)
        if not changed and rate == (board.calls_per_minute, board.spend_per_hour):
            return None
        self._board = self._with_budgets(replace(board, at=now, calls_per_minute=rate[0], spend_per_hour=rate[1]))
        return self._board

    def _read(self, ledger: Ledger, where: Where, now: int) -> Board:
        with ledger.at_one_moment():
            rows = ledger.since_reset(where)
            self._read_rows(ledger, rows)
            models = ledger.models(where) if _in_totals(rows) or where.since is None else self._models()
            calls = ledger.calls(rows, LAST_CALLS)
            total = sum((group.figures for group in models), NOTHING)
            if not self._past or total.calls < self._past[-1][1]:  # the beginning, or a reset
                self._begin(ledger, replace(rows, since=max(rows.since or 0, now - MINUTE)), total, now)
        calls_per_minute, spend_per_hour = self._rate(total, now)
        return self._with_budgets(
            Board(
                at=now,
                scope=self._scope.name,
                models=models,
                tiers=self._tiers(),
                calls_per_minute=calls_per_minute,
                spend_per_hour=spend_per_hour,
                calls=calls,
                read=self._reach.share,
            )
        )

    def _read_rows(self, ledger: Ledger, where: Where) -> None:
        """Read rows that are new, and some of those that were there before."""
        if not self._continues(where):
            self._read_anew(where)
        self.where = where
        for window in self._reach.windows(ledger.first_n_of(where), ledger.last_n):
            self.sums.read(ledger, where, window)
            for step, seconds in ledger.first_tokens(self.step, where, MOST_FIRST_TOKENS, window):
                self.first_tokens.setdefault(step, []).append(seconds)
        if where.since is not None:
            first = where.since // self.step
            self.sums.drop_before(first)
            for step in [step for step in self.first_tokens if step < first]:
                del self.first_tokens[step]

    def _continues(self, where: Where) -> bool:
        """Return whether what was read holds under a condition: the same, or one whose beginning moved on by steps."""
        before = self.where
        if before is None or self.step == _EVER:
            return before == where
        return replace(before, since=None) == replace(where, since=None)

    def _models(self) -> list[Group]:
        found = [Group(key, figures) for key, figures in self.sums.by(MODELS).items()]
        return sorted(found, key=lambda group: (-group.figures.spend, -group.figures.tokens, group.key))

    def by_step(self) -> Mapping[tuple[str, ...], Figures]:
        """Return sums by step, provider and model: whole days from the totals, else as far as rows have been read."""
        ledger = self.ledger
        if ledger is None or self.where is None:
            return {}
        if self.step == DAY and _in_totals(self.where):
            return {group.key: group.figures for group in ledger.timeline(DAY, ("provider", "model"), self.where)}
        return self.sums.found[MODELS]

    def _with_budgets(self, board: Board) -> Board:
        return replace(board, budgets=self._budgets.found, budgets_unknown=self._budgets.problem)

    def _tiers(self) -> dict[str, dict[str, Figures]]:
        """Return sums by the tags that are shown, and by the providers' service tiers where there are any."""
        tiers: dict[str, dict[str, Figures]] = {}
        for name in (*self._tags, SERVICE_TIER):
            found = dict.fromkeys(self._tags.get(name, ()), NOTHING)
            for (value,), figures in self.sums.by(name).items():
                if value:
                    found[value] = found.get(value, NOTHING) + figures
            if found:
                tiers[name] = found
        return tiers

    def _begin(self, ledger: Ledger, where: Where, total: Figures, now: int) -> None:
        """Begin the last minute's history with what that minute came to so far."""
        minute = sum((group.figures for group in ledger.timeline(_EVER, (), where)), NOTHING)
        self._past.clear()
        self._past.append((now - MINUTE, total.calls - minute.calls, total.spend - minute.spend))

    def _rate(self, total: Figures, now: int) -> tuple[int, int]:
        """Return calls per minute and atto-dollars per hour, over the last minute."""
        past = self._past
        if not past or (total.calls, total.spend) != past[-1][1:]:
            past.append((now, total.calls, total.spend))
        while len(past) > 1 and past[1][0] <= now - MINUTE:
            past.popleft()
        return max(total.calls - past[0][1], 0), max(total.spend - past[0][2], 0) * 60


def _in_totals(where: Where) -> bool:
    """Return whether the kept totals answer a condition, so that no row has to be read."""
    return where.after is None and (where.since is None or where.since % DAY == 0)


def look_once(path: Path, scope: PanelFilter, settings: Settings) -> Board:
    """Return the board as it is now.

    Raises:
        LedgerError: there is no ledger, or it cannot be read.
    """
    with closing(BoardReader(path, scope, settings)) as watch:
        board = watch.look()
        while board is not None and board.read < 1:
            board = watch.look()
    if board is None or board.waiting:
        raise LedgerError(f"ledger {path}: there is none yet; tollspan run -- python app.py begins one", "missing")
    return board


# --- For programs


def data_of(board: Board) -> dict[str, Any]:
    """Return a board as JSON values; amounts are exact decimal texts in US dollars."""
    return {
        "at": datetime.fromtimestamp(board.at / SECOND, UTC).isoformat(timespec="milliseconds"),
        "scope": board.scope,
        "waiting": board.waiting,
        "read": round(board.read, 3),
        "total": as_data(board.total),
        "calls_per_minute": board.calls_per_minute,
        "usd_per_hour": f"{usd(board.spend_per_hour):f}",
        "models": [
            {"provider": group.key[0], "model": group.key[1], **as_data(group.figures)} for group in board.models
        ],
        "tiers": {
            name: [{"value": value, **as_data(figures)} for value, figures in found.items()]
            for name, found in board.tiers.items()
        },
        "budgets": [_budget(item) for item in board.budgets],
        "budgets_unknown": board.budgets_unknown,
        "calls": [_call(kept) for kept in board.calls],
    }


def _budget(item: Status) -> dict[str, Any]:
    amounts = ("limit", "spent", "uncertain", "reserved", "remaining")
    values = {name: None if getattr(item, name) is None else str(getattr(item, name)) for name in amounts}
    return {
        "budget": item.budget,
        "counter": item.counter,
        "unit": item.unit,
        "utilization": item.utilization,
        **values,
    }


def _call(kept: Kept) -> dict[str, Any]:
    call, usage = kept.call, kept.call.usage
    return {
        "number": kept.n,
        "at": datetime.fromtimestamp(call.started_at / SECOND, UTC).isoformat(timespec="milliseconds"),
        "provider": call.provider,
        "model": call.model,
        "operation": call.operation,
        "outcome": call.outcome,
        "error": call.error_type,
        "billable": call.billable,
        "pending": call.counted == "pending" and not kept.settled,
        "input": None if usage is None else usage.input,
        "output": None if usage is None else usage.output,
        "cache_read": None if usage is None else usage.cache_read,
        "cost_usd": None if call.cost.amount is None else f"{usd(call.cost.amount):f}",
        "quality": call.cost.quality,
        "first_token_seconds": call.time_to_first_token,
        "seconds": call.duration,
    }
