"""The data of live views: the panel in the terminal and the page show the same `Board`.

Programs write calls into the ledger, and views read it. `BoardReader.look()` first reads SQLite's `data_version` of the
file, which takes some microseconds and changes with each commit of another process. Only if it has changed, `look()`
reads the stored totals and the new rows. So a view covers all processes without their help, and costs almost nothing
while no calls are made.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from tollspan.cli.live.budget_reader import BudgetReader
from tollspan.cli.live.refusal_reader import RefusalReader
from tollspan.cli.live.row_totals import EVER, GroupedTotals, ReadWindow
from tollspan.cli.times import shown
from tollspan.ledger.conditions import DAY, Where
from tollspan.ledger.keys import TAG
from tollspan.ledger.queries import Ledger
from tollspan.ledger.sums import Group
from tollspan.ledger.totals import NOTHING, Figures
from tollspan.model.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tollspan.budget.api import Status
    from tollspan.ledger.queries import Kept
    from tollspan.model.refusal import RefusedCalls
    from tollspan.settings import Settings

SECOND: Final = 10**9
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE

SERVICE_TIER: Final = "service tier"
MODELS: Final = "models"
MOST_FIRST_TOKENS: Final = 20_000
"""Times to the first token that are read from one piece of rows."""

LAST_CALLS: Final = 50


@dataclass(frozen=True, slots=True)
class Span:
    """A time range that ends now: `steps` steps of `step` nanoseconds each."""

    step: int
    steps: int

    def since(self, now: int) -> int:
        """Return the start of the range whose last step contains `now`; both are Unix nanoseconds."""
        return (now // self.step - self.steps + 1) * self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelFilter:
    """The calls that a view shows: those of a session or run, since a time, or of a span; by default today's (UTC)."""

    session: str | None = None
    run: str | None = None
    since: int | None = None
    span: Span | None = None

    @property
    def name(self) -> str:
        """Return the title of the filter."""
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
    """The data of a view at one time.

    Attributes:
        at: Unix nanoseconds.
        scope: The title of the filter.
        models: Totals by provider and model.
        tiers: Totals by tag (or "service tier") and value.
        calls_per_minute: Calls in the last minute.
        spend_per_hour: Atto-dollars per hour, from the last minute.
        budgets: The status of budgets, the fullest first.
        budgets_unknown: Why the budgets could not be read.
        calls: The latest calls.
        refused: The calls that budgets refused, by budget and reason, the most often refused first.
        waiting: Whether there is no ledger yet.
        read: The share of the rows that `tiers` include; also `models`, if the stored totals do not have them.
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
    refused: Sequence[RefusedCalls] = ()
    waiting: bool = False
    read: float = 1.0

    @property
    def total(self) -> Figures:
        """Return the total of all calls."""
        return sum((group.figures for group in self.models), NOTHING)


class BoardReader:
    """Reads the board of one filter repeatedly.

    Args:
        path: The ledger; it need not exist yet.
        scope: The calls to show.
        settings: They name the budget store, and the tags whose values are shown even at zero.
        now: Returns Unix nanoseconds.
        step: Nanoseconds of a step of time, for charts.
    """

    def __init__(
        self,
        path: Path,
        scope: PanelFilter,
        settings: Settings,
        now: Callable[[], int] | None = None,
        *,
        step: int = EVER,
    ) -> None:
        self._path = path
        self._scope = scope
        self.step = step
        self._tags = settings.tags or {"tier": ()}
        self._now = now or time.time_ns
        self._budgets = BudgetReader(settings)
        self._ledger: Ledger | None = None
        self._file: tuple[int, int] | None = None
        self._seen: tuple[int, Where] | None = None
        self._forget()

    def _forget(self) -> None:
        self._past: deque[tuple[int, int, int]] = deque()
        self._board: Board | None = None
        self._seen = None
        self._restart(None)

    def _restart(self, where: Where | None) -> None:
        """Discard the totals over rows, and read the rows again under another condition."""
        facets = {name: (TAG + name,) for name in self._tags} | {SERVICE_TIER: ("service_tier",)}
        self.sums = GroupedTotals(facets | {MODELS: ("provider", "model")}, self.step)
        self.first_tokens: dict[int, list[float]] = {}
        self.where = where
        self._window = ReadWindow()
        self._refused = RefusalReader()

    @property
    def ledger(self) -> Ledger | None:
        """Return the open ledger; None while there is none.

        Raises:
            LedgerError: the file exists but cannot be used.
        """
        try:
            state = self._path.stat()
        except OSError:
            self._close_ledger()
            return None
        if self._file != (state.st_dev, state.st_ino):  # the first time, or another file has replaced it
            self._close_ledger()
            try:
                self._ledger = Ledger(self._path)
            except LedgerError as error:
                if error.kind in {"missing", "older"}:  # another process is creating it
                    return None
                raise
            self._file = (state.st_dev, state.st_ino)
        return self._ledger

    def close(self) -> None:
        """Close the ledger, and the store of budgets."""
        self._close_ledger()
        self._budgets.close()

    def _close_ledger(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
            self._forget()
        self._file = None

    def look(self) -> Board | None:
        """Return the board, or None if nothing has changed since the last look.

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
            return self._refreshed(now, changed=changed)
        self._seen = seen
        self._board = self._read(ledger, seen[1], now)
        return self._board

    def _refreshed(self, now: int, *, changed: bool) -> Board | None:
        """Return the board with new rates and budgets; None if these are the same, too."""
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
            refused = self._refused.read(ledger, rows)
            total = sum((group.figures for group in models), NOTHING)
            if not self._past or total.calls < self._past[-1][1]:  # the first read, or a reset
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
                refused=refused,
                read=self._window.share,
            )
        )

    def _read_rows(self, ledger: Ledger, where: Where) -> None:
        """Read the new rows, and a piece of the earlier ones."""
        if not self._continues(where):
            self._restart(where)
        self.where = where
        for window in self._window.windows(ledger.first_n_of(where), ledger.last_n):
            self.sums.read(ledger, where, window)
            for step, seconds in ledger.first_tokens(self.step, where, MOST_FIRST_TOKENS, window):
                self.first_tokens.setdefault(step, []).append(seconds)
        if where.since is not None:
            first = where.since // self.step
            self.sums.drop_before(first)
            for step in [step for step in self.first_tokens if step < first]:
                del self.first_tokens[step]

    def _continues(self, where: Where) -> bool:
        """Return whether the totals stay valid under a condition: it is the same, or its start moved by whole steps."""
        before = self.where
        if before is None or self.step == EVER:
            return before == where
        return replace(before, since=None) == replace(where, since=None)

    def _models(self) -> list[Group]:
        groups = [Group(key, figures) for key, figures in self.sums.by(MODELS).items()]
        return sorted(groups, key=lambda group: (-group.figures.spend, -group.figures.tokens, group.key))

    def by_step(self) -> Mapping[tuple[str, ...], Figures]:
        """Return sums by step, provider and model: from the stored totals for whole days, else from the rows so far."""
        ledger = self.ledger
        if ledger is None or self.where is None:
            return {}
        if self.step == DAY and _in_totals(self.where):
            return {group.key: group.figures for group in ledger.timeline(DAY, ("provider", "model"), self.where)}
        return self.sums.by_facet[MODELS]

    def _with_budgets(self, board: Board) -> Board:
        return replace(board, budgets=self._budgets.statuses, budgets_unknown=self._budgets.problem)

    def _tiers(self) -> dict[str, dict[str, Figures]]:
        """Return sums by value of each tag that is shown, and by service tier if calls have one."""
        tiers: dict[str, dict[str, Figures]] = {}
        for name in (*self._tags, SERVICE_TIER):
            by_value = dict.fromkeys(self._tags.get(name, ()), NOTHING)
            for (value,), figures in self.sums.by(name).items():
                if value:
                    by_value[value] = by_value.get(value, NOTHING) + figures
            if by_value:
                tiers[name] = by_value
        return tiers

    def _begin(self, ledger: Ledger, where: Where, total: Figures, now: int) -> None:
        """Start the history of the last minute with the calls of that minute that the ledger already has."""
        minute = sum((group.figures for group in ledger.timeline(EVER, (), where)), NOTHING)
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
    """Return whether the stored totals suffice for a condition, without reading rows."""
    return where.after is None and (where.since is None or where.since % DAY == 0)


def look_once(path: Path, scope: PanelFilter, settings: Settings) -> Board:
    """Return the complete board, once.

    Raises:
        LedgerError: there is no ledger, or it cannot be read.
    """
    with closing(BoardReader(path, scope, settings)) as reader:
        board = reader.look()
        while board is not None and board.read < 1:
            board = reader.look()
    if board is None or board.waiting:
        raise LedgerError(f"ledger {path}: there is none yet; tollspan run -- python app.py creates one", "missing")
    return board
