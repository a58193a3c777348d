"""`tollspan.budget`: blocks with their own limits, and functions that return the state of all budgets.

Blocks nest:

    with tollspan.budget("2 USD") as b:
        ...
        with tollspan.budget("0.50 USD"):  # never more than b has left
            ...
        print(b.tree())

Functions of the active budgets:

    tollspan.budget.status()
    tollspan.budget.remaining()
    tollspan.budget.exhausted()
    tollspan.budget.line()
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from tollspan.attribution import current_attribution
from tollspan.budget.denials.denial import amount
from tollspan.budget.policy.budget import Budget, parse_tables
from tollspan.budget.policy.counter_names import is_block
from tollspan.budget.policy.enforcement import SOFT
from tollspan.budget.policy.matching import Block, CompiledBudget, blocks
from tollspan.budget.policy.settings import Defaults
from tollspan.budget.reservations import SETTLEMENT_WAIT
from tollspan.budget.runtime import connected
from tollspan.budget.stores import CounterState, CounterUpdate, StoreError
from tollspan.model.errors import SettingsError, TollspanError
from tollspan.model.money import usd
from tollspan.model.text import many
from tollspan.runtime.blocks import around

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from tollspan.budget.alerts.warning import BudgetWarning
    from tollspan.budget.guard import Guard

_numbers: Final = itertools.count(1)

MOST_INNER: Final = 100
"""Blocks inside a block that its tree lists one by one."""


def _guard() -> Guard | None:
    return None if (runtime := connected()) is None else runtime.guard()


def _defaults() -> Defaults:
    return Defaults() if (runtime := connected()) is None else runtime.defaults()


def _ensure_guard() -> Guard:
    if (runtime := connected()) is None:
        raise TollspanError(
            "a budget would limit nothing: call tollspan.instrument() first, or start the program with `tollspan run`"
        )
    return runtime.ensure_guard()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The state of one counter of a budget. Amounts are dollars for `usd`, else integers in `unit`.

    Attributes:
        budget: the budget's name.
        counter: the counter's name in the store.
        unit: usd, tokens, calls or identical.
        limit: the limit; None = no limit.
        spent: what is spent.
        uncertain: the part of `spent` that was charged for calls whose usage is not known.
        reserved: what calls under way have reserved.
        remaining: what is not spent, never below zero; None = no limit.
        as_of: the time of the figures in Unix seconds, for a store whose figures are late; None = now.
    """

    budget: str
    counter: str
    unit: str
    limit: Decimal | int | None
    spent: Decimal | int
    uncertain: Decimal | int
    reserved: Decimal | int
    remaining: Decimal | int | None
    as_of: float | None = None

    @property
    def utilization(self) -> float | None:
        """Return the share of the limit that is spent."""
        return None if self.limit is None else float(self.spent / self.limit) if self.limit else 1.0


def status_of(budget: str, counter: str, unit: str, state: CounterState, uncertain: int = 0) -> Status:
    """Return the state of a counter in the budget's unit."""

    def in_unit(value: int) -> Decimal | int:
        return usd(value) if unit == "usd" else value

    return Status(
        budget=budget,
        counter=counter,
        unit=unit,
        limit=None if state.limit is None else in_unit(state.limit),
        spent=in_unit(state.spent),
        uncertain=in_unit(uncertain),
        reserved=in_unit(state.reserved),
        remaining=None if state.limit is None else in_unit(max(state.limit - state.spent, 0)),
    )


class BudgetBlock:
    """A `with tollspan.budget(...)` block, counted in this process. Calls inside also count in the blocks around it.

    It may be entered again, also inside itself and in several threads at once: its counters go on.
    """

    def __init__(self, tables: Sequence[Mapping[str, Any]]) -> None:
        """Prepare a block; nothing is limited before it is entered.

        Raises:
            SettingsError: a table is not valid.
        """
        self._number = next(_numbers)
        self._tables = tables
        self._set(Defaults())
        self._guard: Guard | None = None
        self._entered: list[Block] = []
        self._inner = _InnerBlocks()

    def _set(self, defaults: Defaults) -> None:
        """Read the block's budgets, each with the key of its counter."""
        tables = (defaults.completed(table) for table in self._tables)
        budgets = (budget for table in tables for budget in parse_tables([table], _WHERE))
        self._budgets = tuple(
            (budget, f"#{self._number}.{index}/{budget.name}") for index, budget in enumerate(budgets)
        )
        self._compiled = tuple((CompiledBudget(budget), key) for budget, key in self._budgets)

    @property
    def name(self) -> str:
        """Return the name of the block's budget."""
        return ", ".join(budget.name for budget, _ in self._budgets)

    def __enter__(self) -> Self:
        self._guard = _ensure_guard()
        if not self._entered:
            self._set(_defaults())
        outer = blocks.get()
        if outer is not None and isinstance(outer.owner, BudgetBlock):
            outer.owner._inner.add(self, among=outer)  # noqa: SLF001 - of this class
        entry = Block(self._compiled, self)
        self._entered.append(entry)
        blocks.enter(entry)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._entered:
            return
        entry = blocks.left_here(self._entered)
        self._entered.remove(entry)
        blocks.leave(entry)

    def __del__(self) -> None:
        if self.__dict__.get("_guard") is not None and self._guard is not None:
            self._guard.forget_counters([key for _, key in self._budgets])

    def status(self) -> list[Status]:
        """Return the state of the block's budgets; a call that ends after the block still counts."""
        guard = self._guard
        updates = [CounterUpdate(key, budget.name, 0, budget.limit.amount, SOFT) for budget, key in self._budgets]
        if guard is None:
            states = tuple(CounterState(0, 0, update.limit) for update in updates)
        else:
            states = guard.local.states(updates, guard.clock())
        return [
            status_of(budget.name, key, budget.limit.unit, state)
            for (budget, key), state in zip(self._budgets, states, strict=True)
        ]

    @property
    def spent(self) -> Decimal | int:
        """Return what was spent in the block, in its first budget's unit."""
        return self.status()[0].spent

    def remaining(self) -> Decimal | int | None:
        """Return what is left, never below zero, in the block's first budget's unit."""
        return self.status()[0].remaining

    def exhausted(self) -> bool:
        """Return whether nothing is left of any budget of the block."""
        return any(status.remaining == 0 for status in self.status())

    def tree(self) -> str:
        """Return the block and the blocks inside it as an indented list, with what was spent in each."""
        return "\n".join(self._lines(0))

    def _lines(self, depth: int) -> list[str]:
        lines = []
        for status in self.status():
            unit = status.unit
            spent, limit = _shown(status.spent, unit), _shown(status.limit, unit, limit=True)
            lines.append(f"{'  ' * depth}{status.budget}: {spent} of {limit} spent")
        return lines + self._inner.lines(depth + 1)

    def is_settled(self) -> bool:
        """Return whether the block is over, and none of its calls is under way."""
        return not self._entered and not any(status.reserved for status in self.status())


class _InnerBlocks:
    """The blocks inside of a block, for its tree: the last ones, and the sums of those before."""

    def __init__(self) -> None:
        self._last: list[BudgetBlock] = []
        self._earlier = 0
        self._spent: dict[str, Decimal | int] = {}

    def add(self, block: BudgetBlock, *, among: Block) -> None:
        """Add a block, once; of more than `MOST_INNER`, the first that is settled becomes part of the sums."""
        if any(entry.owner is block for entry in around(among)) or any(known is block for known in self._last):
            return  # entered again
        self._last.append(block)
        if len(self._last) > MOST_INNER:
            settled = next((known for known in self._last if known.is_settled()), None)
            if settled is not None:
                self._last = [known for known in self._last if known is not settled]
                self._add_up(settled)

    def _add_up(self, block: BudgetBlock) -> None:
        self._earlier += 1
        status = block.status()[0]
        self._spent[status.unit] = self._spent.get(status.unit, 0) + status.spent

    def lines(self, depth: int) -> list[str]:
        """Return the lines of the tree."""
        sums = ", ".join(f"{_shown(spent, unit)} {unit}".removesuffix(" usd") for unit, spent in self._spent.items())
        earlier = [f"{'  ' * depth}{many(self._earlier, 'earlier block')}: {sums} spent"] if self._earlier else []
        return earlier + [line for block in tuple(self._last) for line in block._lines(depth)]  # noqa: SLF001


def _shown(value: Decimal | int | None, unit: str, *, limit: bool = False) -> str:
    if value is None:
        return "no limit"
    return amount(int(value * 10**18) if unit == "usd" else int(value), unit, limit=limit)


class BudgetApi(Protocol):
    """The type of `tollspan.budget`, a package that can be called."""

    @property
    def status(self) -> Callable[[], list[Status]]:
        """Return every counter of the active budgets."""
        ...

    @property
    def remaining(self) -> Callable[..., Decimal | None]:
        """Return the dollars that are left; None = no limit."""
        ...

    @property
    def exhausted(self) -> Callable[..., bool]:
        """Return whether nothing is left."""
        ...

    @property
    def on_warning(self) -> Callable[[Callable[[BudgetWarning], None]], None]:
        """Call a function with each warning."""
        ...

    @property
    def line(self) -> Callable[[], str]:
        """Return the status line."""
        ...

    def __call__(self, limit: str, **options: Any) -> BudgetBlock:
        """Limit what the calls inside a `with` block may spend."""
        ...


if TYPE_CHECKING:
    API: BudgetApi


_WHERE: Final = "tollspan.budget()"
_NOT_FOR_BLOCKS: Final = ("period", "time_zone", "match", "per", "unset")


def block(limit: str, **options: Any) -> BudgetBlock:
    """Limit what the calls inside a `with` block may spend.

    Args:
        limit: a limit such as "2 USD", "100 calls" or "50000 tokens", or several of them, comma-separated.
        options: keys of a [[budget]] table, such as `hard`, `wait`, `fit`, `on_exceed`, `warn_at` or `name`; the
            settings `budget_hard` and `budget_wait` decide for blocks that do not.

    Raises:
        SettingsError: the limit or an option is invalid.
        TollspanError: when the block is entered, if `tollspan.instrument()` was not called: nothing would be limited.
    """
    for key in _NOT_FOR_BLOCKS:
        if key in options:
            raise SettingsError(
                f"{_WHERE}: {key!r} is not an option of a block, which applies to all calls from its start to its end"
            )
    parts = [part.strip() for part in limit.split(",")]
    tables = [{"name": str(part), **options, "limit": part, "period": "total"} for part in parts]
    return BudgetBlock(tables)


def status() -> list[Status]:
    """Return every counter of the active budgets, including those of the current blocks."""
    guard = _guard()
    if guard is None:
        return []
    guard.settler.flush(SETTLEMENT_WAIT)
    limits = guard.store.limits()
    budgets = {budget.name: budget for budget in guard.budgets}
    statuses = []
    for counter in guard.store.counters(guard.clock()):
        budget = budgets.get(counter.name)
        if budget is not None and not is_block(counter.key):
            state = CounterState(counter.spent, counter.reserved, limits.get(budget.name, budget.limit.amount))
            status = status_of(budget.name, counter.key, budget.limit.unit, state, counter.uncertain)
            statuses.append(replace(status, as_of=counter.as_of))
    for block in around(blocks.get()):
        if isinstance(block.owner, BudgetBlock):
            statuses += block.owner.status()
    return statuses


def remaining(name: str | None = None) -> Decimal | None:
    """Return the dollars that are left for a call made here and now, or of the budget `name`; None = no limit.

    Without a name, a budget counts if it limits every call made here, whatever its model or provider.
    """
    states = _states(lambda budget: budget.unit == "usd", name)
    return min((usd(state.unspent) for state in states if state.unspent is not None), default=None)


def exhausted(name: str | None = None) -> bool:
    """Return whether a budget has nothing left for a call made here and now; true at exactly the limit."""
    return any(state.unspent == 0 for state in _states(lambda _: True, name))


def _states(wanted: Callable[[CompiledBudget], bool], name: str | None) -> list[CounterState]:
    guard = _guard()
    if guard is None:
        return []
    values = current_attribution()
    traits = {**guard.defaults, **values}

    def limits_here(budget: CompiledBudget) -> bool:
        return wanted(budget) and (budget.budget.fits(traits) if name is None else budget.name == name)

    return guard.states_here(values, limits_here)


def on_warning(callback: Callable[[BudgetWarning], None]) -> None:
    """Call `callback` with each warning, in the thread of the call that passed the share."""
    _ensure_guard().thresholds.callbacks.append(callback)


def line() -> str:
    """Return the status line: `[Cost: $0.12 (24%) OK]`, `[Cost: $0.12 | 14 calls]`, or `[Cost: —]` before any call.

    It shows the current session or, if there is none, this process, with the fullest of the budgets that a call made
    here may count towards.
    """
    spend, calls = (0, 0) if (runtime := connected()) is None else runtime.spend()
    guard = _guard()
    states = [] if guard is None else [state for state in _states_in_line(guard) if state.limit is not None]
    if not calls and not any(state.spent for state in states):
        return "[Cost: —]"
    if not states:
        return f"[Cost: ${usd(spend):.2f} | {many(calls, 'call')}]"
    fullest = max(states, key=_percent)
    return f"[Cost: ${usd(fullest.spent):.2f} ({int(_percent(fullest))}%) {_word(fullest)}]"


def _states_in_line(guard: Guard) -> list[CounterState]:
    """Return the states of the budgets in dollars: current ones, or the last observed if a value is not known here."""
    values = current_attribution()
    traits = {**guard.defaults, **values}
    guard.refresh()
    observed = [(budget, state) for budget, state in list(guard.observed.states.values()) if budget.limit.unit == "usd"]

    def wanted(budget: CompiledBudget) -> bool:
        return budget.unit == "usd" and _has_values(budget.budget, traits) and _can_fit(budget.budget, traits)

    try:
        current = guard.states_here(values, wanted)
    except StoreError:
        return [state for _, state in observed]
    return current + [state for budget, state in observed if not _has_values(budget, traits)]


def _has_values(budget: Budget, traits: Mapping[str, str]) -> bool:
    return all(key in traits for key in budget.per)


def _can_fit(budget: Budget, traits: Mapping[str, str]) -> bool:
    """Return whether a call made here can count towards a budget: it may request any model of any provider."""
    return budget.fits({**{key: patterns[0] for key, patterns in budget.match.items() if key in _OF_CALLS}, **traits})


_OF_CALLS: Final = frozenset({"provider", "model", "operation", "host"})
"""Traits that only a call has, and attribution does not."""


def _percent(state: CounterState) -> Decimal:
    """Return the percentage of a limit that is spent; 100 for a limit of 0."""
    return usd(state.spent) * 100 / usd(state.limit) if state.limit else Decimal(100)


_WORDS: Final = ((90, "HIGH"), (50, "WARN"), (0, "OK"))


def _word(state: CounterState) -> str:
    return next(word for percent, word in _WORDS if _percent(state) >= percent)
