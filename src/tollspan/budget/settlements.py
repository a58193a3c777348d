"""Settlements: the record of a call replaces its reservation in every budget, whether or not it was checked before.

A call that is still processed in the background keeps its reservation until the record of a later request settles it,
or its lease expires. If that request finds that the call failed without usage, nothing is charged.

What a call is charged is decided in `charges`. A store across a network is settled off the call path (`settler`).
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.charges import charge_of
from tollspan.budget.counter_updates import of_blocks, of_configured, traits_of
from tollspan.budget.policy.matching import blocks
from tollspan.budget.settler import Settler
from tollspan.budget.shared_habits import SharedHabits
from tollspan.budget.stores import CounterState, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tollspan.budget.alerts.thresholds import Thresholds
    from tollspan.budget.bounds import Bounds
    from tollspan.budget.habits import Habits
    from tollspan.budget.observations import Observations
    from tollspan.budget.policy.matching import CompiledBudgets
    from tollspan.budget.request import Grant, Held
    from tollspan.budget.stores import Charge, Store
    from tollspan.budget.stores.memory import MemoryStore
    from tollspan.budget.waiting import WaitingCalls
    from tollspan.model.records import Call

MAX_PENDING: Final = 4096
"""Calls in the background whose reservations wait for a later request; of more, the oldest expire."""


class Settlements:
    """Settles the calls under way, by attempt.

    Attributes:
        budgets: the configured budgets, which calls that were not checked are charged in.
        under_way: the grants of calls that have not ended.
        settler: settles in the store.
        habits: learns from calls that have ended, and shares that through the store.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a guard that it works with
        self,
        local: MemoryStore,
        store: Store,
        budgets: CompiledBudgets,
        bounds: Bounds,
        observed: Observations,
        thresholds: Thresholds,
        habits: Habits,
        waiting: WaitingCalls,
        *,
        clock: Callable[[], float],
        defaults: Mapping[str, str],
        failed: Callable[[str, BaseException], None],
    ) -> None:
        """Settle in `local` and `store`; `defaults` are the session and run of calls that set none."""
        self._local = local
        self._store = store
        self.budgets = budgets
        self._bounds = bounds
        self._observed = observed
        self._thresholds = thresholds
        self._waiting = waiting
        self._clock = clock
        self._defaults = defaults
        self._failed = failed
        self.settler = settler = Settler(self._settle_in_store, failed, remote=store.remote)
        self.habits = SharedHabits(habits, store, settler, observed, clock=clock)
        self.clear()

    def clear(self) -> None:
        """Start again with no calls under way."""
        self.under_way: dict[str, Grant] = {}
        self._pending: OrderedDict[str, Grant] = OrderedDict()

    def holds(self, attempt: str) -> Grant | None:
        """Return the grant of a call that has not been settled; None if there is none."""
        return self.under_way.get(attempt) or self._pending.get(attempt)

    def holding(self) -> list[Grant]:
        """Return the grants of all calls that have not been settled."""
        return [*list(self.under_way.values()), *list(self._pending.values())]

    def settle(self, call: Call, span: Any) -> None:
        """Charge a call's budgets by its record; a call without a reservation is charged what the record says."""
        attempt = call.settles or call.id
        grant = (self.under_way if call.settles is None else self._pending).pop(attempt, None)
        if call.outcome == "denied":
            return
        if call.pending and grant is not None:
            self._keep_pending(attempt, grant)
            return
        if grant is None:
            if call.billable and (self.budgets.all or blocks.get() is not None):
                self._charge_unreserved(call, span)
            return
        self._bounds.learn(call, () if grant.bound is None else grant.bound.stored)
        if grant.basis is not None and grant.fit is None:
            self.habits.learn(grant.basis, call)
        self._finish(attempt, grant, call, span)

    def _keep_pending(self, attempt: str, grant: Grant) -> None:
        self._pending[attempt] = grant
        if len(self._pending) > MAX_PENDING:
            with contextlib.suppress(KeyError):  # another thread may have removed the last one
                self._pending.popitem(last=False)

    def unbilled(self, call: Call) -> None:
        """Settle a pending call whose response turned out to have failed without usage."""
        if (grant := self._pending.pop(call.id, None)) is not None:
            self._finish(call.id, grant, call, None)

    def release(self, attempt: str) -> None:
        """Release the reservation of a call that was never sent."""
        grant = self.under_way.pop(attempt, None)
        if grant is None:
            return
        if grant.local:
            self._local.settle(attempt, (), self._clock())
            self._waiting.changed([update.key for _, update in grant.held[: grant.local]])
        if len(grant.held) > grant.local:
            self.settler.settle(attempt, (), self._clock())

    def withdraw(self, attempt: str) -> None:
        """Release whatever a check that did not finish may have reserved; never raises."""
        self.under_way.pop(attempt, None)
        try:
            self._local.settle(attempt, (), self._clock())
            self._waiting.changed(None)
            if self._store is not self._local:
                self.settler.settle(attempt, (), self._clock())
        except Exception as error:  # noqa: BLE001 - the lease expires; the caller reports why the check failed
            self._failed("budget", error)

    def _finish(self, attempt: str, grant: Grant, call: Call, span: Any) -> None:
        """Replace what was reserved by what the record says."""
        held, local = grant.held, grant.local
        bound = grant.bound
        charges = [charge_of(budget, update.key, update.slot, update.amount, call, bound) for budget, update in held]
        now = self._clock()
        if local == len(held):
            self._settled(held, charges, self._local.settle(attempt, charges, now), self._local, span)
            return
        if local:
            states = self._local.settle(attempt, charges[:local], now)
            self._settled(held[:local], charges[:local], states, self._local, span)
        self.settler.settle(attempt, tuple(charges[local:]), now, tuple(held[local:]), span)

    def settle_part(
        self, store: Store, attempt: str, part: str, held: Sequence[Held], charges: Sequence[Charge]
    ) -> None:
        """Charge a part of an attempt, out of its reservation if the store still has that. Raises StoreError."""
        now = self._clock()
        states = store.settle_part(attempt, part, charges, [charge.amount for charge in charges], now)
        if states is None:
            updates = [update._replace(amount=charge.amount) for (_, update), charge in zip(held, charges, strict=True)]
            states = store.charge(updates, now)
        if states:
            self._settled(held, charges, states, store, None)

    def _settle_in_store(
        self, attempt: str, charges: tuple[Charge, ...], now: float, held: tuple[Held, ...], span: Any
    ) -> None:
        """Settle in the store; raises StoreError, for the settler to retry."""
        states = self._store.settle(attempt, charges, now)
        if held:
            self._settled(held, charges, states, self._store, span)
        else:
            self._waiting.changed(None)

    def _charge_unreserved(self, call: Call, span: Any) -> None:
        """Charge a call that was not checked, because it did not pass a hooked client."""
        traits = traits_of(call, self._defaults)
        now = self._clock()
        of_store = of_configured(self.budgets.matching(traits), traits, now)
        for store, counters in ((self._local, of_blocks(blocks.get())), (self._store, of_store)):
            if held := [(budget.budget, update) for budget, update in counters]:
                self._charge_in(store, held, call, now, span)

    def _charge_in(self, store: Store, held: Sequence[Held], call: Call, now: float, span: Any) -> None:
        charges = [charge_of(budget, update.key, update.slot, 0, call) for budget, update in held]
        updates = [update._replace(amount=charge.amount) for (_, update), charge in zip(held, charges, strict=True)]
        try:
            states = store.charge(updates, now)
        except StoreError as error:
            self._observed.store_failed(error, "the cost of a call that was made is missing in the budgets")
            return
        self._settled(held, charges, states, store, span)

    def _settled(
        self,
        held: Sequence[Held],
        charges: Sequence[Charge],
        states: tuple[CounterState, ...] | None,
        store: Store,
        span: Any,
    ) -> None:
        """Wake calls that wait, observe the states after a settlement, and warn of thresholds that were passed."""
        if self._waiting.queues:
            self._waiting.changed([update.key for _, update in held])
        if states is None:
            return
        for (budget, update), charge, returned in zip(held, charges, states, strict=True):
            state = returned
            if state.limit is None:  # the store has no limit of its own
                state = CounterState(returned.spent, returned.reserved, update.limit)
            self._observed.states[update.key] = budget, state
            if state.limit is None or not charge.amount:
                continue
            if charge.amount > update.amount and state.spent > state.limit and budget.limit.unit == "usd":
                excess = min(charge.amount - update.amount, state.spent - state.limit)
                self._observed.count_overshoot(budget, excess)
            if budget.warn_at or budget.on_exceed == "warn":
                self._thresholds.passed(budget, update.key, charge.amount, state, store, self._clock(), span)
