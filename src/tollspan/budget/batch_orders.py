"""What a batch that is about to be created has to reserve: every request of it, in every budget that applies.

    held(order, block, budgets, traits, now) -> a `BatchGrant`, or a denial

A batch may have requests of several models, and a budget may match some of them only. Each model's requests are held as
a call's amounts are, and what they reserve on the same counter is added up. The sum has to fit into what is left: the
rule that a single call is sent while anything is left would let a batch of any size pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tollspan.budget.batch_notes import Entry
from tollspan.budget.bounds import RequestShape
from tollspan.budget.counter_updates import hold_all
from tollspan.budget.denials.denial import Denial, unknown_batch
from tollspan.budget.policy.budget import Assumed
from tollspan.budget.policy.counter_names import is_block
from tollspan.budget.policy.enforcement import HARD, SOFT, USUAL
from tollspan.budget.request import BudgetRequest, Grant
from tollspan.model.records import Facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.budget.amounts import Amounts
    from tollspan.budget.batch_contents import ModelTotals, Sums
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.policy.matching import Block, CompiledBudget, CompiledBudgets
    from tollspan.budget.request_parts import Unbounded
    from tollspan.budget.stores import CounterUpdate

TIME_TO_READ: Final = 86_400.0
"""Seconds after a batch's last moment in which its results are expected to be read."""
COUNTING: Final = frozenset({"calls", "identical"})
"""Units that count requests, whatever they use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOrder:
    """A batch that is about to be created.

    Attributes:
        attempt: the id of the reservation; the same if the request is sent again.
        traits: what budgets match: provider, host and attribution.
        groups: its requests by model; None = they are not known.
        window: the seconds after which the provider stops to work on it.
        content: the bytes of the request that creates it.
        source: what has the requests, for messages.
    """

    attempt: str
    traits: Mapping[str, str]
    groups: tuple[ModelTotals, ...] | None
    window: float
    content: bytes
    source: str

    @property
    def request(self) -> BudgetRequest:
        """Return the request that creates the batch, as budgets check a call."""
        shape = RequestShape(facts=Facts(), prices=(), body={}, content=self.content, size=len(self.content))
        return BudgetRequest(attempt=self.attempt, traits=self.traits, shape=shape, batch=True)


class _Amounts:
    """The amounts that the requests of one model reserve; `hold_all` reads them as those of a call.

    Without a group, it is not known what is in the batch. Then the least amount is reserved: a limit that is reached
    refuses the batch, and its results are charged when they are read.
    """

    def __init__(self, group: ModelTotals | None) -> None:
        self._group = group

    @property
    def unbounded(self) -> Unbounded | None:
        """Return what has no upper bound in one of the requests."""
        return None if self._group is None else self._group.unbounded

    def to_reserve(self, budget: CompiledBudget) -> Amounts:
        """Return what the requests reserve in a budget."""
        group = self._group
        if group is None or budget.unit == "identical":
            return 1, 0
        if budget.unit == "calls":
            return group.requests, 0
        if budget.is_hard:
            return _in_unit(budget.budget, group.most), 0
        return _in_unit(budget.budget, group.high), _in_unit(budget.budget, group.usual) or 0

    def each(self, budget: Budget) -> int | None:
        """Return the most that a single request may use, in the unit of a budget; None if that is not known."""
        if self._group is None:
            return None
        return 1 if budget.limit.unit in COUNTING else _in_unit(budget, self._group.largest)


def _in_unit(budget: Budget, sums: Sums) -> int | None:
    if budget.limit.unit == "tokens":
        return sums.input + sums.output
    if sums.cost is None and isinstance(budget.unpriced, Assumed):
        return sums.input * budget.unpriced.input + sums.output * budget.unpriced.output
    return sums.cost


class BatchGrant(Grant):
    """What a batch reserves: each counter once.

    Attributes:
        models: the requested models.
    """

    __slots__ = ("_counters", "_each", "_models", "models")

    def __init__(self, order: BatchOrder) -> None:
        """Hold nothing yet."""
        super().__init__(len(order.content), order.window + TIME_TO_READ)
        self.models = tuple(sorted({group.model for group in order.groups or () if group.model is not None}))
        self._counters: dict[str, tuple[Budget, CounterUpdate]] = {}
        self._each: dict[str, int | None] = {}
        self._models: dict[str, set[str]] = {}

    def add(self, part: Grant, group: ModelTotals | None, amounts: _Amounts) -> None:
        """Add what the requests of one model reserve."""
        for budget, update in part.held:
            key, each = update.key, amounts.each(budget)
            known = self._counters.get(key)
            if known is None:
                mode = HARD if update.mode == USUAL else update.mode
                self._counters[key] = budget, update._replace(mode=mode)
                self._each[key] = each
            elif budget.limit.unit != "identical":  # the batch is created by one request, whatever is in it
                total, least = known[1].amount + update.amount, known[1].least + update.least
                self._counters[key] = budget, known[1]._replace(amount=total, least=least)
                before = self._each[key]
                self._each[key] = None if before is None or each is None else max(before, each)
            if group is not None and group.model is not None:
                self._models.setdefault(key, set()).add(group.model)

    def close(self) -> None:
        """Hold what was added, the counters of blocks first."""
        self.held = sorted(self._counters.values(), key=lambda held: not is_block(held[1].key))
        self.local = sum(is_block(update.key) for _, update in self.held)

    def entry(self, budget: Budget, update: CounterUpdate) -> Entry:
        """Return what is noted of a counter."""
        models = self._models.get(update.key, set())
        some = () if len(models) == len(self.models) else tuple(sorted(models))
        each, unit = self._each.get(update.key), budget.limit.unit
        return Entry(budget.name, unit, update.key, update.slot, update.kept_until, update.amount, each, some)


def held(
    order: BatchOrder, block: Block | None, budgets: CompiledBudgets, traits: Mapping[str, str], now: float
) -> BatchGrant | Denial:
    """Return what a batch reserves; a denial if one of its budgets cannot know that.

    Args:
        order: the batch.
        block: the innermost of the current blocks.
        budgets: the configured budgets.
        traits: those of the order, complete with session and run if a budget needs them.
        now: the current time in Unix seconds.
    """
    batch, request = BatchGrant(order), order.request
    for group in order.groups or (None,):
        own = dict(traits)
        if group is not None:
            own["operation"] = group.operation
            own |= {} if group.model is None else {"model": group.model}
        part, amounts = Grant(None), _Amounts(group)
        applicable = budgets.unmatched or budgets.matching(own)
        denial = hold_all(part, block, applicable, own, request, amounts, now)
        if denial is not None:
            return denial
        batch.add(part, group, amounts)
    batch.close()
    if order.groups is None:
        for budget, update in batch.held:
            if budget.hard and update.mode != SOFT and budget.limit.unit != "identical":
                return unknown_batch(budget, order.source)
    return batch
