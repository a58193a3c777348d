"""Budgets prepared for checks: which of them apply to a call, on which counter, and in which period.

`CompiledBudgets.matching(traits)` returns the budgets of a call in a time that depends on how many match, not on how
many there are: budgets that name one value are found by it, and the results of patterns are remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from tollspan.budget.policy.budget import Assumed
from tollspan.budget.policy.counter_names import key_of, prefix_of
from tollspan.budget.policy.enforcement import CUT, HARD, SOFT, USUAL
from tollspan.runtime.blocks import Blocks, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.policy.periods import Window

MAX_REMEMBERED: Final = 4096
"""Results that are remembered; beyond that, the oldest is computed again."""

PERIOD_CHECKED_EVERY: Final = 3600.0
"""Seconds after which the time until which a counter is kept is computed again."""

_ATTRIBUTED: Final = frozenset({"session", "run"})
"""Periods that a call's attribution names. They are part of the counter's key, too."""


class ActivePeriod(NamedTuple):
    """The period of a budget from `since` until before `until`, in Unix seconds.

    Attributes:
        since: when this period was valid first.
        until: when it has to be computed again.
        window: the budget's window.
        kept_until: when the counters of the period may be deleted.
        keys: the names of the counters, by values of `CompiledBudget.keyed_by`.

    All are replaced together: a thread that is late at midnight goes on with the period it has, and does not change
    what other threads use.
    """

    since: float
    until: float
    window: Window
    kept_until: float | None
    keys: dict[tuple[str, ...], str]


class CompiledBudget:
    """A budget with its current period, and the names of its counters in it.

    Attributes:
        budget: the budget; `name`, `limit` and `unit` are its own.
        mode: what happens to an amount that does not fit (see `enforcement`).
        stream_mode: the same for a call whose response can be cut.
        assumes: whether it assumes a price for models without one.
        is_hard: whether a call reserves the most that it can use.
        refuses_unpriced: whether a call without a known cost is refused.
        prefix: what the names of its counters begin with.
        keyed_by: the traits that tell its counters apart.
    """

    __slots__ = (
        "_period",
        "assumes",
        "budget",
        "is_hard",
        "keyed_by",
        "limit",
        "mode",
        "name",
        "prefix",
        "refuses_unpriced",
        "stream_mode",
        "unit",
    )

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.name = budget.name
        self.limit = budget.limit.amount
        self.unit = budget.limit.unit
        self.is_hard = budget.hard
        self.mode = SOFT if budget.on_exceed == "warn" else HARD if budget.hard else USUAL
        self.stream_mode = CUT if budget.on_exceed == "cut" else self.mode
        self.assumes = isinstance(budget.unpriced, Assumed)
        self.refuses_unpriced = budget.unpriced != "allow" and self.mode != SOFT
        self.prefix = prefix_of(budget.name)
        kind = budget.period.kind
        self.keyed_by = ((kind,) if kind in _ATTRIBUTED else ()) + budget.per
        self._period: ActivePeriod | None = None

    @property
    def required_traits(self) -> frozenset[str]:
        """Return the traits of a call that the budget matches or is kept by."""
        return frozenset(self.keyed_by) | frozenset(self.budget.match)

    def active_period(self, now: float) -> ActivePeriod:
        """Return the period at `now`; the clock may have been set forward or back."""
        active = self._period
        if active is None or not active.since <= now < active.until:
            period = self.budget.period
            window = period.window(now)
            # Also if no clock ends the period: a counter that is in use has to be kept longer and longer.
            since, until = max(window.since, now - PERIOD_CHECKED_EVERY), min(window.until, now + PERIOD_CHECKED_EVERY)
            keys = active.keys if active is not None and active.window.name == window.name else {}
            active = self._period = ActivePeriod(since, until, window, period.kept_until(window, now), keys)
        return active

    def values(self, traits: Mapping[str, str]) -> tuple[str, ...] | None:
        """Return the values of `keyed_by`; None if one is not set and the budget requires it."""
        values = []
        for key in self.keyed_by:
            value = traits.get(key, "")
            if not value and key == self.budget.period.kind:
                value = traits.get("run", "")  # calls without a session belong to the run's
            elif not value and self.budget.unset != "shared":
                return None
            values.append(value)
        return tuple(values)

    def key(self, period: ActivePeriod, values: tuple[str, ...]) -> str:
        """Return the name of the counter for these values."""
        key = period.keys.get(values)
        if key is None:
            if len(period.keys) >= MAX_REMEMBERED:
                period.keys.clear()
            pairs = zip(self.keyed_by, values, strict=True)
            key = period.keys[values] = key_of(self.prefix, period.window.name, pairs)
        return key


class Block(Entry[object]):
    """A `with tollspan.budget(...)` block that was entered: its budgets, with the keys of their counters."""

    __slots__ = ("budgets",)

    def __init__(self, budgets: tuple[tuple[CompiledBudget, str], ...], owner: object) -> None:
        """Prepare to enter it; `owner` is the object that the user holds."""
        super().__init__(owner)
        self.budgets = budgets


blocks: Final[Blocks[Block]] = Blocks("tollspan_budgets")
"""The current blocks."""


class CompiledBudgets:
    """The configured budgets (see the module's text).

    Attributes:
        all: every budget.
        unmatched: all budgets if none of them matches by any trait, else none.
        needs_run: whether a budget needs the session or run of a call.
        needs_session: whether a budget needs the session of a call.
        downgrades: whether a budget can request a smaller model.
    """

    def __init__(self, budgets: Iterable[Budget]) -> None:
        self.all = tuple(CompiledBudget(budget) for budget in budgets)
        by_keys: dict[tuple[str, ...], list[CompiledBudget]] = {}
        for budget in self.all:
            by_keys.setdefault(tuple(sorted(budget.budget.match)), []).append(budget)
        self._general = tuple(by_keys.pop((), ()))
        self.unmatched = () if by_keys else self._general
        self._groups = tuple(_Group(keys, grouped) for keys, grouped in by_keys.items())
        self._keys = tuple(sorted({key for group in self._groups for key in group.keys}))
        self._remembered: OrderedDict[tuple[str | None, ...], tuple[CompiledBudget, ...]] = OrderedDict()
        required = frozenset[str]().union(*(budget.required_traits for budget in self.all))
        self.needs_run = bool(required & _ATTRIBUTED)
        self.needs_session = "session" in required
        self.downgrades = any(budget.budget.on_exceed == "downgrade" for budget in self.all)

    def matching(self, traits: Mapping[str, str]) -> tuple[CompiledBudget, ...]:
        """Return the budgets that apply to a call with these traits."""
        if not self._groups:
            return self._general
        signature = tuple(map(traits.get, self._keys))
        matching = self._remembered.get(signature)
        if matching is None:
            matching = self._general + tuple(budget for group in self._groups for budget in group.matching(traits))
            _remember(self._remembered, signature, matching)
        return matching


class _Group:
    """Budgets that match by the same keys."""

    def __init__(self, keys: tuple[str, ...], budgets: Iterable[CompiledBudget]) -> None:
        self.keys = keys
        self._by_value: dict[tuple[str, str], list[CompiledBudget]] = {}
        self._patterns = []
        for budget in budgets:
            exact = [(key, value) for key in keys if (value := _only_value(budget.budget.match[key])) is not None]
            if exact:
                self._by_value.setdefault(exact[-1], []).append(budget)
            else:
                self._patterns.append(budget)
        self._remembered: OrderedDict[tuple[str | None, ...], tuple[CompiledBudget, ...]] = OrderedDict()

    def matching(self, traits: Mapping[str, str]) -> tuple[CompiledBudget, ...]:
        signature = tuple(map(traits.get, self.keys))
        matching = self._remembered.get(signature)
        if matching is None:
            candidates = list(self._patterns)
            for key, value in zip(self.keys, signature, strict=True):
                if value is not None:
                    candidates += self._by_value.get((key, value), ())
            matching = tuple(budget for budget in candidates if budget.budget.fits(traits))
            _remember(self._remembered, signature, matching)
        return matching


def _only_value(patterns: tuple[str, ...]) -> str | None:
    """Return the one value that patterns match; None if they match several."""
    return patterns[0] if len(patterns) == 1 and not any(mark in patterns[0] for mark in "*?[") else None


def _remember(
    remembered: OrderedDict[tuple[str | None, ...], tuple[CompiledBudget, ...]],
    signature: tuple[str | None, ...],
    matching: tuple[CompiledBudget, ...],
) -> None:
    remembered[signature] = matching
    while len(remembered) > MAX_REMEMBERED:
        remembered.popitem(last=False)
