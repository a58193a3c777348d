"""The records that go into a guard and come out of it: a budget request and the decision on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Union

from tollspan.budget.denials.denial import Denial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tollspan.budget.bounds import Bound, RequestShape
    from tollspan.budget.habits import Basis
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.stores import CounterState, CounterUpdate


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRequest:
    """A call that is about to be sent.

    Attributes:
        attempt: the id of the attempt.
        traits: what budgets match: provider, model, operation, host and attribution.
        shape: what the bounds of its cost are computed from.
        stream: whether the response is a stream that can be cut.
        resent: whether an SDK sends the same request again.
        can_limit: returns whether the request can be sent with a lower limit of output tokens.
        timeout: the seconds that its client waits for a response, beyond which it does not wait for other calls; None =
            no limit.
        under_way: returns the attempts that were granted in the same task or thread, and may still be under way; None =
            the guard remembers them.
        batch: whether the request creates a batch.
    """

    attempt: str
    traits: Mapping[str, str]
    shape: RequestShape
    stream: bool = False
    resent: bool = False
    can_limit: Callable[[], bool] = lambda: False
    timeout: float | None = None
    under_way: Callable[[], Iterable[str]] | None = None
    batch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Downgrade:
    """A decision that the call has to request `model` instead of its own."""

    budget: str
    model: str


class Ceiling(NamedTuple):
    """The amount of a budget that a stream may use, in the budget's unit, before it is cut."""

    budget: Budget
    amount: int


class Fit(NamedTuple):
    """The limit of output tokens of each text, with which a call fits into what a budget has left."""

    output: int
    budget: str


Held = tuple["Budget", "CounterUpdate"]
"""A budget, and what a call reserves in it."""


class Shortfall(NamedTuple):
    """The budget that has less left than a call has to reserve, and the state of its counter.

    `wait` is how long the call may wait for calls under way, in seconds; 0 = not at all, or it would not help. `own` is
    what calls hold that are under way in the call's own context.
    """

    budget: Budget
    update: CounterUpdate
    state: CounterState
    wait: float = 0.0
    own: int = 0


class Obstruction(NamedTuple):
    """A decision that the call has to wait, because calls under way, or waiting before it, stand in its way.

    Attributes:
        budget: the name of the budget.
        key: the counter.
        wait: the seconds to wait at most, above 0.
    """

    budget: str
    key: str
    wait: float


class Waited(NamedTuple):
    """The seconds that a call has waited for calls under way, and the budget that it waited for last."""

    seconds: float
    budget: str


BudgetDecision = Union["Grant", Denial, Downgrade, None]
"""The result of a check; None = no budget applies to the call."""


class Grant:
    """A decision that the call may be sent, with what is reserved for it.

    Attributes:
        held: the reservations; the first `local` of them are in this process's memory, the others in the store.
        local: see `held`.
        size: the size of the request in bytes; None if it is not known.
        bound: the upper bound of the call; None if no budget needed it.
        ceilings: the amounts at which the response is cut.
        fit: the limit of output tokens that the request has to be sent with, and the budget that needs it; None = the
            request stays as it is.
        basis: what the call was expected from, for its record to be compared; None if no budget needed that.
        waited: how long the call has waited before; None = it has not.
        lease: the seconds that the reservations last; None = as long as those of other calls.
    """

    __slots__ = ("basis", "bound", "ceilings", "fit", "held", "lease", "local", "size", "waited")

    def __init__(self, size: int | None, lease: float | None = None) -> None:
        self.held: list[Held] = []
        self.local = 0
        self.size = size
        self.bound: Bound | None = None
        self.lease = lease
        self.ceilings: list[Ceiling] = []
        self.fit: Fit | None = None
        self.basis: Basis | None = None
        self.waited: Waited | None = None
