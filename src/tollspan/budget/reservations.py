"""Reservations of a call, before it is sent: in this process's memory and in the store, all of each or none.

`reserve_local` and `reserve_shared` return None if everything is reserved, and the shortfall if a budget has too little
left. If reservations of calls that have ended are not settled yet, `reserve_shared` waits for that before it gives up.

A shortfall says whether waiting for the calls under way can help: if the call would fit without their reservations,
other than those of its own context, in every budget that stands in its way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.budget.observations import MAX_STATES
from tollspan.budget.policy.enforcement import CUT
from tollspan.budget.request import Ceiling, Fit, Shortfall
from tollspan.budget.stores import CounterState, StoreError, reservable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tollspan.budget.amounts import CallAmounts
    from tollspan.budget.holders import Holders
    from tollspan.budget.observations import Observations
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.request import BudgetRequest, Grant, Held
    from tollspan.budget.settler import Settler
    from tollspan.budget.stores import CounterUpdate, ReservationResult, Store
    from tollspan.budget.stores.memory import MemoryStore

SETTLEMENT_WAIT: Final = 1.0
"""Seconds to wait until calls that have ended are settled, where that can change the result."""


class Reservations:
    """Reserves what grants hold, as leases of `lease` seconds.

    Attributes:
        batches_on: returns what batches have reserved on a counter, and their names.
    """

    __slots__ = ("_holders", "_lease", "_local", "_observed", "_settler", "_store", "batches_on")

    def __init__(  # noqa: PLR0913 - the parts of a guard that it works with
        self,
        local: MemoryStore,
        store: Store,
        settler: Settler,
        holders: Holders,
        observed: Observations,
        *,
        lease: float,
    ) -> None:
        self._local = local
        self._store = store
        self._settler = settler
        self._holders = holders
        self._observed = observed
        self._lease = lease
        self.batches_on: Callable[[str], tuple[int, tuple[str, ...]]] = lambda _: (0, ())

    def reserve_local(
        self, budget_request: BudgetRequest, grant: Grant, amounts: CallAmounts, now: float
    ) -> Shortfall | None:
        """Reserve the part of a grant that is counted in this process's memory."""
        updates = [update for _, update in grant.held]
        if grant.local < len(updates):
            del updates[grant.local :]
        result = self._local.reserve(budget_request.attempt, updates, now, now + (grant.lease or self._lease))
        return self._apply(budget_request, grant, 0, result, amounts)

    def reserve_shared(
        self, budget_request: BudgetRequest, grant: Grant, amounts: CallAmounts, now: float
    ) -> Shortfall | None:
        """Reserve the part of a grant that is counted in the store. Raises StoreError."""
        attempt, updates = budget_request.attempt, [update for _, update in grant.held[grant.local :]]
        until = now + (grant.lease or self._lease)
        result = self._store.reserve(attempt, updates, now, until)
        if result.refused is not None and self._settlements_can_help(updates, result):
            result = self._store.reserve(attempt, updates, now, until)
        return self._apply(budget_request, grant, grant.local, result, amounts)

    def _settlements_can_help(self, updates: Sequence[CounterUpdate], result: ReservationResult) -> bool:
        """Wait for settlements if only reservations are in the way, and return whether all were settled."""
        if result.refused is None or not self._settler.waiting:
            return False
        state = result.states[result.refused]
        unreserved = CounterState(state.spent, 0, state.limit)
        return reservable(updates[result.refused], unreserved) >= 0 and self._settler.flush(SETTLEMENT_WAIT)

    def hopeless(self, budget_request: BudgetRequest, grant: Grant, now: float) -> Shortfall | None:
        """Return the budget that refuses a call however long it waits; None if there is none."""
        local = grant.local
        for store, held in ((self._local, grant.held[:local]), (self._store, grant.held[local:])):
            try:
                states = store.states([update for _, update in held], now) if held else ()
            except StoreError:
                return None  # the call waits; what a failure means is decided when it is its turn
            shortfall = self._shortfall(budget_request, held, states)
            if shortfall is not None and not shortfall.wait:
                return shortfall
        return None

    def _shortfall(
        self, budget_request: BudgetRequest, held: Sequence[Held], states: Sequence[CounterState]
    ) -> Shortfall | None:
        """Return a budget that has too little left and can only refuse, else the first one, with the wait of all."""
        first, wait = None, float("inf")
        for (budget, update), state in zip(held, states, strict=True):
            if reservable(update, state) >= 0:
                continue
            own = self._holders.own(budget_request, update.key)
            ordered = (
                self.batches_on(update.key)[0] if state.reserved else 0
            )  # a batch may take a day: it counts as spent
            shortfall = Shortfall(budget, update, state, own=own)
            if not budget.wait or reservable(update, CounterState(state.spent + ordered, own, state.limit)) < 0:
                return shortfall
            first, wait = first or shortfall, min(wait, budget.wait)
        return None if first is None else first._replace(wait=wait)

    def _apply(
        self, budget_request: BudgetRequest, grant: Grant, offset: int, result: ReservationResult, amounts: CallAmounts
    ) -> Shortfall | None:
        """Observe the states that a store has returned, and put the reserved amounts into the grant."""
        held, observed = grant.held, self._observed
        states = observed.states
        refused = result.refused
        if refused is not None:
            shortfall = self._shortfall(budget_request, held[offset : offset + len(result.states)], result.states)
            if shortfall is None:  # the store has a rule of its own
                shortfall = Shortfall(*held[offset + refused], result.states[refused])
            states[shortfall.update.key] = shortfall.budget, shortfall.state
            return shortfall
        index = offset
        for state in result.states:
            budget, update = held[index]
            amount = result.amounts[index - offset]
            if update.mode == CUT:
                _limit_stream(grant, budget, amount, state, amounts)
            if amount != update.amount:
                held[index] = budget, update._replace(amount=amount)
                if update.least and budget.fit:
                    _fit(grant, budget, amounts.output_limit(budget, amount))
            states[update.key] = budget, state
            index += 1
        if len(states) > MAX_STATES:
            observed.drop_old_states()
        return None


def _fit(grant: Grant, budget: Budget, output: int) -> None:
    """Have a call sent with an output limit; of several budgets, the lowest limit counts."""
    if grant.fit is None or output < grant.fit.output:
        grant.fit = Fit(output, budget.name)


def _limit_stream(grant: Grant, budget: Budget, amount: int, state: CounterState, amounts: CallAmounts) -> None:
    """Have a stream cut when it has used what the budget has left.

    A stream that has reserved all it can use needs no ceiling: the rough count of what arrives would cut it too early.
    """
    if budget.limit.unit not in {"usd", "tokens"} or state.limit is None:
        return
    at_most = amounts.at_most(budget)
    left = amount + max(state.limit - state.spent - state.reserved, 0)
    if at_most is None or left < at_most:
        grant.ceilings.append(Ceiling(budget, left))
