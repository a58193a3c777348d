"""How far a budget that is not hard is passed: many calls under way, whose costs spread; as a program, a table.

The guard and its expectations are real; calls and prices are made up, and calls end in any order.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.prices.price_rows import TABLE, cost
from tollspan.budget.bounds import Bounds, RequestShape
from tollspan.budget.guard import Guard
from tollspan.budget.policy.budget import parse_tables
from tollspan.budget.request import BudgetRequest, Grant
from tollspan.budget.stores.memory import MemoryStore
from tollspan.model.records import Call, Facts, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NOW: Final = 1_790_000_000.0
MODEL: Final = "gpt-round-mini"
MOST: Final = 8_000
"""Output tokens that each request allows."""
INPUT: Final = 100
SIZE: Final = 400
LIMIT: Final = "0.04 USD"
"""About 200 calls of 500 output tokens."""
SEEDS: Final = 5
CONCURRENCY: Final = (1, 4, 16, 64)

SPREADS: Final[Mapping[str, Callable[[random.Random, int], int]]] = {
    "all cost the same": lambda _chance, _number: 500,
    "up to 3 times as much as the least": lambda chance, _: chance.randint(250, 750),
    "one in twenty costs 40 times as much": lambda chance, _: MOST if chance.random() < 0.05 else 200,
    "log-normal, sigma 1": lambda chance, _: min(round(chance.lognormvariate(5.7, 1)), MOST),
    "all at once cost as much as they may": lambda _, number: 200 if number < NUMBER_OF_CHEAP else MOST,
}
NUMBER_OF_CHEAP: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came of one budget, in atto-dollars.

    `over` is what was spent past the limit. `excess` is what the calls under way, once the last one was let through,
    cost beyond what they had reserved; `bound` the upper bound of one call; `last` the cost of the last one that ended.
    """

    limit: int
    over: int
    excess: int
    bound: int
    last: int
    calls: int


def measure(concurrency: int, spread: str, seed: int) -> Measured:
    """Spend one budget by calls of which so many are under way at once, until none is let through any more."""
    chance = random.Random(seed)  # noqa: S311 - costs, no secrets
    (budget,) = parse_tables([{"limit": LIMIT, "period": "total"}])
    guard = Guard([budget], MemoryStore(), Bounds(lambda: TABLE), clock=lambda: NOW, run="r")
    under_way: dict[str, tuple[int, Call]] = {}
    last: dict[str, tuple[int, Call]] = {}
    bound = Bounds(lambda: TABLE).strict(_asked("").shape, NOW).cost or 0
    spent = ended = number = 0
    while True:
        verdict = guard.check(_asked(str(number))) if len(under_way) < concurrency else None
        if isinstance(verdict, Grant):
            reserved = guard.store.counters(NOW)[0].reserved - sum(amount for amount, _ in under_way.values())
            under_way[str(number)] = reserved, _ended(str(number), SPREADS[spread](chance, number))
            last = dict(under_way)
            number += 1
            continue
        if not under_way:
            break
        _, call = under_way.pop(chance.choice(list(under_way)))
        ended = call.cost.amount or 0
        spent += ended
        guard.settle(call)
    excess = sum(max((call.cost.amount or 0) - reserved, 0) for reserved, call in last.values())
    limit = budget.limit.amount
    over = max(spent - limit, 0)
    return Measured(limit=limit, over=over, excess=excess, bound=bound, last=ended, calls=number)


def _asked(attempt: str) -> BudgetRequest:
    facts = Facts()
    facts.request_model, facts.max_output = MODEL, MOST
    shape = RequestShape(facts=facts, prices=("openai",), body={}, content=b"x" * SIZE, size=SIZE)
    return BudgetRequest(
        attempt=attempt, traits={"provider": "openai", "model": MODEL, "operation": "chat"}, shape=shape
    )


def _ended(attempt: str, output: int) -> Call:
    usage = Usage(input=INPUT, output=output)
    values: dict[str, Any] = {"http_status": 200, "request_model": MODEL, "usage": usage}
    return Call(
        id=attempt,
        operation_id=attempt,
        provider="openai",
        operation="chat",
        started_at=0,
        duration=1.0,
        cost=cost(MODEL, usage=usage),
        **values,
    )


def worst(concurrency: int, spread: str) -> Measured:
    """Return the measurement that was overshot by most."""
    return max((measure(concurrency, spread, seed) for seed in range(SEEDS)), key=lambda measured: measured.over)


def rows() -> list[str]:
    """Return the lines of the table of docs/explanation/budgets-guarantees.md: overshoot as a share of the limit."""
    head = ["| costs | " + " | ".join(f"{number} at once" for number in CONCURRENCY) + " |"]
    line = ["|---|" + "---:|" * len(CONCURRENCY)]
    return head + line + [f"| {spread} | {' | '.join(_cell(spread, n) for n in CONCURRENCY)} |" for spread in SPREADS]


def _cell(spread: str, concurrency: int) -> str:
    measured = worst(concurrency, spread)
    return f"{100 * measured.over / measured.limit:.1f}%"


if __name__ == "__main__":
    print("\n".join(rows()))  # noqa: T201 - for the documentation
