"""The guard: asks every budget that a call counts towards, before the call, and settles with them after it.

    verdict = guard.check(asked)      # None: no budget cares. Grant: send it. Denial: send nothing. Downgrade: ask
    again. guard.settle(call)                # the call's one record, whoever made it guard.release(attempt)
    # it was never sent

What a call is charged, by how it ended (strict budgets):

- a cost that was measured or stated by the provider: that cost;
- answered with an error status: nothing; never sent: nothing;
- still at work in the background: its reservation stays, until the record of the request that fetches the response
  settles it, or its lease ends; nothing, if that finds it failed without usage;
- anything else (a time-out, a broken connection, a stream that was left, usage never told): its reservation, for the
  provider may bill it. What is charged beyond the record's own cost is kept apart as `uncertain`: spent less uncertain
  is the sum of the records' costs, which `tollspan.spend` shows.

A budget that estimates what is expected takes the record's own cost where it has one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import uuid
from collections import OrderedDict
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from tollspan.budget.denial import Denial, exhausted, unchecked, unpriced, unset
from tollspan.budget.policy import Assumed, Budget
from tollspan.budget.settler import Settler
from tollspan.budget.stores import FIT, HARD, SOFT, Charge, Level, Line, StoreError
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.thresholds import Thresholds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tollspan.budget.bounds import Ask, Bound, Bounds
    from tollspan.budget.periods import Window
    from tollspan.budget.stores import Store, Verdict
    from tollspan.usage import Call

log = logging.getLogger("tollspan.budget")

LEASE: Final = 900.0
"""Seconds that a reservation lasts. A longer call is charged its reservation, and its real cost when it ends."""

_KEPT: Final = 4096
_UNSURE: Final = frozenset({"estimated", "floor"})
"""Qualities of a cost that may be less than what the provider bills."""


class Block:
    """A `with tollspan.budget(...)` block: its budgets, the keys of their counters, and the block around it."""

    __slots__ = ("outer", "owner", "rules")

    def __init__(self, budgets: Iterable[tuple[Budget, str]], outer: Block | None, owner: object) -> None:
        """Prepare the budgets; `owner` is what the user holds."""
        self.rules = tuple((_Rule(budget), key) for budget, key in budgets)
        self.outer = outer
        self.owner = owner


blocks: ContextVar[Block | None] = ContextVar("tollspan_budgets", default=None)
"""The blocks in force, innermost first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A call that asks to be sent. `traits` are what budgets match: provider, model, operation, host, attribution."""

    attempt: str
    traits: Mapping[str, str]
    ask: Ask
    stream: bool = False
    resent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Downgrade:
    """The budget wants the call to ask for `model` in place of the one it names."""

    budget: str
    model: str


@dataclass(slots=True)
class Grant:
    """A call that may be sent, and what was reserved for it. `ceiling`: atto-dollars after which its stream is cut."""

    held: list[tuple[Budget, Line, int]] = field(default_factory=list)
    local: int = 0
    size: int | None = None
    ceiling: int | None = None
    cut_by: str | None = None


class _Rule:
    """A budget made ready: the window it is in, and the key of its counter where no value goes into it."""

    __slots__ = ("_keys", "budget", "kept", "limit", "mode", "name", "prefix", "window")

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.limit = budget.limit.amount
        self.mode = SOFT if budget.on_exceed == "warn" else HARD
        self.name = budget.name
        self.prefix = quote(budget.name, safe=" $")
        self.window: Window | None = None
        self.kept: float | None = None
        self._keys: dict[tuple[str, ...], str] = {}

    def turn(self, now: float) -> Window:
        """Give the window of `now`; clocks may jump either way."""
        window = self.window
        if window is None or not window.since <= now < window.until:
            window = self.window = self.budget.period.window(now)
            self.kept = self.budget.period.kept_until(window, now)
            self._keys.clear()
        return window

    def key(self, window: Window, values: tuple[str, ...]) -> str:
        known = self._keys.get(values)
        if known is None:
            if len(self._keys) >= _KEPT:
                self._keys.clear()
            parts = [self.prefix, window.name]
            names = (
                (self.budget.period.kind,) if self.budget.period.kind in {"session", "run"} else ()
            ) + self.budget.per
            parts += [f"{name}={quote(value, safe='')}" for name, value in zip(names, values, strict=False)]
            known = self._keys[values] = "/".join(parts)
        return known


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
        self.session = session
        self.run = run or uuid.uuid4().hex
        self.failed = failed or _ignore
        self.settler = Settler(self._settle_in, remote=store.remote)
        self.thresholds = Thresholds(self.failed)
        self.denied: dict[tuple[str, str], int] = {}
        self.overshoot: dict[str, int] = {}
        self.store_errors: dict[str, int] = {}
        self.levels: OrderedDict[str, tuple[Budget, Level]] = OrderedDict()
        self.refusing: str | None = None
        self._grants: dict[str, Grant] = {}
        self._pending: OrderedDict[str, Grant] = OrderedDict()
        self._rules: dict[str, _Rule] = {}
        self.configure(budgets)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_grants)

    def _forget_grants(self) -> None:
        self._grants, self._pending = {}, OrderedDict()  # calls under way are the parent's, which settles them

    def configure(self, budgets: Iterable[Budget]) -> None:
        """Put these budgets in the place of the configured ones."""
        self._rules = {budget.name: _Rule(budget) for budget in budgets}
        self._matched: OrderedDict[tuple[str | None, ...], tuple[_Rule, ...]] = OrderedDict()
        self._by_value, self._general = _indexed(self._rules.values())
        self._traits = tuple(sorted({key for rule in self._rules.values() for key in rule.budget.match}))
        self._needs_match = bool(self._traits)
        self._all = tuple(self._rules.values())
        if self._rules:
            self._register()

    def _register(self) -> None:
        try:
            self.store.register({rule.name: f"{rule.budget.limit}/{rule.budget.period}" for rule in self._all})
        except StoreError as error:
            self._store_failed(error)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Give the configured budgets."""
        return tuple(rule.budget for rule in self._all)

    # Before the call

    def check(  # noqa: PLR0911 - each return is an answer
        self, asked: Asked, *, downgraded: bool = False
    ) -> Grant | Denial | Downgrade | None:
        """Reserve what a call may cost in every budget that it counts towards; None where it counts towards none."""
        if self.refusing is not None:
            return self._denied(Denial(budget="", reason="settings", message=self.refusing, on_exceed="block"))
        block = blocks.get()
        rules = self._matching(asked.traits) if self._rules else ()
        if block is None and not rules:
            return None
        now = self.clock()
        prices = _Prices(self.bounds, asked.ask, now, asked.traits.get("provider", ""))
        grant = Grant(size=asked.ask.size)
        while block is not None:
            for rule, key in block.rules:
                refused = self._hold(grant, rule, asked, prices, now, key)
                if refused is not None:
                    return self._denied(refused)
            block = block.outer
        grant.local = len(grant.held)
        for rule in rules:
            refused = self._hold(grant, rule, asked, prices, now, None)
            if refused is not None:
                return self._denied(refused)
        if not grant.held:
            return None
        if not downgraded and (smaller := self._smaller(grant, asked, now)) is not None:
            return smaller
        return self._reserve(grant, asked, prices, now, downgraded=downgraded)

    def _matching(self, traits: Mapping[str, str]) -> tuple[_Rule, ...]:
        """Give the configured budgets that a call with these traits counts towards; answers are remembered."""
        if not self._needs_match:
            return self._all
        signature = tuple(map(traits.get, self._traits))
        found = self._matched.get(signature)
        if found is None:
            candidates = list(self._general)
            for item in zip(self._traits, signature, strict=True):
                candidates += self._by_value.get(item, ())
            found = tuple(rule for rule in candidates if rule.budget.fits(traits))
            self._matched[signature] = found
            while len(self._matched) > _KEPT:
                self._matched.popitem(last=False)
        return found

    def _hold(  # noqa: PLR0913, PLR0917 - one call, one budget
        self, grant: Grant, rule: _Rule, asked: Asked, prices: _Prices, now: float, block_key: str | None
    ) -> Denial | None:
        """Add what a budget has to reserve to the grant; give a denial where it cannot be told."""
        budget = rule.budget
        amount = prices.amount(budget, resent=asked.resent)
        if amount is None:
            if budget.unpriced == "allow" or rule.mode == SOFT:
                amount = 0
            else:
                return unpriced(budget, asked.traits)
        mode = FIT if budget.on_exceed == "cut" and asked.stream else rule.mode
        if block_key is not None:
            grant.held.append((budget, Line(block_key, budget.name, amount, rule.limit, mode), amount))
            return None
        window = rule.turn(now)
        values = self._values(budget, asked.traits)
        if values is None:
            return None if budget.unset == "skip" else unset(budget)
        if budget.limit.unit == "identical":
            values = (*values, "")
            key = f"{rule.key(window, values)}/body={_digest(asked.ask.content)}"
        else:
            key = rule.key(window, values)
        grant.held.append(
            (budget, Line(key, rule.name, amount, rule.limit, mode, window.slot, window.first, rule.kept), amount)
        )
        return None

    def _values(self, budget: Budget, traits: Mapping[str, str]) -> tuple[str, ...] | None:
        """Give the values that tell a budget's counters apart; None where one is not set and must be."""
        kind = budget.period.kind
        if not budget.per and kind not in {"session", "run"}:
            return ()
        found = []
        if kind == "session":
            found.append(traits.get("session") or self.session or self.run)
        elif kind == "run":
            found.append(traits.get("run") or self.run)
        for key in budget.per:
            value = traits.get(key, "")
            if not value and budget.unset != "shared":
                return None
            found.append(value)
        return tuple(found)

    def _smaller(self, grant: Grant, asked: Asked, now: float) -> Downgrade | None:
        """Tell whether a budget that is nearly used up wants a smaller model."""
        model = asked.traits.get("model", "")
        for index, (budget, line, _) in enumerate(grant.held):
            smaller = budget.downgrade.get(model) if budget.on_exceed == "downgrade" else None
            if smaller is None:
                continue
            try:
                (level,) = (self.local if index < grant.local else self.store).levels([line], now)
            except StoreError:
                return None  # the reservation will tell what the policy says
            spent, reserved, limit = level
            if limit is not None and spent + reserved >= limit * budget.downgrade_at:
                return Downgrade(budget=budget.name, model=smaller)
        return None

    def _reserve(
        self, grant: Grant, asked: Asked, prices: _Prices, now: float, *, downgraded: bool
    ) -> Grant | Denial | Downgrade:
        held, until = grant.held, now + self.lease
        split = len(held) if self.local is self.store else grant.local
        here, there = held[:split], held[split:]
        if here:
            verdict = self.local.reserve(asked.attempt, [line for _, line, _ in here], now, until)
            if verdict.refused is not None:
                return self._refusal(here, verdict, asked, downgraded=downgraded)
            self._granted(grant, 0, verdict, prices)
        if there:
            try:
                verdict = self.store.reserve(asked.attempt, [line for _, line, _ in there], now, until)
            except StoreError as error:
                return self._unanswered(grant, asked, split, error)
            if verdict.refused is not None:
                if here:
                    self.local.settle(asked.attempt, (), now)
                return self._refusal(there, verdict, asked, downgraded=downgraded)
            self._granted(grant, split, verdict, prices)
        grant.local = split
        self._grants[asked.attempt] = grant
        return grant

    def _granted(self, grant: Grant, offset: int, verdict: Verdict, prices: _Prices) -> None:
        for index, (level, amount) in enumerate(zip(verdict.levels, verdict.amounts, strict=True), offset):
            budget, line, wanted = grant.held[index]
            if amount != wanted:
                grant.held[index] = (budget, line, amount)
            if line.mode == FIT and amount < wanted and budget.limit.unit in {"usd", "tokens"}:
                self._limit_stream(grant, budget, amount, prices)
            self._seen(line.key, budget, level)

    def _limit_stream(self, grant: Grant, budget: Budget, amount: int, prices: _Prices) -> None:
        """Have the stream cut when the little that was left for it is used up; tokens become money by the bound's rate.

        One that got all it may cost needs no ceiling, and the rough count of what arrives would cut it too early.
        """
        ceiling = amount
        if budget.limit.unit == "tokens":
            bound = prices.strict()
            ceiling = amount * (bound.cost or 0) // max(bound.tokens, 1)
        if grant.ceiling is None or ceiling < grant.ceiling:
            grant.ceiling, grant.cut_by = ceiling, budget.name

    def _unanswered(self, grant: Grant, asked: Asked, split: int, error: StoreError) -> Grant | Denial:
        """Do what the budgets' policies say where the store did not answer."""
        self._store_failed(error)
        self.settler.settle(asked.attempt, (), self.clock())  # it may have reserved all the same
        for budget, _, _ in grant.held[split:]:
            if budget.store_failure == "closed" and budget.on_exceed != "warn":
                if split:
                    self.local.settle(asked.attempt, (), self.clock())
                return self._denied(unchecked(budget, error))
        del grant.held[split:]
        grant.local = split
        self._grants[asked.attempt] = grant
        return grant

    def _refusal(
        self,
        held: Sequence[tuple[Budget, Line, int]],
        verdict: Verdict,
        asked: Asked,
        *,
        downgraded: bool,
    ) -> Denial | Downgrade:
        budget, line, amount = held[verdict.refused or 0]
        level = verdict.levels[verdict.refused or 0]
        self._seen(line.key, budget, level)
        smaller = budget.downgrade.get(asked.traits.get("model", "")) if budget.on_exceed == "downgrade" else None
        if smaller is not None and not downgraded:
            return Downgrade(budget=budget.name, model=smaller)
        now = self.clock()
        block = line.key.startswith("#")
        renews = None if block else budget.period.window(now).renews_at
        limited = (
            asked.ask.facts.max_output is not None
            or asked.ask.stated is not None
            or budget.limit.unit not in {"usd", "tokens"}
        )
        return self._denied(exhausted(budget, level, amount, now=now, renews_at=renews, bounded=limited, block=block))

    def _denied(self, denial: Denial) -> Denial:
        key = denial.budget, denial.reason
        self.denied[key] = self.denied.get(key, 0) + 1
        return denial

    def _store_failed(self, error: StoreError) -> None:
        kind = type(error.__cause__ or error).__name__
        self.store_errors[kind] = self.store_errors.get(kind, 0) + 1
        self.failed("budget store", error)

    def _seen(self, key: str, budget: Budget, level: Level) -> None:
        """Remember how full a counter was last seen, for gauges and the status line."""
        self.levels[key] = (budget, level)
        if len(self.levels) > _KEPT:
            self.levels.popitem(last=False)

    # After the call

    def settle(self, call: Call) -> None:
        """Charge a call's budgets what its record says; a call that nothing was reserved for is charged as it is."""
        attempt = call.settles or call.id
        grant = (self._grants if call.settles is None else self._pending).pop(attempt, None)
        if call.outcome == "denied":
            return
        if call.pending and grant is not None:
            self._wait(attempt, grant)
            return
        if grant is None:
            if call.billable and (self._rules or blocks.get() is not None):
                self._charge(call)
            return
        self.bounds.learn(call, grant.size)
        self._finish(attempt, grant, call)

    def _wait(self, attempt: str, grant: Grant) -> None:
        """Keep what is reserved for a response in the background; of too many, the oldest are left to their leases."""
        self._pending[attempt] = grant
        if len(self._pending) > _KEPT:
            with contextlib.suppress(KeyError):  # another thread may have taken the last one
                self._pending.popitem(last=False)

    def unbilled(self, call: Call) -> None:
        """Settle a pending call whose response turned out to have failed without usage."""
        if (grant := self._pending.pop(call.id, None)) is not None:
            self._finish(call.id, grant, call)

    def _finish(self, attempt: str, grant: Grant, call: Call) -> None:
        """Put what a record says in the place of what was reserved."""
        charges = [_charge(budget, line, reserved, call) for budget, line, reserved in grant.held]
        now = self.clock()
        if grant.local:
            levels = self.local.settle(attempt, charges[: grant.local], now)
            self._settled(grant.held[: grant.local], charges[: grant.local], levels, self.local)
        if len(charges) > grant.local:
            self.settler.settle(attempt, tuple(charges[grant.local :]), now, tuple(grant.held[grant.local :]))

    def _settle_in(
        self, attempt: str, charges: tuple[Charge, ...], now: float, held: tuple[tuple[Budget, Line, int], ...]
    ) -> None:
        """Settle in the store; raises StoreError, for the settler to try again."""
        levels = self.store.settle(attempt, charges, now)
        if held:
            self._settled(held, charges, levels, self.store)

    def _settled(
        self,
        held: Sequence[tuple[Budget, Line, int]],
        charges: Sequence[Charge],
        levels: tuple[Level, ...] | None,
        store: Store,
    ) -> None:
        if levels is None:
            return
        for (budget, line, reserved), charge, level in zip(held, charges, levels, strict=True):
            level = level if level.limit is not None else Level(level.spent, level.reserved, line.limit)  # noqa: PLW2901
            self._seen(line.key, budget, level)
            if (
                budget.limit.unit == "usd"
                and charge.amount > reserved
                and level.limit is not None
                and level.spent > level.limit
            ):
                over = min(charge.amount - reserved, level.spent - level.limit)
                self.overshoot[budget.name] = self.overshoot.get(budget.name, 0) + over
            if budget.warn_at or budget.on_exceed == "warn":
                self.thresholds.passed(budget, line.key, charge.amount, level, store)

    def _charge(self, call: Call) -> None:
        """Charge a call that did not ask before: it did not pass httpx, or it is a paid tool's."""
        traits = traits_of(call, self.run)
        now = self.clock()
        lines: list[tuple[Budget, Line, int]] = []
        local = 0
        block = blocks.get()
        while block is not None:
            for rule, key in block.rules:
                amount = _charge(rule.budget, Line(key, rule.name, 0, None), 0, call).amount
                lines.append((rule.budget, Line(key, rule.name, amount, rule.limit, SOFT), amount))
            block = block.outer
        local = len(lines)
        for rule in self._matching(traits):
            values = self._values(rule.budget, traits)
            if values is None or rule.budget.limit.unit == "identical":
                continue
            window = rule.turn(now)
            amount = _charge(rule.budget, Line("", "", 0, None), 0, call).amount
            line = Line(
                rule.key(window, values), rule.name, amount, rule.limit, SOFT, window.slot, window.first, rule.kept
            )
            lines.append((rule.budget, line, amount))
        for store, part in ((self.local, lines[:local]), (self.store, lines[local:])):
            if part:
                self._charge_in(store, part, now)

    def _charge_in(self, store: Store, part: Sequence[tuple[Budget, Line, int]], now: float) -> None:
        try:
            levels = store.charge([line for _, line, _ in part], now)
        except StoreError as error:
            self._store_failed(error)
            return
        charges = [Charge(line.key, line.slot, amount) for _, line, amount in part]
        self._settled([(budget, line, 0) for budget, line, _ in part], charges, levels, store)

    # What is left

    def levels_here(self, traits: Mapping[str, str], name: str | None, *, dollars: bool) -> list[Level]:
        """Give how full the counters are that a call made here would count on, or those of the budget `name`.

        Without a name a budget counts if it limits every call of these traits, whatever its model or provider.
        Raises StoreError.
        """
        now = self.clock()
        found: list[Level] = []
        block = blocks.get()
        while block is not None:
            lines = [
                Line(key, rule.name, 0, rule.limit, SOFT) for rule, key in block.rules if _wanted(rule, name, dollars)
            ]
            found += self.local.levels(lines, now)
            block = block.outer
        lines = []
        for rule in self._all:
            if not _wanted(rule, name, dollars) or (name is None and not rule.budget.fits(traits)):
                continue
            values = self._values(rule.budget, traits)
            if values is not None and rule.budget.limit.unit != "identical":
                window = rule.turn(now)
                key = rule.key(window, values)
                lines.append(Line(key, rule.name, 0, rule.limit, SOFT, window.slot, window.first, rule.kept))
        return found + list(self.store.levels(lines, now)) if lines else found

    def release(self, attempt: str) -> None:
        """Free what was reserved for a call that was never sent."""
        grant = self._grants.pop(attempt, None)
        if grant is None:
            return
        if grant.local:
            self.local.settle(attempt, (), self.clock())
        if len(grant.held) > grant.local:
            self.settler.settle(attempt, (), self.clock())

    def close(self, timeout: float = 5.0) -> None:
        """Settle what is still to be settled, and let the store go."""
        self.settler.flush(timeout)
        self.store.close()


class _Prices:
    """What one call costs at most, or probably; worked out once per kind, when first asked for."""

    __slots__ = ("_ask", "_bounds", "_expected", "_now", "_provider", "_strict")

    def __init__(self, bounds: Bounds, ask: Ask, now: float, provider: str) -> None:
        self._bounds = bounds
        self._ask = ask
        self._now = now
        self._provider = provider
        self._strict: Bound | None = None
        self._expected: Bound | None = None

    def strict(self) -> Bound:
        if self._strict is None:
            self._strict = self._bounds.strict(self._ask, self._now)
        return self._strict

    def amount(self, budget: Budget, *, resent: bool) -> int | None:
        """Give what a budget has to reserve, in its own unit; None where no price is known."""
        unit = budget.limit.unit
        if unit == "calls":
            return 1
        if unit == "identical":
            return 0 if resent else 1  # an SDK's retry is no loop of the application's
        bound = self.strict()
        if unit == "usd" and bound.cost is None and isinstance(budget.unpriced, Assumed):
            bound = self._bounds.strict(self._ask, self._now, budget.unpriced)
        if budget.estimate == "expected":
            bound = self._bounds.expected(self._ask, bound, self._provider, self._now)
        return bound.tokens if unit == "tokens" else bound.cost


def _charge(budget: Budget, line: Line, reserved: int, call: Call) -> Charge:
    """Give what a call is charged in a budget's own unit (see the module's text)."""
    unit = budget.limit.unit
    counted = unit in {"calls", "identical"}
    if not call.billable:  # never sent, or refused by the provider
        return Charge(line.key, line.slot, reserved if counted and call.http_status is not None else 0)
    if counted:
        return Charge(line.key, line.slot, reserved if reserved or unit == "identical" else 1)
    known = _known(budget, call, unit)
    sure = call.cost.quality not in _UNSURE and call.usage_quality not in _UNSURE
    if known is not None and (sure or budget.estimate == "expected" or not reserved):
        return Charge(line.key, line.slot, known)
    own = known or 0
    amount = max(own, reserved)
    return Charge(line.key, line.slot, amount, amount - own)


def _known(budget: Budget, call: Call, unit: str) -> int | None:
    """Give what the record says, in the budget's unit; None where it says nothing."""
    usage = call.usage
    if unit == "tokens":
        return None if usage is None else (usage.input or 0) + (usage.output or 0)
    if call.cost.amount is not None:
        return call.cost.amount
    if usage is not None and isinstance(budget.unpriced, Assumed):
        return (usage.input or 0) * budget.unpriced.input + (usage.output or 0) * budget.unpriced.output
    return 0 if usage is not None and budget.unpriced == "allow" else None


def traits_of(call: Call, run: str) -> dict[str, str]:
    """Give what budgets match, of a record."""
    found = {"run": run, **call.attribution, "provider": call.provider, "operation": call.operation}
    if call.request_model is not None:
        found["model"] = call.request_model
    if call.server_address is not None:
        found["host"] = call.server_address
    return found


def _indexed(rules: Iterable[_Rule]) -> tuple[dict[tuple[str, str | None], list[_Rule]], list[_Rule]]:
    """Index budgets by one exact value that they match: of a thousand users' budgets one look-up finds a user's."""
    by_value: dict[tuple[str, str | None], list[_Rule]] = {}
    general = []
    for rule in rules:
        exact = [
            (key, patterns[0])
            for key, patterns in rule.budget.match.items()
            if len(patterns) == 1 and not any(mark in patterns[0] for mark in "*?[")
        ]
        if exact:
            by_value.setdefault(exact[-1], []).append(rule)
        else:
            general.append(rule)
    return by_value, general


def _wanted(rule: _Rule, name: str | None, dollars: bool) -> bool:  # noqa: FBT001 - a filter's own argument
    return name in {None, rule.name} and (not dollars or rule.budget.limit.unit == "usd")


def _digest(content: bytes | None) -> str:
    return blake2b(content or b"", digest_size=12).hexdigest()


def _ignore(kind: str, error: BaseException) -> None:
    log.debug("%s: %s", kind, error)
