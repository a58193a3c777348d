"""The decision on a call whose budgets and amounts are known: send it, send it with a smaller model, or refuse it.

A budget that is nearly used up may want a smaller model before anything is reserved. Then everything is reserved, or
the budget that has too little left decides (`refusals`). If the store fails, the `store_failure` of the budgets does. A
call does not go past those that wait at one of its counters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.budget.denials.denial import unchecked
from tollspan.budget.refusals import smaller_model
from tollspan.budget.request import Downgrade
from tollspan.budget.stores import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.budget.amounts import CallAmounts
    from tollspan.budget.denials.denial import Denial
    from tollspan.budget.observations import Observations
    from tollspan.budget.refusals import Refusals
    from tollspan.budget.request import BudgetRequest, Grant, Obstruction, Shortfall
    from tollspan.budget.reservations import Reservations
    from tollspan.budget.settlements import Settlements
    from tollspan.budget.stores import Store
    from tollspan.budget.stores.memory import MemoryStore
    from tollspan.budget.waiting import Turn, WaitingCalls


_REFUSED: Final = 'calls are refused, because budget "{}" has store_failure = "closed"'
_UNCHECKED: Final = 'calls are sent without a check, because their budgets have store_failure = "open" or only warn'
"""What a failure of the store means for calls."""


class Admission:
    """Decides on calls, and hands those that are granted over to their settlement."""

    __slots__ = ("_clock", "_local", "_observed", "_refusals", "_reservations", "_settlements", "_store", "_waiting")

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a guard that it works with
        self,
        local: MemoryStore,
        store: Store,
        reservations: Reservations,
        refusals: Refusals,
        settlements: Settlements,
        waiting: WaitingCalls,
        observed: Observations,
        clock: Callable[[], float],
    ) -> None:
        self._local = local
        self._store = store
        self._reservations = reservations
        self._refusals = refusals
        self._settlements = settlements
        self._waiting = waiting
        self._observed = observed
        self._clock = clock

    def decide(  # noqa: PLR0913 - one call
        self,
        grant: Grant,
        budget_request: BudgetRequest,
        amounts: CallAmounts,
        now: float,
        *,
        downgraded: bool,
        can_downgrade: bool,
        turn: Turn | None,
    ) -> Grant | Denial | Downgrade | Obstruction:
        """Reserve in memory, then in the store; a store that has failed in this check is not tried again.

        Args:
            grant: the budgets, and what the call has to reserve in them.
            budget_request: the call.
            amounts: the amounts of the call.
            now: the current time in Unix seconds.
            downgraded: whether the call already requests a smaller model.
            can_downgrade: whether one of the budgets may want a smaller model.
            turn: the turn of a call that has waited; None when it is decided for the first time.
        """
        attempt, first = budget_request.attempt, turn is None
        failure = self._early_downgrade(grant, budget_request, now) if can_downgrade and not downgraded else None
        if isinstance(failure, Downgrade):
            return failure
        if self._waiting.queues and not budget_request.batch and (turn is None or not turn.final):
            before = self._waiting.before(turn, grant.held)
            if before is not None:
                shortfall = self._reservations.hopeless(budget_request, grant, now) if first else None
                if shortfall is None:
                    return self._refusals.behind(*before, budget_request, downgraded=downgraded)
                return self._refusals.decide(shortfall, budget_request, downgraded=downgraded, turn=turn)
        if grant.local == len(grant.held):
            shortfall = self._reservations.reserve_local(budget_request, grant, amounts, now)
        else:
            try:
                shortfall = self._reserve_both(budget_request, grant, amounts, now, failure, first=first)
            except StoreError as error:
                return self._without_store(grant, attempt, error)
        if shortfall is not None:
            return self._refusals.decide(shortfall, budget_request, downgraded=downgraded, turn=turn)
        self._settlements.under_way[attempt] = grant
        return grant

    def _reserve_both(  # noqa: PLR0913 - one call
        self,
        budget_request: BudgetRequest,
        grant: Grant,
        amounts: CallAmounts,
        now: float,
        failure: StoreError | None,
        *,
        first: bool,
    ) -> Shortfall | None:
        """Reserve in memory, then in the store. Raises StoreError, with what is in memory reserved; `failure` if any.

        A call that is decided for the first time waits for no budget if another one refuses it anyway.
        """
        shortfall = None
        if grant.local:
            shortfall = self._reservations.reserve_local(budget_request, grant, amounts, now)
            if shortfall is not None and shortfall.wait and first:
                return self._reservations.hopeless(budget_request, grant, now) or shortfall
        if shortfall is None:
            if failure is not None:
                raise failure
            shortfall = self._reservations.reserve_shared(budget_request, grant, amounts, now)
            if shortfall is not None:
                self._release_local(grant, budget_request.attempt, now)
        return shortfall

    def _release_local(self, grant: Grant, attempt: str, now: float) -> None:
        """Release what is reserved in memory, because the store has refused the rest."""
        if grant.local:
            self._local.settle(attempt, (), now)
            self._waiting.changed([update.key for _, update in grant.held[: grant.local]])

    def _early_downgrade(
        self, grant: Grant, budget_request: BudgetRequest, now: float
    ) -> Downgrade | StoreError | None:
        """Return a downgrade if a budget that is nearly used up wants one, or the error if the store fails."""
        for index, (budget, update) in enumerate(grant.held):
            smaller = smaller_model(budget, budget_request)
            if smaller is None:
                continue
            store = self._local if index < grant.local else self._store
            try:
                ((spent, reserved, limit),) = store.states([update], now)
            except StoreError as error:
                return error
            if limit is not None and spent + reserved >= limit * budget.downgrade_at:
                return Downgrade(budget=budget.name, model=smaller)
        return None

    def _without_store(self, grant: Grant, attempt: str, error: StoreError) -> Grant | Denial:
        """Apply the `store_failure` of the budgets that the store counts."""
        self._settlements.settler.settle_later(attempt, (), self._clock())  # it may have reserved nevertheless
        for budget, update in grant.held[grant.local :]:
            if budget.store_failure == "closed" and budget.on_exceed != "warn":
                self._release_local(grant, attempt, self._clock())
                self._observed.store_failed(error, _REFUSED.format(budget.name))
                return self._refusals.record(unchecked(budget, update, error))
        self._observed.store_failed(error, _UNCHECKED)
        del grant.held[grant.local :]
        self._settlements.under_way[attempt] = grant
        return grant
