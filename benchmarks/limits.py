"""How far the limits of budgets are used, and by how much they are passed: by model, limit, mode and calls at once.

    python -m benchmarks.run --only limits [--quick]

The guard, its stores and the prices are real. Provider and time are made up: a call has 2,000 tokens of input, writes
200 to 400 tokens, or as many as it is allowed, and takes one to three seconds, which pass at once. The provider adds up
what it bills. A call that calls under way keep from being sent waits for them, for 30 seconds at most, in the order of
arrival, as `wait` says.
"""

from __future__ import annotations

import heapq
import random
import tempfile
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.budgets import running_redis
from benchmarks.measuring.reports import Report, table
from tollspan.budget.bounds import Bounds, RequestShape
from tollspan.budget.guard import Guard
from tollspan.budget.policy.budget import parse_tables
from tollspan.budget.request import BudgetRequest, Grant
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.stores.redis import RedisStore
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.model.records import Billable, Call, Facts, Usage
from tollspan.prices import bundled, price

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.measuring.reports import Options
    from tollspan.budget.stores import Store

BEGIN: Final = 1_790_000_000.0
INPUT: Final = 2000
OUTPUT: Final = (200, 400)
SECONDS: Final = (1.0, 3.0)
WAIT: Final = 30.0
PATIENCE: Final = 5
"""Refusals in a row after which one that makes calls gives up; it tries again after a second."""


class Model(NamedTuple):
    """A model, and the limit of output tokens that requests have; None = they have none."""

    name: str
    provider: str
    limit: int | None


MODELS: Final = (
    Model("gpt-5.5", "openai", None),
    Model("gpt-4o-mini", "openai", None),
    Model("gemini-2.5-pro", "gemini", None),
    Model("claude-opus-4-8", "anthropic", 32_000),
    Model("claude-sonnet-5", "anthropic", 64_000),
)
LIMITS: Final = ("1 USD", "5 USD")
AT_ONCE: Final = (1, 8, 64)
MODES: Final[Mapping[str, dict[str, Any]]] = {
    "the default": {},
    "`hard`": {"hard": True},
    "`hard` and `fit`": {"hard": True, "fit": True},
}
CHEAPEST: Final = "gpt-4o-mini"
"""It makes thousands of calls for a dollar: its limits are a tenth of the others'."""


@dataclass(slots=True)
class Spent:
    """What came of a limit, as shares of it: spent at the first refusal and at the end, and billed beyond it."""

    first: float | None
    end: float
    over: float


def measure(options: Options) -> Report:
    """Measure and write it down."""
    models, at_once = (MODELS[:1], (1, 8)) if options.quick else (MODELS, AT_ONCE)
    text = (
        "What is spent at the first refusal, in brackets at the end, and *in italics* how far the limit is passed: by "
        "what the provider has billed, as shares of the limit. Calls have 2,000 tokens of input and write 200 to 400.\n"
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollspan-bench-")))
        number = count()
        stores: dict[str, Callable[[], Store]] = {
            "memory": MemoryStore,
            "sqlite": lambda: SqliteStore(folder / f"limits-{next(number)}.db"),
        }
        address = running_redis(stack, folder)
        if address is not None:
            stores["redis"] = lambda: RedisStore(f"{address}?namespace=limits{next(number)}&deadline=30")
        for store, make in stores.items():
            options.tell(f"limits: {store}")
            text += f"\n### {store}\n\n{_table(make, models, at_once)}"
    return Report("How far limits are used", text)


def _table(make: Callable[[], Store], models: tuple[Model, ...], at_once: tuple[int, ...]) -> str:
    header = ["model: limit"] + [f"{mode}, {number} at once" for mode in MODES for number in at_once]
    rows = []
    for model in models:
        for limit in LIMITS:
            scaled = f"{float(limit.split()[0]) / 10:.2f} USD" if model.name == CHEAPEST else limit
            cells = [
                _cell(spend(make(), model, scaled, number, **mode)) for mode in MODES.values() for number in at_once
            ]
            rows.append([f"{model.name} ({model.limit or 'none'}): {scaled}", *cells])
    return table(header, rows)


def _cell(spent: Spent) -> str:
    first = "none" if spent.first is None else f"{100 * spent.first:.1f}%"
    over = f" *{100 * spent.over:.2f}%*" if spent.over else ""
    return f"{first} ({100 * spent.end:.1f}%){over}"


def spend(store: Store, model: Model, limit: str, at_once: int, **mode: Any) -> Spent:
    """Spend a limit by so many callers, until all of them have given up."""
    spending = _Spending(store, model, limit, mode)
    for caller in range(at_once):
        spending.later(0.0, spending.ask, caller)
    spending.run()
    store.close()
    return spending.result()


class _Spending:
    """The callers of one limit, the provider that bills them, and the time."""

    def __init__(self, store: Store, model: Model, limit: str, mode: dict[str, Any]) -> None:
        (budget,) = parse_tables([{"limit": limit, "period": "total", **mode}])
        self.now = BEGIN
        self._guard = Guard([budget], store, Bounds(bundled), clock=lambda: self.now, run="r")
        self._limit = budget.limit.amount
        self._model = model
        self._chance = random.Random(1)  # noqa: S311 - lengths and times, no secrets
        self._events: list[tuple[float, int, Callable[[int], None], int]] = []
        self._numbers = count()
        self._waiting: deque[tuple[int, float]] = deque()
        self._under_way: dict[int, tuple[str, int]] = {}
        self._refused: dict[int, int] = {}
        self._billed = 0
        self._first: int | None = None

    def later(self, seconds: float, act: Callable[[int], None], caller: int) -> None:
        """Have a caller do something."""
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), act, caller))

    def run(self) -> None:
        """Let time pass until nobody does anything any more."""
        while self._events:
            self.now, _, act, caller = heapq.heappop(self._events)
            act(caller)

    def result(self) -> Spent:
        """Return what came of it."""
        limit = self._limit
        first = None if self._first is None else self._first / limit
        return Spent(first, self._billed / limit, max(self._billed - limit, 0) / limit)

    def ask(self, caller: int) -> None:
        """Make a call, or wait for those that wait already."""
        self._waiting.append((caller, self.now))
        self.later(WAIT, lambda _: self._try_waiting(), caller)
        self._try_waiting()

    def _try_waiting(self) -> None:
        while self._waiting:
            caller, since = self._waiting[0]
            if not self._send(caller, is_late=self.now - since >= WAIT):
                return
            self._waiting.popleft()

    def _send(self, caller: int, *, is_late: bool) -> bool:
        """Send a call, or refuse it; return False if it waits on."""
        attempt = f"{next(self._numbers):032x}"
        verdict = self._guard.check(self._request(attempt))
        if isinstance(verdict, Grant):
            allowed = self._model.limit if verdict.fit is None else verdict.fit.output
            output = self._chance.randint(*OUTPUT)
            self._under_way[caller] = attempt, output if allowed is None else min(output, allowed)
            self._refused[caller] = 0
            self.later(self._chance.uniform(*SECONDS), self._end, caller)
            return True
        if self._under_way and self._billed < self._limit and not is_late:
            return False
        if self._first is None:
            self._first = self._billed
        self._refused[caller] = self._refused.get(caller, 0) + 1
        if self._refused[caller] < PATIENCE:
            self.later(1.0, self.ask, caller)
        return True

    def _end(self, caller: int) -> None:
        attempt, output = self._under_way.pop(caller)
        usage = Usage(input=INPUT, output=output)
        name, provider, _ = self._model
        billable = Billable(usage=usage, price_providers=(provider,), model=name, request_model=name, operation="chat")
        cost = price(billable, bundled(), datetime.fromtimestamp(self.now, UTC))
        self._billed += cost.amount or 0
        self._guard.settle(
            Call(
                id=attempt,
                operation_id=attempt,
                provider=provider,
                operation="chat",
                started_at=0,
                duration=1.0,
                http_status=200,
                request_model=name,
                usage=usage,
                cost=cost,
            )
        )
        self._guard.settler.flush(60)
        self._try_waiting()
        self.ask(caller)

    def _request(self, attempt: str) -> BudgetRequest:
        facts = Facts("chat")
        facts.request_model, facts.max_output = self._model.name, self._model.limit
        shape = RequestShape(
            facts=facts, prices=(self._model.provider,), body=_BODY, content=_CONTENT, size=len(_CONTENT)
        )
        traits = {"provider": self._model.provider, "model": self._model.name, "operation": "chat"}
        return BudgetRequest(attempt=attempt, traits=traits, shape=shape, can_limit=lambda: True)


_BODY: Final[dict[str, Any]] = {"messages": [{"role": "user", "content": "word " * INPUT}]}
_CONTENT: Final = str(_BODY).encode()
