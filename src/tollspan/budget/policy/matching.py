"""Budgets made ready to be asked: which of them a call counts towards, on which counter, and in which period.

`CompiledBudgets.matching(traits)` returns the budgets of a call in a time that depends on how many match, not how many
are: budgets that name one value are found by it, and for the patterns of the others the answer is remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple

from tollspan.budget.policy.budget import Assumed
from tollspan.budget.policy.counter_names import key_of, prefix_of
from tollspan.budget.policy.enforcement import FIT, HARD, SOFT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.policy.periods import Window

KEPT: Final = 4096
"""Answers that are remembered; past that, the oldest is worked out again."""

TURNS_EVERY: Final = 3600.0
"""Seconds for which a counter's date of being forgotten is left as it is."""

_BOUND: Final = frozenset({"session", "run"})
"""Periods that a call's attribution names; they are keys of the counter, too."""


class ActivePeriod(NamedTuple):
    """What is right of a budget from `since` until before `until`, in Unix seconds.

    `kept_until`: when its counters may be forgotten; `keys`: their names, by values of `CompiledBudget.keyed`. All are
    replaced at once: a thread that is late at midnight goes on with what it has, and leaves none of it to the others.
    """

    since: float
    until: float
    window: Window
    kept_until: float | None
    keys: dict[tuple[str, ...], str]


class CompiledBudget:
    """A budget made ready: the period it is in, and the names of its counters in it."""

    __slots__ = (
        "_turn",
        "adjusts",
        "budget",
        "keyed",
        "limit",
        "mode",
        "name",
        "prefix",
        "refuses_unpriced",
        "streamed",
        "unit",
    )

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.name = budget.name
        self.limit = budget.limit.amount
        self.unit = budget.limit.unit
        self.mode = SOFT if budget.on_exceed == "warn" else HARD
        self.streamed = FIT if budget.on_exceed == "cut" else self.mode  # for a call whose answer can be cut
        self.adjusts = budget.estimate == "expected" or isinstance(budget.unpriced, Assumed)
        self.refuses_unpriced = budget.unpriced != "allow" and self.mode != SOFT
        self.prefix = prefix_of(budget.name)
        kind = budget.period.kind
        self.keyed = ((kind,) if kind in _BOUND else ()) + budget.per
        self._turn: ActivePeriod | None = None

    @property
    def asks_for(self) -> frozenset[str]:
        """Return what the rule has to know of a call: what it matches, and what it is kept by."""
        return frozenset(self.keyed) | frozenset(self.budget.match)

    def turn(self, now: float) -> ActivePeriod:
        """Return what is right at `now`; clocks may jump either way."""
        turn = self._turn
        if turn is None or not turn.since <= now < turn.until:
            period = self.budget.period
            window = period.window(now)
            # Also where no clock ends the period: a counter that is in use is kept for longer and longer.
            since, until = max(window.since, now - TURNS_EVERY), min(window.until, now + TURNS_EVERY)
            keys = turn.keys if turn is not None and turn.window.name == window.name else {}
            turn = self._turn = ActivePeriod(since, until, window, period.kept_until(window, now), keys)
        return turn

    def values(self, traits: Mapping[str, str]) -> tuple[str, ...] | None:
        """Return the values of `keyed`, which tell counters apart; None where one has to be set and is not."""
        found = []
        for key in self.keyed:
            value = traits.get(key, "")
            if not value and key == self.budget.period.kind:
                value = traits.get("run", "")  # calls without a session are those of the run
            elif not value and self.budget.unset != "shared":
                return None
            found.append(value)
        return tuple(found)

    def key(self, turn: ActivePeriod, values: tuple[str, ...]) -> str:
        """Return the name of the counter for these values."""
        known = turn.keys.get(values)
        if known is None:
            if len(turn.keys) >= KEPT:
                turn.keys.clear()
            known = turn.keys[values] = key_of(self.prefix, turn.window.name, zip(self.keyed, values, strict=True))
        return known


class Block:
    """A `with tollspan.budget(...)` block: its budgets, the keys of their counters, and the block around it."""

    __slots__ = ("outer", "owner", "rules")

    def __init__(self, budgets: Iterable[tuple[Budget, str]], outer: Block | None, owner: object) -> None:
        """Prepare the budgets; `owner` is what the user holds."""
        self.rules = tuple((CompiledBudget(budget), key) for budget, key in budgets)
        self.outer = outer
        self.owner = owner


blocks: ContextVar[Block | None] = ContextVar("tollspan_budgets", default=None)
"""The blocks in force, innermost first."""


class CompiledBudgets:
    """The configured budgets (see the module's text)."""

    def __init__(self, budgets: Iterable[Budget]) -> None:
        self.all = tuple(CompiledBudget(budget) for budget in budgets)
        by_keys: dict[tuple[str, ...], list[CompiledBudget]] = {}
        for rule in self.all:
            by_keys.setdefault(tuple(sorted(rule.budget.match)), []).append(rule)
        self._general = tuple(by_keys.pop((), ()))
        self.unmatched = () if by_keys else self._general  # where none of them matches by anything: all of them
        self._groups = tuple(_Group(keys, rules) for keys, rules in by_keys.items())
        self._keys = tuple(sorted({key for group in self._groups for key in group.keys}))
        self._matched: OrderedDict[tuple[str | None, ...], tuple[CompiledBudget, ...]] = OrderedDict()
        asked = frozenset[str]().union(*(rule.asks_for for rule in self.all))
        self.bound = bool(asked & _BOUND)
        """Whether any budget asks for the session or run of a call."""
        self.by_session = "session" in asked
        self.downgrades = any(rule.budget.on_exceed == "downgrade" for rule in self.all)

    def matching(self, traits: Mapping[str, str]) -> tuple[CompiledBudget, ...]:
        """Return the budgets that a call with these traits counts towards."""
        if not self._groups:
            return self._general
        signature = tuple(map(traits.get, self._keys))
        found = self._matched.get(signature)
        if found is None:
            found = self._general + tuple(rule for group in self._groups for rule in group.matching(traits))
            _remember(self._matched, signature, found)
        return found


class _Group:
    """Budgets that match by the same keys."""

    def __init__(self, keys: tuple[str, ...], rules: Iterable[CompiledBudget]) -> None:
        self.keys = keys
        self._by_value: dict[tuple[str, str], list[CompiledBudget]] = {}
        self._patterns = []
        for rule in rules:
            exact = [(key, value) for key in keys if (value := _only_value(rule.budget.match[key])) is not None]
            if exact:
                self._by_value.setdefault(exact[-1], []).append(rule)
            else:
                self._patterns.append(rule)
        self._matched: OrderedDict[tuple[str | None, ...], tuple[CompiledBudget, ...]] = OrderedDict()

    def matching(self, traits: Mapping[str, str]) -> tuple[CompiledBudget, ...]:
        signature = tuple(map(traits.get, self.keys))
        found = self._matched.get(signature)
        if found is None:
            candidates = list(self._patterns)
            for key, value in zip(self.keys, signature, strict=True):
                if value is not None:
                    candidates += self._by_value.get((key, value), ())
            found = tuple(rule for rule in candidates if rule.budget.fits(traits))
            _remember(self._matched, signature, found)
        return found


def _only_value(patterns: tuple[str, ...]) -> str | None:
    """Return the one value that patterns stand for, if it is one and has no wildcards."""
    return patterns[0] if len(patterns) == 1 and not any(mark in patterns[0] for mark in "*?[") else None


def _remember(
    kept: OrderedDict[tuple[str | None, ...], tuple[CompiledBudget, ...]],
    signature: tuple[str | None, ...],
    found: tuple[CompiledBudget, ...],
) -> None:
    kept[signature] = found
    while len(kept) > KEPT:
        kept.popitem(last=False)
