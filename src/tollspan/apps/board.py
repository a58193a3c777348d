"""What panels show, as the ledger grows: the one in the terminal and the page are two forms of the same `Board`.

How it is fed: programs write their calls into the ledger, panels read it. `Watch.look()` asks SQLite for the file's
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

from tollspan.apps.budget_cli import statuses
from tollspan.apps.inspection import as_data
from tollspan.apps.moments import shown
from tollspan.budget.configuration import store_of
from tollspan.budget.stores import StoreError
from tollspan.budget.stores.sqlite import default_path
from tollspan.errors import LedgerError, SettingsError
from tollspan.ledger.queries import DAY, Ledger, Where
from tollspan.ledger.rows import TAG
from tollspan.ledger.totals import NOTHING, Figures
from tollspan.usage import usd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tollspan.budget.scope import Status
    from tollspan.budget.stores import Store
    from tollspan.ledger.queries import Group, Kept
    from tollspan.settings import Settings

SECOND: Final = 10**9
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
_EVER: Final = 2**62
"""A step so long that all calls lie in the same one."""

SERVICE_TIER: Final = "service tier"
LAST_CALLS: Final = 50
BUDGETS_EVERY: Final = 2.0
"""Seconds between two looks at the budgets' store: what is reserved there changes without a call in the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which calls a panel is about: a session, a run, all since a moment, or, where none is given, today's (UTC)."""

    session: str | None = None
    run: str | None = None
    since: int | None = None

    @property
    def name(self) -> str:
        """Give the words for it."""
        if self.session is not None:
            return f"session {self.session}"
        if self.run is not None:
            return f"run {self.run}"
        return "today (UTC)" if self.since is None else f"since {shown(self.since)[:-3]} UTC"

    def where(self, now: int) -> Where:
        """Give the condition as of `now`, Unix nanoseconds."""
        if self.session is not None or self.run is not None:
            return Where(session=self.session, run=self.run, since=self.since)
        return Where(since=now // DAY * DAY if self.since is None else self.since)


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """What there is to show. `models` are keyed by provider and model, `tiers` by tag (or "service tier") and value.

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

    @property
    def total(self) -> Figures:
        """Give all calls together."""
        return sum((group.figures for group in self.models), NOTHING)


class Budgets:
    """The budgets' store, looked at from time to time.

    Args:
        settings: They name the store; what programs count in memory cannot be seen from here.
        clock: Seconds.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
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
            self._store = store_of(self._named)
        return sorted(statuses(self._store), key=lambda item: -(item.utilization or 0))

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()


class Sums:
    """Sums over calls that grow with the ledger: of what was read once, only new rows are read again.

    Args:
        by: What to tell calls apart by.
        step: Nanoseconds by which to tell them apart in time; none makes one step of all.
    """

    def __init__(self, by: Sequence[str], step: int = _EVER) -> None:
        self._by = by
        self._step = step
        self._where: Where | None = None
        self._after = 0
        self.found: dict[tuple[str, ...], Figures] = {}

    def read(self, ledger: Ledger, where: Where, last: int) -> None:
        """Read what is new up to row `last`; another condition begins anew, a later `since` drops what came before."""
        if not self._continues(where):
            self.found, self._after = {}, where.after or 0
        fresh = self._where is None or not self.found
        self._where = where
        if last <= self._after and not fresh:
            return
        asked = where if not self._after else replace(where, after=self._after)
        for group in ledger.timeline(self._step, self._by, asked):
            self.found[group.key] = self.found.get(group.key, NOTHING) + group.figures
        self._after = last
        if where.since is not None:
            first = where.since // self._step
            self.found = {key: figures for key, figures in self.found.items() if int(key[0]) >= first}

    def _continues(self, where: Where) -> bool:
        """Tell whether what was read still holds under a condition: the same, or one whose beginning moved by steps."""
        before = self._where
        if before is None or self._step == _EVER:
            return before == where
        return replace(before, since=None) == replace(where, since=None)


class Watch:
    """Reads the board of one scope, again and again.

    Args:
        path: The ledger; it may not be there yet.
        scope: Which calls are meant.
        settings: Tags whose values are shown also at zero, and the budgets' store.
        now: Unix nanoseconds.
    """

    def __init__(self, path: Path, scope: Scope, settings: Settings, now: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._scope = scope
        self._tags = settings.tags or {"tier": ()}
        self._now = now
        self._budgets = Budgets(settings)
        self._ledger: Ledger | None = None
        self._file: tuple[int, int] | None = None
        self._seen: tuple[int, Where] | None = None
        self._forget()

    def _forget(self) -> None:
        self._sums = {name: Sums((TAG + name,)) for name in self._tags} | {SERVICE_TIER: Sums(("service_tier",))}
        self._past: deque[tuple[int, int, int]] = deque()
        self._board: Board | None = None
        self._seen = None

    @property
    def ledger(self) -> Ledger | None:
        """Give the ledger, opened; None while there is none.

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
        """Give the board; None where nothing has changed since the last look.

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
        if seen == self._seen and self._board is not None:
            return self._same(now, changed=changed)
        self._seen = seen
        self._board = self._read(ledger, seen[1], now)
        return self._board

    def _same(self, now: int, *, changed: bool) -> Board | None:
        """Give what the passing of time alone, or the budgets, have changed."""
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
            models, last = ledger.models(where), ledger.last_n
            rows = ledger.since_reset(where)
            for sums in self._sums.values():
                sums.read(ledger, rows, last)
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
            )
        )

    def _with_budgets(self, board: Board) -> Board:
        return replace(board, budgets=self._budgets.found, budgets_unknown=self._budgets.problem)

    def _tiers(self) -> dict[str, dict[str, Figures]]:
        """Give sums by the tags that are shown, and by the providers' service tiers where there are any."""
        tiers: dict[str, dict[str, Figures]] = {}
        for name, sums in self._sums.items():
            found = dict.fromkeys(self._tags.get(name, ()), NOTHING)
            for (_, value), figures in sums.found.items():
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
        """Give calls per minute and atto-dollars per hour, over the last minute."""
        past = self._past
        if not past or (total.calls, total.spend) != past[-1][1:]:
            past.append((now, total.calls, total.spend))
        while len(past) > 1 and past[1][0] <= now - MINUTE:
            past.popleft()
        return max(total.calls - past[0][1], 0), max(total.spend - past[0][2], 0) * 60


def look_once(path: Path, scope: Scope, settings: Settings) -> Board:
    """Give the board as it is now.

    Raises:
        LedgerError: there is no ledger, or it cannot be read.
    """
    with closing(Watch(path, scope, settings)) as watch:
        board = watch.look()
    if board is None or board.waiting:
        raise LedgerError(f"ledger {path}: there is none yet; tollspan run -- python app.py begins one", "missing")
    return board


# --- For programs


def data_of(board: Board) -> dict[str, Any]:
    """Give a board as JSON values; amounts are exact decimal texts in US dollars."""
    return {
        "at": datetime.fromtimestamp(board.at / SECOND, UTC).isoformat(timespec="milliseconds"),
        "scope": board.scope,
        "waiting": board.waiting,
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
        "input": None if usage is None else usage.input,
        "output": None if usage is None else usage.output,
        "cache_read": None if usage is None else usage.cache_read,
        "cost_usd": None if call.cost.amount is None else f"{usd(call.cost.amount):f}",
        "quality": call.cost.quality,
        "first_token_seconds": call.time_to_first_token,
        "seconds": call.duration,
    }
