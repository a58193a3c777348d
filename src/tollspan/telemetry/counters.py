"""The aggregated counters of this process: updated once per call record, read by metrics, budgets and summaries.

Decisions about money read these counters and never a metric reader: sampling, late readers and cardinality limits lose
nothing here. Amounts are integers (atto-dollars), so a sum does not depend on the order of its parts. A forked child
starts at zero.
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
"""The name under which models without a price are counted, beyond a limit of such names."""


def _is_disputed(cost: Cost) -> bool:
    """Return whether the stated cost of a call and its computed cost differ by more than 1%."""
    if cost.source != "provider" or cost.computed is None or cost.amount is None:
        return False
    return abs(cost.computed - cost.amount) * 100 > cost.amount


@dataclass(slots=True)
class Totals:
    """Sums over the calls of one key; amounts are in atto-dollars.

    `calls` includes `failed`, but neither `pending` nor `denied`, which were never sent. `retried` counts the attempts
    that sent an operation again, and `retried_spend` is their cost. `failed_spend` is the cost of attempts that did not
    end well, such as aborted streams. Both are part of `spend`. `disputed` counts the calls whose stated cost differs
    from the computed one by more than 1%, `uncertain` those whose cost is an estimate or a lower bound.
    """

    calls: int = 0
    failed: int = 0
    denied: int = 0
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
        """Count one call; a pending one counts as an attempt now, and as a call when it is settled."""
        self.outcomes[call.outcome] = self.outcomes.get(call.outcome, 0) + 1
        counted = call.counted
        if counted == "pending":
            self.pending += 1
            return
        if counted == "denied":
            self.denied += 1
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
"""The attribution on metrics: keys and values, in the order of the setting."""
MOST_PENDING: Final = 10_000
"""Pending records that are remembered until they are settled; beyond that, the oldest stay pending."""
MOST_ATTRIBUTIONS: Final = 1000
"""Sets of values of attribution that are counted separately; later ones are counted as `other`."""


class Accumulator:
    """Counts calls by provider, operation and model; safe under threads, signals and fork.

    Args:
        max_unlisted: how many model names without a price are counted separately.
        by: keys of attribution by which calls are counted separately, too.
    """

    def __init__(self, max_unlisted: int = 100, by: tuple[str, ...] = ()) -> None:
        self._max_unlisted = max_unlisted
        self._by = by
        self._renew()
        renew_in_child(self, Accumulator._renew)

    def _renew(self) -> None:
        """Start at zero with a new lock, also in a forked child: the parent counts what is the parent's."""
        self._lock = threading.RLock()  # reentrant: a finalizer may run in the middle of an addition
        self._totals: dict[tuple[Key, Attribution], Totals] = {}
        self._attributions: set[Attribution] = set()
        self._names: set[str] = set()
        self._unlisted = 0
        self._others: set[str] = set()
        self._error_types: set[str] = set()
        self._pending: OrderedDict[str, Totals] = OrderedDict()
        self.spend = 0
        self.calls = 0
        self.unpriced = 0
        self.errors: dict[str, int] = {}

    def add(self, call: Call) -> None:
        """Count one call record."""
        with self._lock:
            key = (call.provider, call.operation, self.label(call)), self.attribution(call)
            totals = self._totals.get(key)
            if totals is None:
                totals = self._totals[key] = Totals()
            totals.add(call)
            if call.pending or call.settles is not None:
                self._settle(call, totals)
            self.calls += call.counted not in {"pending", "denied"}
            if call.billable and call.cost.amount is not None:
                self.spend += call.cost.amount
            elif call.billable:
                self.unpriced += 1

    def _settle(self, call: Call, totals: Totals) -> None:
        """Remember a pending call by its id; subtract the pending call that this one settles, under that one's key."""
        if call.counted == "pending":
            self._pending[call.id] = totals
            if len(self._pending) > MOST_PENDING:
                self._pending.popitem(last=False)
        elif call.settles is not None and (settled := self._pending.pop(call.settles, None)) is not None:
            settled.pending -= 1

    def label(self, call: Call) -> str:
        """Return the model name to count a call under; only a limited number of names without a price is kept.

        A response confirms no name: there are servers that repeat every name that a request has.
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
        """Return the requested model name as it may be put on a metric: one of a limited number."""
        return name if name in self._names else self._one_of(self._others, name)

    def kind(self, error_type: str) -> str:
        """Return an error type as it may be put on a metric: the server chooses it, so their number is limited."""
        return self._one_of(self._error_types, error_type)

    def _one_of(self, known: set[str], name: str) -> str:
        if name in known:
            return name
        if len(known) >= self._max_unlisted:
            return OTHER
        known.add(name)
        return name

    def count_error(self, kind: str) -> int:
        """Count an internal error; return how many of this kind there were."""
        with self._lock:
            self.errors[kind] = self.errors.get(kind, 0) + 1
            return self.errors[kind]

    def attribution(self, call: Call) -> Attribution:
        """Return the attribution to count a call under: the keys of the setting, and a limited number of values."""
        if not self._by:
            return ()
        attribution = tuple((key, call.attribution[key]) for key in self._by if key in call.attribution)
        if attribution in self._attributions:
            return attribution
        if len(self._attributions) >= MOST_ATTRIBUTIONS:
            return tuple((key, OTHER) for key, _ in attribution)
        self._attributions.add(attribution)
        return attribution

    def items(self) -> Iterator[tuple[Key, Totals]]:
        """Return the current totals by key; a key comes once for each attribution."""
        for key, _, totals in self.series():
            yield key, totals

    def series(self) -> Iterator[tuple[Key, Attribution, Totals]]:
        """Return the current totals by key and attribution."""
        with self._lock:
            snapshot = list(self._totals.items())
        for (key, attribution), totals in snapshot:
            yield key, attribution, totals
