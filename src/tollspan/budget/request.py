"""What a guard is asked, and what it answers: a budget request and its grant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Union

from tollspan.budget.denials.denial import Denial

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.budget.bounds import RequestShape
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.stores import CounterUpdate


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRequest:
    """A call that asks to be sent. `traits` are what budgets match: provider, model, operation, host, attribution."""

    attempt: str
    traits: Mapping[str, str]
    shape: RequestShape
    stream: bool = False
    resent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Downgrade:
    """The budget wants the call to ask for `model` in place of the one it names."""

    budget: str
    model: str


class Ceiling(NamedTuple):
    """How much of a budget a stream may use, in the budget's unit; then it is cut."""

    budget: Budget
    amount: int


Held = tuple["Budget", "CounterUpdate"]
"""A budget, and what was reserved in it."""


Answer = Union["Grant", Denial, Downgrade, None]
"""What a check gives."""


class Grant:
    """A call that may be sent, and what was reserved for it: the first `local` of `held` in this process's memory."""

    __slots__ = ("ceilings", "held", "local", "size")

    def __init__(self, size: int | None) -> None:
        self.held: list[Held] = []
        self.local = 0
        self.size = size
        self.ceilings: list[Ceiling] = []
