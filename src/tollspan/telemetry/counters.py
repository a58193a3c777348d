"""The aggregated counters of this process: fed once per call record, read by metrics, budgets and summaries.

Decisions about money read these and never a metric reader: sampling, late readers and cardinality limits lose nothing
here. Amounts are integers (atto-dollars), so that no order of adding changes a sum. After a fork the child starts at
zero.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final

from tollspan.model.records import UNCERTAIN
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tollspan.model.records import Call, Cost

OTHER: Final = "other"
"""The model name under which calls are counted whose model no price list knows, past a cap."""


def _is_disputed(cost: Cost) -> bool:
    """Return whether the cost that a provider stated and the one computed beside it are more than 1% apart."""
    if cost.source != "provider" or cost.computed is None or cost.amount is None:
        return False
    return abs(cost.computed - cost.amount) * 100 > cost.amount


@dataclass(slots=True)
class Totals:
    """Sums over the calls of one key. Amounts in atto-dollars. `failed` are among `calls`, `pending` are not.

    `retried` are the attempts that sent an operation again, `retried_spend` is what they cost; `failed_spend` is what
    was paid for attempts that did not end well, such as streams that broke off. Both lie inside `spend`. `disputed` are
    the calls whose cost the provider stated, and which the price table puts more than 1% away from that. `uncertain`
    are those whose cost is an estimate or a lower bound.
    """

    calls: int = 0
    failed: int = 0
    pending: int = 0
    unpriced: int = 0
    uncertain: int = 0
    disputed: int = 0
    retried: int = 0
    spend: int = 0
    retried_spend: int = 0
    failed_spend: int = 0
    savings: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)

    def add(self, call: Call) -> None:
        """Count one call; one that is pending is counted when it is settled, and only as an attempt before."""
        self.outcomes[call.outcome] = self.outcomes.get(call.outcome, 0) + 1
        counted = call.counted
        if counted == "pending":
            self.pending += 1
            return
        self.calls += 1
        if call.resend_count is not None:
            self.retried += 1
        if counted == "failed":
            self.failed += 1
            return
        cost, usage = call.cost, call.usage
        if cost.quality in UNCERTAIN:
            self.uncertain += 1
        if cost.amount is None:
            self.unpriced += 1
        else:
            self._add_cost(call, cost.amount)
        if usage is not None:
            self.input += usage.input or 0
            self.output += usage.output or 0
            self.cache_read += usage.cache_read or 0
            self.cache_write += usage.cache_write or 0
            self.reasoning += usage.reasoning or 0

    def _add_cost(self, call: Call, amount: int) -> None:
        self.spend += amount
        self.savings += call.cost.savings
        self.disputed += _is_disputed(call.cost)
        if call.resend_count is not None:
            self.retried_spend += amount
        if call.outcome != "ok":
            self.failed_spend += amount

    def __add__(self, other: Totals) -> Totals:
        """Return the sums of both."""
        outcomes = {
            key: self.outcomes.get(key, 0) + other.outcomes.get(key, 0) for key in self.outcomes | other.outcomes
        }
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self) if f.name != "outcomes"}
        return Totals(**sums, outcomes=outcomes)


Key = tuple[str, str, str]
"""Provider, operation, model."""
Attribution = tuple[tuple[str, str], ...]
"""Attribution that is let onto metrics: keys and values, in the order of the setting."""
MOST_PENDING: Final = 10_000
"""Pending records that are remembered until they are settled; past that, the oldest stay pending."""
MOST_WHO: Final = 1000
"""Sets of values of attribution that are told apart; whoever comes later is `other`."""


class Accumulator:
    """Counts calls by provider, operation and model; safe under threads, signals and fork."""

    def __init__(self, max_unlisted: int = 100, by: tuple[str, ...] = ()) -> None:
        """Start at zero.

        Args:
            max_unlisted: how many model names are kept that no price list knows.
            by: keys of attribution by which calls are told apart too.
        """
        self._max_unlisted = max_unlisted
        self._by = by
        self._fresh()
        renew_in_child(self, Accumulator._fresh)

    def _fresh(self) -> None:
        self._lock = threading.RLock()  # reentrant: a finalizer may run in the middle of an addition
        self._totals: dict[tuple[Key, Attribution], Totals] = {}
        self._who: set[Attribution] = set()
        self._names: set[str] = set()
        self._unlisted = 0
        self._others: set[str] = set()
        self._kinds: set[str] = set()
        self._pending: OrderedDict[str, Totals] = OrderedDict()
        self.spend = 0
        self.calls = 0
        self.unpriced = 0
        self.errors: dict[str, int] = {}

    def add(self, call: Call) -> None:
        """Count one call record."""
        with self._lock:
            key = (call.provider, call.operation, self.label(call)), self.who(call)
            totals = self._totals.get(key)
            if totals is None:
                totals = self._totals[key] = Totals()
            totals.add(call)
            self._settle(call, totals)
            self.calls += call.counted != "pending"
            if call.billable and call.cost.amount is not None:
                self.spend += call.cost.amount
            elif call.billable:
                self.unpriced += 1

    def _settle(self, call: Call, totals: Totals) -> None:
        """Take what a call settles from the pending ones, under the key that it was counted under."""
        if call.counted == "pending":
            self._pending[call.id] = totals
            if len(self._pending) > MOST_PENDING:
                self._pending.popitem(last=False)
        elif call.settles is not None and (asked := self._pending.pop(call.settles, None)) is not None:
            asked.pending -= 1

    def label(self, call: Call) -> str:
        """Return the model name to count a call under: names that no price list knows are capped.

        An answer confirms nothing: there are servers that give back whatever name they are asked for.
        """
        name = call.model or OTHER
        if name in self._names:
            return name
        key = call.cost.price_key
        if key is None or not (key == name or key.endswith(f"/{name}")):
            if self._unlisted >= self._max_unlisted:
                return OTHER
            self._unlisted += 1
        self._names.add(name)
        return name

    def capped(self, name: str) -> str:
        """Return another name of a call's model as it may stand on a metric."""
        return name if name in self._names else self._one_of(self._others, name)

    def kind(self, error_type: str) -> str:
        """Return what an error is called as it may stand on a metric: it is the server's word."""
        return self._one_of(self._kinds, error_type)

    def _one_of(self, known: set[str], name: str) -> str:
        if name in known:
            return name
        if len(known) >= self._max_unlisted:
            return OTHER
        known.add(name)
        return name

    def count_error(self, kind: str) -> int:
        """Count a failure of our own; give how many of this kind there have been."""
        with self._lock:
            self.errors[kind] = self.errors.get(kind, 0) + 1
            return self.errors[kind]

    def who(self, call: Call) -> Attribution:
        """Return the attribution to count a call under: the keys that are let onto metrics, and not too many values."""
        if not self._by:
            return ()
        who = tuple((key, call.attribution[key]) for key in self._by if key in call.attribution)
        if who in self._who:
            return who
        if len(self._who) >= MOST_WHO:
            return tuple((key, OTHER) for key, _ in who)
        self._who.add(who)
        return who

    def items(self) -> Iterator[tuple[Key, Totals]]:
        """Return the totals by key, as they stand; a key comes once for each attribution."""
        for key, _, totals in self.series():
            yield key, totals

    def series(self) -> Iterator[tuple[Key, Attribution, Totals]]:
        """Return the totals by key and attribution, as they stand."""
        with self._lock:
            found = list(self._totals.items())
        for (key, who), totals in found:
            yield key, who, totals
