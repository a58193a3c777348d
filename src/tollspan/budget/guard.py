"""The guard: asks every budget that a call counts towards, before the call, and settles with them after it.

    verdict = guard.check(asked)   # None: no budget cares. Grant: send it. Denial: send nothing. Downgrade: ask again.
    guard.settle(call, span)       # the call's one record, whoever made it
    guard.release(attempt)         # it was never sent

What a call reserves and is charged is in `charges.py`. One that is still at work in the background keeps its
reservation, until the record of the request that fetches the response settles it, or its lease ends; it is charged
nothing, if that finds that it failed without usage.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.alerts.thresholds import Thresholds
from tollspan.budget.charges import Prices, charge_of
from tollspan.budget.denials.denial import Denial, exhausted, unchecked, unpriced, unset
from tollspan.budget.policy.counter_names import is_block, of_session, period_of
from tollspan.budget.policy.enforcement import FIT, SOFT
from tollspan.budget.policy.matching import CompiledBudgets, blocks
from tollspan.budget.request import Ceiling, Downgrade, Grant
from tollspan.budget.settler import Settler
from tollspan.budget.stores import Charge, CounterState, CounterUpdate, StoreError, fitting
from tollspan.budget.stores.memory import MemoryStore
from tollspan.runtime.event_loops import aside
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tollspan.budget.bounds import Bounds
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.policy.matching import Block, CompiledBudget
    from tollspan.budget.request import Answer, BudgetRequest, Held
    from tollspan.budget.stores import Store, Verdict
    from tollspan.model.records import Call

log = logging.getLogger("tollspan.budget")

LEASE: Final = 900.0
"""Seconds that a reservation lasts. A longer call is charged its reservation, and its real cost when it ends."""

CATCH_UP: Final = 1.0
"""Seconds that a call which does not fit waits for settlements of earlier ones, which may make room for it."""

_KEPT: Final = 4096


class Guard:
    """All budgets of a process (see the module's text). Safe under threads and fork; blocks for one store operation."""

    def __init__(  # noqa: PLR0913 - what a guard is made of
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
            budgets: what is configured; blocks add their own.
            store: where their counters are.
            bounds: what calls may use.
            clock: gives Unix time in seconds.
            lease: seconds that a reservation lasts.
            session: the session of calls that name none.
            run: the run of calls that name none; by default one of this process's own.
            failed: told of failures of our own.
        """
        self.store = store
        self.local = store if isinstance(store, MemoryStore) else MemoryStore()
        self.bounds = bounds
        self.clock = clock
        self.lease = lease
        self.failed = failed or _ignore
        self.defaults: dict[str, str] = {"run": run or uuid.uuid4().hex}
        if session is not None:
            self.defaults["session"] = session
        self.settler = Settler(self._settle_in, self.failed, remote=store.remote)
        self.thresholds = Thresholds(self.failed)
        self.refusing: str | None = None
        self.hear: Callable[[], object] | None = None
        """Has sessions begin anew that another process has reset, where the counters are not shared with it."""
        self._fresh()
        renew_in_child(self, Guard._fresh)
        self.configure(budgets)

    def _fresh(self) -> None:
        """Begin with no calls under way and nothing counted: in a forked child both are the parent's."""
        self._grants: dict[str, Grant] = {}
        self._pending: OrderedDict[str, Grant] = OrderedDict()
        self._counting = threading.RLock()  # reentrant: a finalizer may settle in the middle of a count
        self.denied: dict[tuple[str, str], int] = {}
        self.overshoot: dict[str, int] = {}
        self.store_errors: dict[str, int] = {}
        self.levels: dict[str, tuple[Budget, CounterState]] = {}
        self._refreshed = 0.0

    def configure(self, budgets: Iterable[Budget]) -> None:
        """Put these budgets in the place of the configured ones."""
        self._rules = CompiledBudgets(budgets)
        if self._rules.all:
            self._register()

    def _register(self) -> None:
        try:
            self.store.register({rule.name: rule.budget.described for rule in self._rules.all})
        except StoreError as error:
            self._store_failed(error)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Return the configured budgets."""
        return tuple(rule.budget for rule in self._rules.all)

    @property
    def session(self) -> str:
        """Return the session of calls that name none: the configured one, else the run."""
        return self.defaults.get("session") or self.defaults["run"]

    # Before the call

    def waits(self, traits: Mapping[str, str]) -> bool:
        """Return whether checking a call takes more than this process's memory: a file, or a server."""
        return self.store is not self.local and bool(self._rules.all) and bool(self._matching(self._whole(traits)))

    def check(self, asked: BudgetRequest, *, downgraded: bool = False) -> Answer:
        """Reserve what a call may cost in every budget that it counts towards; None where it counts towards none."""
        if self.refusing is not None:
            return self._denied(Denial(budget="", reason="settings", message=self.refusing, on_exceed="block"))
        block, traits = blocks.get(), asked.traits
        rules: tuple[CompiledBudget, ...] = ()
        if self._rules.all:
            if self._rules.bound:
                traits = self._whole(traits)
            rules = self._rules.unmatched or self._rules.matching(traits)
        if block is None and not rules:
            return None
        if self.hear is not None and self._rules.by_session:
            self.hear()
        now, grant = self.clock(), Grant(asked.ask.size)
        prices = Prices(self.bounds, asked, now)
        refused = _hold_all(grant, block, rules, traits, asked, prices, now)
        if refused is not None:
            return self._denied(refused)
        if not grant.held:
            return None
        unanswered = None
        if not downgraded and (block is not None or self._rules.downgrades):
            smaller = self._smaller(grant, asked, now)
            if isinstance(smaller, Downgrade):
                return smaller
            unanswered = smaller
        return self._reserve(grant, asked, prices, now, unanswered, downgraded=downgraded)

    def _whole(self, traits: Mapping[str, str]) -> Mapping[str, str]:
        """Return the traits with session and run of calls that name none, where a budget asks for them."""
        return {**self.defaults, **traits} if self._rules.bound else traits

    def _smaller(self, grant: Grant, asked: BudgetRequest, now: float) -> Downgrade | StoreError | None:
        """Return whether a budget that is nearly used up wants a smaller model, or that the store does not answer."""
        model = asked.traits.get("model", "")
        for index, (budget, line) in enumerate(grant.held):
            smaller = budget.downgrade.get(model) if budget.on_exceed == "downgrade" else None
            if smaller is None:
                continue
            try:
                (level,) = (self.local if index < grant.local else self.store).levels([line], now)
            except StoreError as error:
                return error
            spent, reserved, limit = level
            if limit is not None and spent + reserved >= limit * budget.downgrade_at:
                return Downgrade(budget=budget.name, model=smaller)
        return None

    def _reserve(  # noqa: PLR0913 - one call
        self,
        grant: Grant,
        asked: BudgetRequest,
        prices: Prices,
        now: float,
        unanswered: StoreError | None,
        *,
        downgraded: bool,
    ) -> Grant | Denial | Downgrade:
        """Reserve in memory, then in the store, which is not asked a second time where it has not answered before."""
        held, attempt, until = grant.held, asked.attempt, now + self.lease
        lines = [line for _, line in held]
        split = grant.local = len(held) if self.local is self.store else grant.local
        if split:
            verdict = self.local.reserve(attempt, lines if split == len(lines) else lines[:split], now, until)
            if verdict.refused is not None:
                return self._refusal(held, verdict, asked, downgraded=downgraded)
            self._granted(grant, 0, verdict, prices)
        if split < len(held):
            try:
                if unanswered is not None:
                    raise unanswered
                verdict = self._reserve_in_store(attempt, lines[split:], now, until)
            except StoreError as error:
                return self._unanswered(grant, asked, error)
            if verdict.refused is not None:
                if split:
                    self.local.settle(attempt, (), now)
                return self._refusal(held[split:], verdict, asked, downgraded=downgraded)
            self._granted(grant, split, verdict, prices)
        self._grants[attempt] = grant
        return grant

    def _reserve_in_store(self, attempt: str, lines: Sequence[CounterUpdate], now: float, until: float) -> Verdict:
        """Reserve; where only what is reserved keeps that from fitting, once more when calls ended here are settled."""
        verdict = self.store.reserve(attempt, lines, now, until)
        if verdict.refused is None or not self.settler.waiting:
            return verdict
        level, line = verdict.levels[verdict.refused], lines[verdict.refused]
        alone = fitting(line, CounterState(level.spent, 0, level.limit)) >= 0
        if alone and self.settler.flush(CATCH_UP):
            verdict = self.store.reserve(attempt, lines, now, until)
        return verdict

    def _granted(self, grant: Grant, offset: int, verdict: Verdict, prices: Prices) -> None:
        held, levels = grant.held, self.levels
        index = offset
        for level in verdict.levels:
            budget, line = held[index]
            if line.mode == FIT:
                amount = verdict.amounts[index - offset]
                _limit_stream(grant, budget, amount, level, prices)
                held[index] = budget, line._replace(amount=amount)
            levels[line.key] = budget, level
            index += 1
        if len(levels) > _KEPT:
            for key in list(levels)[: _KEPT // 2]:
                levels.pop(key, None)

    def _unanswered(self, grant: Grant, asked: BudgetRequest, error: StoreError) -> Grant | Denial:
        """Do what the budgets' policies say where the store did not answer."""
        self._store_failed(error)
        self.settler.settle_later(asked.attempt, (), self.clock())  # it may have reserved all the same
        split = grant.local
        for budget, _ in grant.held[split:]:
            if budget.store_failure == "closed" and budget.on_exceed != "warn":
                if split:
                    self.local.settle(asked.attempt, (), self.clock())
                return self._denied(unchecked(budget, error))
        del grant.held[split:]
        self._grants[asked.attempt] = grant
        return grant

    def _refusal(
        self, held: Sequence[Held], verdict: Verdict, asked: BudgetRequest, *, downgraded: bool
    ) -> Denial | Downgrade:
        budget, line = held[verdict.refused or 0]
        level = verdict.levels[verdict.refused or 0]
        self.levels[line.key] = budget, level
        smaller = budget.downgrade.get(asked.traits.get("model", "")) if budget.on_exceed == "downgrade" else None
        if smaller is not None and not downgraded:
            return Downgrade(budget=budget.name, model=smaller)
        now = self.clock()
        block = is_block(line.key)
        renews = None if block else budget.period.window(now).renews_at
        bounded = asked.ask.facts.max_output is not None or asked.ask.stated is not None
        return self._denied(
            exhausted(budget, level, line.amount, now=now, renews_at=renews, bounded=bounded, block=block)
        )

    def _denied(self, denial: Denial) -> Denial:
        key = denial.budget, denial.reason
        with self._counting:
            self.denied[key] = self.denied.get(key, 0) + 1
        return denial

    def _store_failed(self, error: StoreError) -> None:
        kind = type(error.__cause__ or error).__name__
        with self._counting:
            self.store_errors[kind] = self.store_errors.get(kind, 0) + 1
        self.failed("budget store", error)

    # After the call

    def settle(self, call: Call, span: Any = None) -> None:
        """Charge a call's budgets what its record says; a call that nothing was reserved for is charged as it is.

        `span` is the call's, which has not ended yet: warnings are events on it.
        """
        attempt = call.settles or call.id
        grant = (self._grants if call.settles is None else self._pending).pop(attempt, None)
        if call.outcome == "denied":
            return
        if call.pending and grant is not None:
            self._wait(attempt, grant)
            return
        if grant is None:
            if call.billable and (self._rules.all or blocks.get() is not None):
                self._charge(call, span)
            return
        self.bounds.learn(call, grant.size)
        self._finish(attempt, grant, call, span)

    def _wait(self, attempt: str, grant: Grant) -> None:
        """Keep what is reserved for a response in the background; of too many, the oldest are left to their leases."""
        self._pending[attempt] = grant
        if len(self._pending) > _KEPT:
            with contextlib.suppress(KeyError):  # another thread may have taken the last one
                self._pending.popitem(last=False)

    def unbilled(self, call: Call) -> None:
        """Settle a pending call whose response turned out to have failed without usage."""
        if (grant := self._pending.pop(call.id, None)) is not None:
            self._finish(call.id, grant, call, None)

    def _finish(self, attempt: str, grant: Grant, call: Call, span: Any) -> None:
        """Put what a record says in the place of what was reserved."""
        held, local = grant.held, grant.local
        charges = [charge_of(budget, line.key, line.slot, line.amount, call) for budget, line in held]
        now = self.clock()
        if local == len(held):
            self._settled(held, charges, self.local.settle(attempt, charges, now), self.local, span)
            return
        if local:
            levels = self.local.settle(attempt, charges[:local], now)
            self._settled(held[:local], charges[:local], levels, self.local, span)
        self.settler.settle(attempt, tuple(charges[local:]), now, tuple(held[local:]), span)

    def _settle_in(
        self, attempt: str, charges: tuple[Charge, ...], now: float, held: tuple[Held, ...], span: Any
    ) -> None:
        """Settle in the store; raises StoreError, for the settler to try again."""
        levels = self.store.settle(attempt, charges, now)
        if held:
            self._settled(held, charges, levels, self.store, span)

    def _settled(
        self,
        held: Sequence[Held],
        charges: Sequence[Charge],
        levels: tuple[CounterState, ...] | None,
        store: Store,
        span: Any,
    ) -> None:
        if levels is None:
            return
        for (budget, line), charge, told in zip(held, charges, levels, strict=True):
            level = told if told.limit is not None else CounterState(told.spent, told.reserved, line.limit)
            self.levels[line.key] = budget, level
            if level.limit is None or not charge.amount:
                continue
            if charge.amount > line.amount and level.spent > level.limit and budget.limit.unit == "usd":
                self._overshot(budget, min(charge.amount - line.amount, level.spent - level.limit))
            if budget.warn_at or budget.on_exceed == "warn":
                self.thresholds.passed(budget, line.key, charge.amount, level, store, self.clock(), span)

    def _overshot(self, budget: Budget, amount: int) -> None:
        with self._counting:
            self.overshoot[budget.name] = self.overshoot.get(budget.name, 0) + amount

    def _charge(self, call: Call, span: Any) -> None:
        """Charge a call that did not ask before: it did not pass httpx, or it is a paid tool's."""
        traits = traits_of(call, self.defaults)
        now = self.clock()
        held: list[Held] = []
        block = blocks.get()
        while block is not None:
            for rule, key in block.rules:
                held.append((rule.budget, CounterUpdate(key, rule.name, 0, rule.limit, SOFT)))
            block = block.outer
        local = len(held)
        for rule in self._matching(traits):
            values = rule.values(traits)
            if values is not None and rule.unit != "identical":
                held.append((rule.budget, _line(rule, values, now)))
        for store, part in ((self.local, held[:local]), (self.store, held[local:])):
            if part:
                self._charge_in(store, part, call, now, span)

    def _charge_in(self, store: Store, part: Sequence[Held], call: Call, now: float, span: Any) -> None:
        charges = [charge_of(budget, line.key, line.slot, 0, call) for budget, line in part]
        lines = [line._replace(amount=charge.amount) for (_, line), charge in zip(part, charges, strict=True)]
        try:
            levels = store.charge(lines, now)
        except StoreError as error:
            self._store_failed(error)
            return
        self._settled(part, charges, levels, store, span)

    def release(self, attempt: str) -> None:
        """Free what was reserved for a call that was never sent."""
        grant = self._grants.pop(attempt, None)
        if grant is None:
            return
        if grant.local:
            self.local.settle(attempt, (), self.clock())
        if len(grant.held) > grant.local:
            self.settler.settle(attempt, (), self.clock())

    def withdraw(self, attempt: str) -> None:
        """Free what was reserved, or may have been, for a call whose check did not come to its end; never raises."""
        self._grants.pop(attempt, None)
        try:
            self.local.settle(attempt, (), self.clock())
            if self.store is not self.local:
                self.settler.settle(attempt, (), self.clock())
        except Exception as error:  # noqa: BLE001 - the lease frees it; what went wrong before is told by who asks
            self.failed("budget", error)

    # What is left

    def levels_here(self, traits: Mapping[str, str], wanted: Callable[[CompiledBudget], bool]) -> list[CounterState]:
        """Return how full the counters are that a call made here would count on, of the budgets that are wanted.

        Raises:
            StoreError: the store does not answer.
        """
        now, traits = self.clock(), {**self.defaults, **traits}
        found: list[CounterState] = []
        block = blocks.get()
        while block is not None:
            lines = [CounterUpdate(key, rule.name, 0, rule.limit, SOFT) for rule, key in block.rules if wanted(rule)]
            found += self.local.levels(lines, now)
            block = block.outer
        lines = []
        for rule in self._rules.all:
            if rule.unit != "identical" and wanted(rule) and (values := rule.values(traits)) is not None:
                lines.append(_line(rule, values, now))
        if lines:
            self.settler.flush(CATCH_UP)
            found += self.store.levels(lines, now)
        return found

    def refresh(self) -> None:
        """Look again at the counters last seen, for they change by themselves, and by others; never waits for a store.

        What this process's memory keeps is looked at now, what a store does soon.
        """
        now = self.clock()
        if now < self._refreshed + _FRESH:
            return
        self._refreshed = now
        if self.store is self.local:
            self._look_again(now)
        else:
            self.settler.later(lambda: self._look_again(now))

    def _look_again(self, now: float) -> None:
        rules = {rule.name: rule for rule in self._rules.all}
        seen: list[Held] = []
        for key, (budget, _) in list(self.levels.items()):
            rule = rules.get(budget.name)
            if rule is None or is_block(key):
                continue
            turn = rule.turn(now)
            window = turn.window
            if period_of(key) != window.name:
                self.levels.pop(key, None)  # it has begun anew since
                continue
            seen.append(
                (budget, CounterUpdate(key, rule.name, 0, rule.limit, SOFT, window.slot, window.first, turn.kept_until))
            )
        try:
            levels = self.store.levels([line for _, line in seen], now) if seen else ()
        except StoreError as error:
            self._store_failed(error)
            return
        for (budget, line), level in zip(seen, levels, strict=True):
            if line.key in self.levels:
                self.levels[line.key] = budget, level

    def reset_session(self, session: str | None = None) -> None:
        """Have the budgets of a session begin anew; without one, those of all sessions that only this process counts.

        Where a store is shared, that is the session of calls that name none.

        Raises:
            StoreError: the store does not answer.
        """
        self.settler.flush(CATCH_UP)  # what was spent before is forgotten, too
        if session is None and self.store is not self.local:
            session = self.session
        keys = of_session([counter.key for counter in self.store.counters(self.clock())], session)
        self.store.reset(keys)
        for key in keys:
            self.levels.pop(key, None)

    def close(self, timeout: float = 5.0) -> None:
        """Settle what is still to be settled, and let the store go."""
        self.settler.flush(timeout)
        self.store.close()

    def _matching(self, traits: Mapping[str, str]) -> tuple[CompiledBudget, ...]:
        return self._rules.matching(traits)


async def check_aside(guard: Guard, asked: BudgetRequest, *, downgraded: bool = False) -> Answer:
    """Do as `guard.check` for a task on an event loop, which goes on with other tasks while a store answers.

    Where the task is cancelled meanwhile, what was reserved is freed again.
    """
    if not guard.waits(asked.traits):
        return guard.check(asked, downgraded=downgraded)
    given_up: list[bool] = []

    def check() -> Answer:
        verdict = guard.check(asked, downgraded=downgraded)
        if given_up:
            guard.release(asked.attempt)
        return verdict

    try:
        return await aside(check)
    except BaseException:
        given_up.append(True)
        guard.release(asked.attempt)  # the thread may have come to its end before it could see that
        raise


_FRESH: Final = 1.0
"""Seconds that what was seen of the counters is taken to hold for gauges: five of them are read at once."""


def _line(rule: CompiledBudget, values: tuple[str, ...], now: float) -> CounterUpdate:
    """Return the line of a counter, with nothing on it yet."""
    turn = rule.turn(now)
    window = turn.window
    return CounterUpdate(
        rule.key(turn, values), rule.name, 0, rule.limit, SOFT, window.slot, window.first, turn.kept_until
    )


def _hold_all(  # noqa: PLR0913, PLR0917 - one call and all of its budgets
    grant: Grant,
    block: Block | None,
    rules: Iterable[CompiledBudget],
    traits: Mapping[str, str],
    asked: BudgetRequest,
    prices: Prices,
    now: float,
) -> Denial | None:
    """Put what every budget has to reserve into the grant; give a denial where one cannot tell."""
    held, stream = grant.held, asked.stream
    while block is not None:
        for rule, key in block.rules:
            amount = prices.amount(rule)
            if amount is None and rule.refuses_unpriced:
                return unpriced(rule.budget, traits)
            if rule.unit == "identical":
                key = _body_key(key, asked)  # noqa: PLW2901
            mode = rule.streamed if stream else rule.mode
            held.append((rule.budget, CounterUpdate(key, rule.name, amount or 0, rule.limit, mode)))
        block = block.outer
    grant.local = len(held)
    for rule in rules:
        values = rule.values(traits) if rule.keyed else ()
        if values is None:
            if rule.budget.unset == "skip":
                continue
            return unset(rule.budget)
        amount = prices.amount(rule)
        if amount is None and rule.refuses_unpriced:
            return unpriced(rule.budget, traits)
        turn = rule.turn(now)
        key = turn.keys.get(values) or rule.key(turn, values)
        if rule.unit == "identical":
            key = _body_key(key, asked)
        mode = rule.streamed if stream else rule.mode
        window = turn.window
        line = CounterUpdate(key, rule.name, amount or 0, rule.limit, mode, window.slot, window.first, turn.kept_until)
        held.append((rule.budget, line))
    return None


def _body_key(key: str, asked: BudgetRequest) -> str:
    """Return the counter of one request body: a guard against loops counts each by itself."""
    return f"{key}/body={_digest(asked.ask.content)}"


def _limit_stream(grant: Grant, budget: Budget, amount: int, level: CounterState, prices: Prices) -> None:
    """Have a stream cut when what the budget has left for it is used up.

    One that was reserved all it may use needs no ceiling, and the rough count of what arrives would cut it too early.
    """
    if budget.limit.unit not in {"usd", "tokens"} or level.limit is None:
        return
    most = prices.most(budget)
    left = amount + max(level.limit - level.spent - level.reserved, 0)
    if most is None or left < most:
        grant.ceilings.append(Ceiling(budget, left))


def traits_of(call: Call, defaults: Mapping[str, str]) -> dict[str, str]:
    """Return what budgets match, of a record; `defaults` are the session and run of calls that name none."""
    found = {**defaults, **call.attribution, "provider": call.provider, "operation": call.operation}
    if call.request_model is not None:
        found["model"] = call.request_model
    if call.server_address is not None:
        found["host"] = call.server_address
    return found


def _digest(content: bytes | None) -> str:
    return blake2b(content or b"", digest_size=12).hexdigest()


def _ignore(kind: str, error: BaseException) -> None:
    log.debug("%s: %s", kind, error)
