"""The guard: checks a call against every budget that applies to it, and settles it after it ended.

    decision = guard.check(budget_request)  # None: no budget applies. Grant: send it. Denial: do not send it.
                                            # Downgrade: change the model, and check again.
    guard.settle(call, span)                # with the record of the call, checked or not
    guard.release(attempt)                  # if the call was never sent

A check takes these steps, each of them in its own module:

1. `counter_updates` finds the counters of the call, and `amounts` the amount to reserve on each.
2. `admission` decides whether the call is sent.
3. `reservations` reserves all amounts, or returns the budget that has too little left.
4. `refusals` decides what happens to a call that does not fit, and records it.

`settlements` and `charges` settle. Gauges and the status line read `current_states` and `observations`.
"""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.admission import Admission
from tollspan.budget.alerts.thresholds import Thresholds
from tollspan.budget.amounts import CallAmounts
from tollspan.budget.counter_updates import hold_all
from tollspan.budget.current_states import CurrentStates
from tollspan.budget.denials.denial import Denial
from tollspan.budget.habits import Habits
from tollspan.budget.observations import Observations
from tollspan.budget.policy.matching import CompiledBudgets, blocks
from tollspan.budget.refusals import Refusals
from tollspan.budget.request import Grant
from tollspan.budget.reservations import Reservations
from tollspan.budget.settlements import Settlements
from tollspan.budget.stores import StoreError
from tollspan.budget.stores.memory import MemoryStore
from tollspan.runtime.event_loops import aside
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tollspan.budget.bounds import Bounds
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.policy.matching import CompiledBudget
    from tollspan.budget.request import BudgetDecision, BudgetRequest
    from tollspan.budget.stores import CounterState, Store
    from tollspan.model.records import Call

log = logging.getLogger("tollspan.budget")

LEASE: Final = 900.0
"""Seconds that a reservation lasts. A longer call is charged its reservation, and its actual cost when it ends."""


class Guard:
    """All budgets of a process (see the module's text), safe for threads and forks.

    Attributes:
        store: the counters of configured budgets.
        local: the counters of blocks, in this process's memory; the same as `store` if that is in memory.
        bounds: the upper bounds of calls.
        habits: what calls usually use.
        clock: returns Unix time in seconds.
        lease: seconds that a reservation lasts.
        defaults: the session and run of calls that set none.
        settler: settles in the store, off the call path where it has to.
        thresholds: the warnings.
        observed: what gauges show.
        refuse_all: the message with which every call is refused; None = budgets decide.
        poll_resets: called before a check, to apply session resets of other processes to counters in memory.
    """

    def __init__(  # noqa: PLR0913 - the parts of a guard
        self,
        budgets: Iterable[Budget],
        store: Store,
        bounds: Bounds,
        *,
        clock: Callable[[], float] = time.time,
        lease: float = LEASE,
        session: str | None = None,
        run: str | None = None,
        failed: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        """Guard `budgets` with counters in `store`.

        Args:
            budgets: the configured budgets; blocks add their own.
            store: the store of their counters.
            bounds: computes what calls may use.
            clock: returns Unix time in seconds.
            lease: seconds that a reservation lasts.
            session: the session of calls that set none.
            run: the run of calls that set none; by default an id of this process.
            failed: called with each internal failure.
        """
        self.store = store
        self.local = local = store if isinstance(store, MemoryStore) else MemoryStore()
        self.bounds = bounds
        self.habits = Habits(shared=store is not local)
        self.clock = clock
        self.lease = lease
        self.defaults: dict[str, str] = {"run": run or uuid.uuid4().hex}
        if session is not None:
            self.defaults["session"] = session
        self.refuse_all: str | None = None
        self.poll_resets: Callable[[], object] | None = None
        failed = failed or _log_failure
        self.thresholds = Thresholds(failed)
        self.observed = observed = Observations(failed)
        self._compiled = compiled = CompiledBudgets(())
        self._settlements = Settlements(
            local,
            store,
            compiled,
            bounds,
            observed,
            self.thresholds,
            self.habits,
            clock=clock,
            defaults=self.defaults,
            failed=failed,
        )
        self.settler = self._settlements.settler
        self._refusals = refusals = Refusals(observed, clock)
        reservations = Reservations(local, store, self.settler, observed, lease=lease)
        self._admission = Admission(local, store, reservations, refusals, self._settlements, observed, clock)
        self._states = CurrentStates(
            local, store, compiled, self.settler, observed, clock=clock, defaults=self.defaults
        )
        renew_in_child(self, Guard._clear)
        self.configure(budgets)

    def _clear(self) -> None:
        """Forget calls under way and observations: in a forked child both are the parent's."""
        self._settlements.clear()
        self.observed.clear()
        self._states.clear()

    def configure(self, budgets: Iterable[Budget]) -> None:
        """Replace the configured budgets by these."""
        compiled = CompiledBudgets(budgets)
        self._compiled = self._settlements.budgets = self._states.budgets = compiled
        if not compiled.all:
            return
        try:
            self.store.register({budget.name: budget.budget.described for budget in compiled.all})
        except StoreError as error:
            self.observed.store_failed(error)
        else:
            self._settlements.habits.read()

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Return the configured budgets."""
        return tuple(budget.budget for budget in self._compiled.all)

    @property
    def session(self) -> str:
        """Return the session of calls that set none: the configured one, else the run."""
        return self.defaults.get("session") or self.defaults["run"]

    # Before the call

    def does_io(self, traits: Mapping[str, str]) -> bool:
        """Return whether checking a call reads a file or a server."""
        compiled = self._compiled
        return self.store is not self.local and bool(compiled.all) and bool(compiled.matching(self._complete(traits)))

    def check(self, budget_request: BudgetRequest, *, downgraded: bool = False) -> BudgetDecision:
        """Reserve what a call may cost in every budget that applies to it.

        Args:
            budget_request: the call.
            downgraded: whether the call already requests a smaller model, after a first check.

        Returns:
            A grant, a denial, a downgrade; None if no budget applies to the call.
        """
        if self.refuse_all is not None:
            return self._refusals.record(
                Denial(budget="", reason="settings", message=self.refuse_all, on_exceed="block")
            )
        compiled, block, traits = self._compiled, blocks.get(), budget_request.traits
        if compiled.needs_run:
            traits = self._complete(traits)
        budgets = compiled.unmatched or compiled.matching(traits)
        if block is None and not budgets:
            return None
        if self.poll_resets is not None and compiled.needs_session:
            self.poll_resets()
        now, grant = self.clock(), Grant(budget_request.shape.size)
        amounts = CallAmounts(self.bounds, self.habits, budget_request, now)
        denial = hold_all(grant, block, budgets, traits, budget_request, amounts, now)
        grant.basis = amounts.basis
        if denial is not None:
            return self._refusals.record(denial)
        if not grant.held:
            return None
        if self.local is self.store:
            grant.local = len(grant.held)
        can_downgrade = block is not None or compiled.downgrades
        return self._admission.decide(
            grant, budget_request, amounts, now, downgraded=downgraded, can_downgrade=can_downgrade
        )

    def _complete(self, traits: Mapping[str, str]) -> Mapping[str, str]:
        """Return the traits with the default session and run, if a budget needs them."""
        return {**self.defaults, **traits} if self._compiled.needs_run else traits

    # After the call

    def settle(self, call: Call, span: Any = None) -> None:
        """Charge a call's budgets by its record.

        A call that was not checked is charged what its record says. A call that is pending keeps its reservation.

        Args:
            call: the record.
            span: the call's span, which has not ended yet: warnings are added to it as events.
        """
        self._settlements.settle(call, span)

    def unbilled(self, call: Call) -> None:
        """Settle a pending call whose response turned out to have failed without usage."""
        self._settlements.unbilled(call)

    def release(self, attempt: str) -> None:
        """Release the reservation of a call that was never sent."""
        self._settlements.release(attempt)

    def withdraw(self, attempt: str) -> None:
        """Release whatever a check that did not finish may have reserved; never raises."""
        self._settlements.withdraw(attempt)

    # Status

    def states_here(self, traits: Mapping[str, str], wanted: Callable[[CompiledBudget], bool]) -> list[CounterState]:
        """Return the states of the counters that a call made here would count on, of the budgets that are wanted.

        Raises:
            StoreError: the store does not answer.
        """
        return self._states.states_here(traits, wanted)

    def refresh(self) -> None:
        """Read the observed counters again; never waits for a store."""
        self._states.refresh()

    def reset_session(self, session: str | None = None) -> None:
        """Reset the budgets of a session; None = of all sessions that only this process counts.

        In a shared store, None is the session of calls that set none.

        Raises:
            StoreError: the store does not answer.
        """
        self._states.reset_session(session, self.session)

    def finish(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until what calls have spent and what was learned from them is in the store."""
        self._settlements.habits.write_later()
        self.settler.flush(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Do what `finish` does, and close the store."""
        self.finish(timeout)
        self.store.close()


async def check_aside(guard: Guard, budget_request: BudgetRequest, *, downgraded: bool = False) -> BudgetDecision:
    """Check as `guard.check` does, in a task of an event loop that runs other tasks while a store is read.

    If the task is cancelled meanwhile, what was reserved is released.
    """
    if not guard.does_io(budget_request.traits):
        return guard.check(budget_request, downgraded=downgraded)
    cancelled: list[bool] = []

    def check() -> BudgetDecision:
        decision = guard.check(budget_request, downgraded=downgraded)
        if cancelled:
            guard.release(budget_request.attempt)
        return decision

    try:
        return await aside(check)
    except BaseException:
        cancelled.append(True)
        guard.release(budget_request.attempt)  # the thread may have finished before it could see that
        raise


def _log_failure(kind: str, error: BaseException) -> None:
    log.debug("%s: %s", kind, error)
