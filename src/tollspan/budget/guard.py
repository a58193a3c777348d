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
5. `waiting` has the calls that wait for those under way, each of which is checked again when it may fit.

`settlements` and `charges` settle. Gauges and the status line read `current_states` and `observations`.
"""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.admission import Admission
from tollspan.budget.alerts.thresholds import Thresholds
from tollspan.budget.amounts import CallAmounts
from tollspan.budget.batch_reservations import BatchReservations
from tollspan.budget.counter_updates import hold_all
from tollspan.budget.current_states import CurrentStates
from tollspan.budget.denials.denial import Denial, refused
from tollspan.budget.habits import Habits
from tollspan.budget.holders import Holders
from tollspan.budget.observations import Observations
from tollspan.budget.policy.counter_names import is_block
from tollspan.budget.policy.matching import CompiledBudgets, blocks
from tollspan.budget.refusals import Refusals
from tollspan.budget.request import Grant, Obstruction, Waited
from tollspan.budget.reservations import Reservations
from tollspan.budget.settlements import Settlements
from tollspan.budget.stores import StoreError
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.waiting import Turn, WaitingCalls
from tollspan.runtime.event_loops import aside, on_loop
from tollspan.runtime.forking import renew_in_child
from tollspan.runtime.wakeups import ThreadWakeup, task_wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from tollspan.budget.batch_orders import BatchOrder
    from tollspan.budget.bounds import Bounds
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.policy.matching import CompiledBudget
    from tollspan.budget.request import BudgetDecision, BudgetRequest
    from tollspan.budget.stores import CounterState, Store
    from tollspan.model.records import Call

log = logging.getLogger("tollspan.budget")

LEASE: Final = 900.0
"""Seconds that a reservation lasts. A longer call is charged its reservation, and its actual cost when it ends."""


REPAIR: Final = "Correct the setting that the message names; all calls are refused until then."
"""What to do if the budgets cannot be set up."""


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
        batches: the reservations of batches.
        thresholds: the warnings.
        observed: what gauges show.
        waiting: the calls that wait for those under way.
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
        before: Guard | None = None,
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
            before: the guard that this one replaces; its blocks and the calls under way in them go on here.
        """
        self.store = store
        memory = MemoryStore() if before is None else before.local
        self.local: MemoryStore = store if isinstance(store, MemoryStore) else memory
        local = self.local
        self.bounds = bounds
        self.habits = Habits(shared=store is not local)
        if store.remote:  # periods and leases go by the server's clock: this machine's may be days off
            clock = _ServerClock(clock, store)
        self.clock = clock
        self.lease = lease
        self.defaults: dict[str, str] = {"run": run or uuid.uuid4().hex}
        if session is not None:
            self.defaults["session"] = session
        self.refuse_all: str | None = None
        self.poll_resets: Callable[[], object] | None = None
        failed = failed or _log_failure
        self.thresholds = Thresholds(failed)
        self.observed = observed = Observations(failed, clock)
        self.waiting = waiting = WaitingCalls(getattr(store, "watch", None), is_block, failed)
        self._compiled = compiled = CompiledBudgets(())
        self._settlements = Settlements(
            local,
            store,
            compiled,
            bounds,
            observed,
            self.thresholds,
            self.habits,
            waiting,
            clock=clock,
            defaults=self.defaults,
            failed=failed,
        )
        self.settler = self._settlements.settler
        self.holders = holders = Holders(self._settlements)
        self._refusals = refusals = Refusals(store, observed, holders, clock)
        reservations = Reservations(local, store, self.settler, holders, observed, lease=lease)
        self._admission = Admission(local, store, reservations, refusals, self._settlements, waiting, observed, clock)
        self._states = CurrentStates(
            local, store, compiled, self.settler, observed, clock=clock, defaults=self.defaults
        )
        self.batches = BatchReservations(local, store, compiled, self._settlements, observed, clock)
        refusals.batches_on = reservations.batches_on = self.batches.notes.on_counter
        if before is not None:
            self.refuse_all = before.refuse_all
            self.thresholds.callbacks = before.thresholds.callbacks
            self._settlements.under_way = before._settlements.under_way  # noqa: SLF001 - of this class
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
        self._compiled = self._settlements.budgets = self._states.budgets = self.batches.budgets = compiled
        if not compiled.all:
            return
        try:
            self.store.register({budget.name: budget.budget.described for budget in compiled.all})
        except StoreError as error:
            self.observed.store_failed(error, "its list of budgets is not up to date; no call was affected")
        else:
            self._settlements.habits.read()

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Return the configured budgets."""
        return tuple(budget.budget for budget in self._compiled.all)

    @property
    def limits(self) -> bool:
        """Return whether a call that is made here may be refused."""
        return self.refuse_all is not None or bool(self._compiled.all) or blocks.get() is not None

    def has_counted(self) -> bool:
        """Return whether something was spent or is reserved in a configured budget."""
        counters = self.store.counters(self.clock())
        return any(not is_block(counter.key) and (counter.spent or counter.reserved) for counter in counters)

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
        """Reserve what a call may cost in every budget that applies to it; wait for calls under way that hold the rest.

        Args:
            budget_request: the call.
            downgraded: whether the call already requests a smaller model, after a first check.

        Returns:
            A grant, a denial, a downgrade; None if no budget applies to the call.
        """
        decision = self.decide(budget_request, downgraded=downgraded)
        if isinstance(decision, Obstruction):
            decision = _wait_here(self, decision, budget_request, downgraded=downgraded)
        if budget_request.under_way is None and isinstance(decision, Grant):
            self.holders.remember(budget_request.attempt)
        return decision

    def decide(
        self, budget_request: BudgetRequest, *, downgraded: bool = False, turn: Turn | None = None
    ) -> BudgetDecision | Obstruction:
        """Return or reserve as `check` does, without a wait.

        `turn` is that of a call that has waited; None when it is decided for the first time.
        """
        if self.refuse_all is not None:
            return self._refusals.record(refused("settings", self.refuse_all, REPAIR))
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
        grant.bound = amounts.bound
        if not grant.held:
            return None
        if self.local is self.store:
            grant.local = len(grant.held)
        can_downgrade = block is not None or compiled.downgrades
        return self._admission.decide(
            grant, budget_request, amounts, now, downgraded=downgraded, can_downgrade=can_downgrade, turn=turn
        )

    def check_batch(self, order: BatchOrder) -> Grant | Denial | None:
        """Reserve what the requests of a batch may cost in every budget that applies to them.

        Args:
            order: the batch, which is about to be created.

        Returns:
            A grant, a denial; None if no budget applies.
        """
        if self.refuse_all is not None:
            return self._refusals.record(refused("settings", self.refuse_all, REPAIR))
        if self.poll_resets is not None and self._compiled.needs_session:
            self.poll_resets()
        now = self.clock()
        grant = self.batches.hold(order, blocks.get(), self._complete(order.traits), now)
        if isinstance(grant, Denial):
            return self._refusals.record(grant)
        if not grant.held:
            return None
        if self.local is self.store:
            grant.local = len(grant.held)
        request = order.request
        amounts = CallAmounts(self.bounds, self.habits, request, now)
        decision = self._admission.decide(grant, request, amounts, now, downgraded=True, can_downgrade=False, turn=None)
        return decision if isinstance(decision, (Grant, Denial)) else None  # there is no smaller model, and no wait

    def _complete(self, traits: Mapping[str, str]) -> Mapping[str, str]:
        """Return the traits with the default session and run, if a budget needs them."""
        return {**self.defaults, **traits} if self._compiled.needs_run else traits

    # After the call

    def holds(self, attempt: str) -> bool:
        """Return whether something is reserved for an attempt."""
        return self._settlements.holds(attempt) is not None

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

    def reset_sessions(self, sessions: Collection[str] | None) -> None:
        """Reset the budgets of sessions; None = of every session, and only if this process alone counts them.

        Raises:
            StoreError: the store does not answer.
        """
        self._states.reset_sessions(sessions)

    def forget_counters(self, keys: Sequence[str]) -> None:
        """Forget the counters of a block that nobody can ask for any more."""
        self.local.forget(keys)
        for key in keys:
            self.observed.states.pop(key, None)

    def close(self, timeout: float = 5.0) -> None:
        """Do what `finish` does, and close the store."""
        self.finish(timeout)
        self.waiting.close()
        self.store.close()

    def finish(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until the store has what calls spent, and webhooks their warnings."""
        deadline = time.monotonic() + timeout
        self._settlements.habits.write_later()
        self.settler.flush(timeout)
        self.thresholds.finish(max(deadline - time.monotonic(), 0.0))


class _ServerClock:
    """The clock of a store's server: this machine's, corrected by what the store knows of the difference."""

    def __init__(self, clock: Callable[[], float], store: Store) -> None:
        self._clock = clock
        self._store = store

    def __call__(self) -> float:
        return self._clock() + self._store.skew


async def check_aside(guard: Guard, budget_request: BudgetRequest, *, downgraded: bool = False) -> BudgetDecision:
    """Check as `guard.check` does, in a task of an event loop that runs other tasks while this one waits.

    If the task is cancelled meanwhile, what was reserved is released.
    """
    decision = await _decide_aside(guard, budget_request, downgraded=downgraded)
    if isinstance(decision, Obstruction):
        decision = await _wait_aside(guard, decision, budget_request, downgraded=downgraded)
    if budget_request.under_way is None and isinstance(decision, Grant):
        guard.holders.remember(budget_request.attempt)
    return decision


async def _decide_aside(
    guard: Guard, budget_request: BudgetRequest, *, downgraded: bool, turn: Turn | None = None
) -> BudgetDecision | Obstruction:
    """Decide as `guard.decide` does; read a store in a thread."""
    if not guard.does_io(budget_request.traits):
        return guard.decide(budget_request, downgraded=downgraded, turn=turn)
    cancelled: list[bool] = []

    def decide() -> BudgetDecision | Obstruction:
        decision = guard.decide(budget_request, downgraded=downgraded, turn=turn)
        if cancelled:
            guard.release(budget_request.attempt)
        return decision

    try:
        return await aside(decide)
    except BaseException:
        cancelled.append(True)
        guard.release(budget_request.attempt)  # the thread may have finished before it could see that
        raise


# The twins differ only where they await.


def _wait_here(
    guard: Guard, obstruction: Obstruction, budget_request: BudgetRequest, *, downgraded: bool
) -> BudgetDecision:
    """Wait in this thread, but not on an event loop, where the calls that hold the rest could not end meanwhile."""
    wakeup = ThreadWakeup()
    decision: BudgetDecision | Obstruction = obstruction
    with Turn(guard.waiting, wakeup, budget_request.timeout) as turn:
        turn.final = on_loop()
        while isinstance(decision, Obstruction):
            if not turn.final and not turn.joins(decision):
                wakeup.wait(turn.left)
                turn.final = not turn.left
            decision = guard.decide(budget_request, downgraded=downgraded, turn=turn)
        return _with_wait(decision, turn)


async def _wait_aside(
    guard: Guard, obstruction: Obstruction, budget_request: BudgetRequest, *, downgraded: bool
) -> BudgetDecision:
    """Wait beside the event loop's other tasks; on a loop that is neither asyncio's nor trio's, do not wait."""
    wakeup = task_wakeup()
    decision: BudgetDecision | Obstruction = obstruction
    with Turn(guard.waiting, wakeup or ThreadWakeup(), budget_request.timeout) as turn:
        turn.final = wakeup is None
        while isinstance(decision, Obstruction):
            if wakeup is not None and not turn.final and not turn.joins(decision):
                await wakeup.wait(turn.left)
                turn.final = not turn.left
            decision = await _decide_aside(guard, budget_request, downgraded=downgraded, turn=turn)
        return _with_wait(decision, turn)


def _with_wait(decision: BudgetDecision, turn: Turn) -> BudgetDecision:
    """Return a decision with the time that the call has waited for it."""
    if isinstance(decision, Grant) and turn.key:
        decision.waited = Waited(turn.waited, turn.budget)
    elif isinstance(decision, Denial) and turn.key:
        return replace(decision, waited=turn.waited)
    return decision


def _log_failure(kind: str, error: BaseException) -> None:
    log.debug("%s: %s", kind, error)
