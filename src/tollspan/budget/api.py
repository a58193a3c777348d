"""`tollspan.budget`: a block with a limit of its own, and questions about all budgets.

with tollspan.budget("2 USD") as b:
    ...
    with tollspan.budget("0.50 USD"):       # never more than b has left
        ...
    print(b.tree())

tollspan.budget.status()    tollspan.budget.remaining()    tollspan.budget.exhausted()    tollspan.budget.line()
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from tollspan.attribution import current_attribution
from tollspan.budget.denials.denial import amount
from tollspan.budget.guard import CATCH_UP
from tollspan.budget.policy.budget import Budget, parse_tables
from tollspan.budget.policy.counter_names import is_block
from tollspan.budget.policy.enforcement import SOFT
from tollspan.budget.policy.matching import Block, blocks
from tollspan.budget.runtime import connected
from tollspan.budget.stores import CounterState, CounterUpdate, StoreError
from tollspan.model.errors import SettingsError, TollspanError
from tollspan.model.money import usd
from tollspan.model.text import many

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token
    from types import TracebackType

    from tollspan.budget.alerts.warning import BudgetWarning
    from tollspan.budget.guard import Guard
    from tollspan.budget.policy.matching import CompiledBudget

_numbers: Final = itertools.count(1)


def _guard() -> Guard | None:
    return None if (wiring := connected()) is None else wiring.guard()


def _make() -> Guard:
    if (wiring := connected()) is None:
        raise TollspanError(
            "a budget has nothing to guard: call tollspan.instrument() first, or start with `tollspan run`"
        )
    return wiring.make()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How full one counter of a budget is. Amounts are dollars for `usd`, else whole numbers of `unit`.

    `as_of`: the moment that the figures are of, in Unix seconds, where the store has them late; None = now.
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


def status_of(budget: str, counter: str, unit: str, level: CounterState, uncertain: int = 0) -> Status:
    """Put a counter's level in the budget's own unit."""

    def given(value: int) -> Decimal | int:
        return usd(value) if unit == "usd" else value

    return Status(
        budget=budget,
        counter=counter,
        unit=unit,
        limit=None if level.limit is None else given(level.limit),
        spent=given(level.spent),
        uncertain=given(uncertain),
        reserved=given(level.reserved),
        remaining=None if level.limit is None else given(max(level.limit - level.spent, 0)),
    )


class BudgetBlock:
    """A `with tollspan.budget(...)` block, counted in this process; calls inside count in the blocks around, too."""

    def __init__(self, budgets: tuple[Budget, ...]) -> None:
        """Prepare a block; nothing is limited before it is entered."""
        number = next(_numbers)
        self._budgets = tuple((budget, f"#{number}.{index}/{budget.name}") for index, budget in enumerate(budgets))
        self._guard: Guard | None = None
        self._block: Block | None = None
        self._token: Token[Block | None] | None = None
        self._children: list[BudgetBlock] = []

    @property
    def name(self) -> str:
        """Return the name of the block's budget."""
        return ", ".join(budget.name for budget, _ in self._budgets)

    def __enter__(self) -> Self:
        self._guard = _make()
        outer = blocks.get()
        if outer is not None and isinstance(outer.owner, BudgetBlock):
            outer.owner._children.append(self)  # noqa: SLF001 - of this class
        self._block = Block(self._budgets, outer, self)
        self._token = blocks.set(self._block)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None and self._block is not None:
            try:
                blocks.reset(self._token)
            except ValueError:  # left in another context than entered in
                blocks.set(self._block.outer)
            self._token = None

    def __del__(self) -> None:
        if self.__dict__.get("_guard") is not None and self._guard is not None:
            self._guard.local.forget([key for _, key in self._budgets])

    def status(self) -> list[Status]:
        """Return how full the block's budgets are; a call that ends after the block still counts."""
        guard = self._guard
        lines = [CounterUpdate(key, budget.name, 0, budget.limit.amount, SOFT) for budget, key in self._budgets]
        if guard is None:
            levels = tuple(CounterState(0, 0, line.limit) for line in lines)
        else:
            levels = guard.local.levels(lines, guard.clock())
        return [
            status_of(budget.name, key, budget.limit.unit, level)
            for (budget, key), level in zip(self._budgets, levels, strict=True)
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
        """Return the block and those inside it as an indented list, with what was spent in each."""
        return "\n".join(self._lines(0))

    def _lines(self, depth: int) -> list[str]:
        lines = []
        for status in self.status():
            unit = status.unit
            spent, limit = _shown(status.spent, unit), _shown(status.limit, unit, limit=True)
            lines.append(f"{'  ' * depth}{status.budget}: {spent} of {limit} spent")
        return lines + [line for child in self._children for line in child._lines(depth + 1)]  # noqa: SLF001


def _shown(value: Decimal | int | None, unit: str, *, limit: bool = False) -> str:
    if value is None:
        return "no limit"
    return amount(int(value * 10**18) if unit == "usd" else int(value), unit, limit=limit)


class BudgetApi(Protocol):
    """The type of `tollspan.budget`: a package that can be called."""

    @property
    def status(self) -> Callable[[], list[Status]]:
        """Return every counter of the budgets in force."""
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
        """Call back with each warning."""
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


_NOT_IN_A_BLOCK: Final = ("period", "time_zone", "match", "per", "unset")


def block(limit: str, **options: Any) -> BudgetBlock:
    """Limit what the calls inside a `with` block may spend.

    Args:
        limit: such as "2 USD", "100 calls" or "50000 tokens"; several with commas between.
        options: fields of a budget (`on_exceed`, `estimate`, `warn_at`, `name`...), as in a [[budget]] table.

    Raises:
        SettingsError: the limit or an option is not usable.
        TollspanError: on entering the block, where `tollspan.instrument()` was not called: nothing would be limited.
    """
    where = "tollspan.budget()"
    for key in _NOT_IN_A_BLOCK:
        if key in options:
            raise SettingsError(
                f"{where}: a block has no {key!r}: it lasts from its start to its end, for all calls inside"
            )
    parts = [part.strip() for part in limit.split(",")]
    tables = [{"name": str(part), **options, "limit": part, "period": "total"} for part in parts]
    return BudgetBlock(tuple(budget for table in tables for budget in parse_tables([table], where)))


def status() -> list[Status]:
    """Return every counter of the budgets in force, those of the blocks around included."""
    guard = _guard()
    if guard is None:
        return []
    guard.settler.flush(CATCH_UP)
    limits = guard.store.limits()
    known = {budget.name: budget for budget in guard.budgets}
    found = []
    for counter in guard.store.counters(guard.clock()):
        budget = known.get(counter.name)
        if budget is not None and not is_block(counter.key):
            level = CounterState(counter.spent, counter.reserved, limits.get(budget.name, budget.limit.amount))
            one = status_of(budget.name, counter.key, budget.limit.unit, level, counter.uncertain)
            found.append(replace(one, as_of=counter.as_of))
    inner = blocks.get()
    while inner is not None:
        if isinstance(inner.owner, BudgetBlock):
            found += inner.owner.status()
        inner = inner.outer
    return found


def remaining(name: str | None = None) -> Decimal | None:
    """Return the dollars that are left for a call made here and now, or of the budget `name`; None = no limit.

    Without a name a budget counts if it limits every call made here, whatever its model or provider.
    """
    levels = _levels(lambda rule: rule.unit == "usd", name)
    return min((usd(level.unspent) for level in levels if level.unspent is not None), default=None)


def exhausted(name: str | None = None) -> bool:
    """Return whether nothing is left of a budget for a call made here and now; true at exactly the limit."""
    return any(level.unspent == 0 for level in _levels(lambda _: True, name))


def _levels(wanted: Callable[[CompiledBudget], bool], name: str | None) -> list[CounterState]:
    guard = _guard()
    if guard is None:
        return []
    values = current_attribution()
    traits = {**guard.defaults, **values}
    return guard.levels_here(
        values, lambda rule: wanted(rule) and (rule.budget.fits(traits) if name is None else rule.name == name)
    )


def on_warning(callback: Callable[[BudgetWarning], None]) -> None:
    """Call `callback` with each warning, in the thread whose call passed the share."""
    _make().thresholds.callbacks.append(callback)


def line() -> str:
    """Return the status line: `[Cost: $0.12 (24%) OK]`, `[Cost: $0.12 | 14 calls]`, or `[Cost: —]` before any call.

    It is about the session in force here, or where there is none, about this process; the fullest budget is shown that
    a call made here may count towards.
    """
    spend, calls = (0, 0) if (wiring := connected()) is None else wiring.spend()
    guard = _guard()
    levels = [] if guard is None else [level for level in _shown_in_line(guard) if level.limit is not None]
    if not calls and not any(level.spent for level in levels):
        return "[Cost: —]"
    if not levels:
        return f"[Cost: ${usd(spend):.2f} | {many(calls, 'call')}]"
    fullest = max(levels, key=_percent)
    return f"[Cost: ${usd(fullest.spent):.2f} ({int(_percent(fullest))}%) {_word(fullest)}]"


def _shown_in_line(guard: Guard) -> list[CounterState]:
    """Return how full the budgets in dollars are: as they stand, or as last seen for a value that is unknown here."""
    values = current_attribution()
    traits = {**guard.defaults, **values}
    guard.refresh()
    seen = [(budget, level) for budget, level in list(guard.levels.values()) if budget.limit.unit == "usd"]

    def wanted(rule: CompiledBudget) -> bool:
        return rule.unit == "usd" and _is_told(rule.budget, traits) and _may_fit(rule.budget, traits)

    try:
        return guard.levels_here(values, wanted) + [level for budget, level in seen if not _is_told(budget, traits)]
    except StoreError:
        return [level for _, level in seen]


def _is_told(budget: Budget, traits: Mapping[str, str]) -> bool:
    return all(key in traits for key in budget.per)


def _may_fit(budget: Budget, traits: Mapping[str, str]) -> bool:
    """Return whether a call made here may count towards a budget: it may ask any model of any provider."""
    return budget.fits({**{key: patterns[0] for key, patterns in budget.match.items() if key in _CALLS}, **traits})


_CALLS: Final = frozenset({"provider", "model", "operation", "host"})
"""What a call says for itself, and no attribution says beforehand."""


def _percent(level: CounterState) -> Decimal:
    """Return how much of a limit is spent; of a limit of nothing, all."""
    return usd(level.spent) * 100 / usd(level.limit) if level.limit else Decimal(100)


_WORDS: Final = ((90, "HIGH"), (50, "WARN"), (0, "OK"))


def _word(level: CounterState) -> str:
    return next(word for percent, word in _WORDS if _percent(level) >= percent)
