"""What budgets cost a call: checking before it and settling after it, by store and by how many budgets there are.

    python -m benchmarks.run --only budgets [--quick]

Redis is measured where its server is installed. The bound of a call is worked out from a real request, as in traffic.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measuring.reports import Report, amount, ratio, table
from benchmarks.variants.answers import INPUT, OPENAI_MODEL, OUTPUT
from benchmarks.variants.workloads import call_request
from tollspan.budget.bounds import Bounds, RequestShape
from tollspan.budget.guard import Guard
from tollspan.budget.policy.budget import parse_tables
from tollspan.budget.request import BudgetRequest, Grant
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.stores.redis import RedisStore
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.model.records import Call, Cost, Facts, Usage
from tollspan.prices import bundled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.measuring.reports import Options
    from tollspan.budget.stores import Store

USERS: Final = 1000
ONE: Final = "one budget"
MANY: Final = f"{USERS:,} budgets, one of each user, by session"
_ANY: Final = {"limit": "1000000 USD", "period": "day"}

TABLES: Final[Mapping[str, list[dict[str, Any]]]] = {
    ONE: [{"name": "all", **_ANY}],
    "ten budgets, all match": [{"name": f"all {number}", **_ANY} for number in range(10)],
    f"one budget per user, {USERS:,} users": [{"name": "each", **_ANY, "per": ["user"]}],
    MANY: [
        {"name": f"of {user}", **_ANY, "match": {"user": f"user-{user}"}, "per": ["session"]} for user in range(USERS)
    ],
    f"{USERS:,} budgets, none matches": [
        {"name": f"of {user}", **_ANY, "match": {"user": f"nobody-{user}"}} for user in range(USERS)
    ],
}

CALLS: Final = {"memory": 20_000, "sqlite": 2_000, "redis": 2_000}
BLOCK: Final = 200
FEW: Final = 20


@dataclass
class Taken:
    """Nanoseconds of each check and of each settling, and the processor's time for all of them."""

    check: list[int]
    settle: list[int]
    cpu: float = 0.0


def measure(options: Options) -> Report:
    """Measure and write it down."""
    rows: list[list[str]] = []
    figures: dict[str, str] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollspan-bench-")))
        address = running_redis(stack, folder)
        stores: dict[str, Callable[[int], Store]] = {
            "memory": lambda _: MemoryStore(),
            "sqlite": lambda number: SqliteStore(folder / f"budgets-{number}.db"),
        }
        if address is not None:
            stores["redis"] = lambda number: RedisStore(f"{address}?namespace=bench{number}&deadline=30")
        for store, make in stores.items():
            options.tell(f"budgets: {store}")
            taken = _compare(make, FEW) if options.quick else _compare(make, CALLS[store], warm=USERS)
            rows += [_row(store, name, found, taken[ONE]) for name, found in taken.items()]
            figures[f"{store}, check"] = amount(median(taken[ONE].check) / 1e3)
            figures[f"{store}, settle"] = amount(median(taken[ONE].settle) / 1e3)
            figures[f"{store}, check of {USERS}"] = amount(median(taken[MANY].check) / 1e3)
    high = "99th percentile"
    header = ["store: budgets", "check", high, "settle", high, "both, CPU", "check, of one budget's"]
    text = (
        "Microseconds. *Check* reserves what a call may cost before it is sent, *settle* puts what it did cost in its "
        "place: medians of wall time on the call's thread. *CPU* is that of all threads of this process, what is "
        "settled behind included, and the server's not. Calls are of a thousand users in turn, each in a session.\n\n"
        f"{table(header, rows)}"
    )
    if address is None:
        text += "\nRedis was not measured: there is no `redis-server` here.\n"
    return Report("What budgets cost a call", text, figures=figures)


def _row(store: str, name: str, taken: Taken, one: Taken) -> list[str]:
    def high(times: list[int]) -> float:
        return sorted(times)[len(times) * 99 // 100] / 1e3

    cells = [median(taken.check) / 1e3, high(taken.check), median(taken.settle) / 1e3, high(taken.settle)]
    cells.append(taken.cpu / len(taken.check) * 1e6)
    return [f"{store}: {name}", *map(amount, cells), ratio(median(taken.check), median(one.check))]


def _compare(make: Callable[[int], Store], calls: int, warm: int = FEW) -> dict[str, Taken]:
    """Measure a store with each set of budgets, in turn, block by block."""
    guards = {
        name: Guard(parse_tables(tables), make(number), Bounds(bundled))
        for number, (name, tables) in enumerate(TABLES.items())
    }
    taken = {name: Taken([], []) for name in guards}
    ids = count()
    for guard in guards.values():  # every user's counter is there, and every answer remembered
        _block(guard, ids, warm, Taken([], []))
    gc.collect()
    for _ in range(max(1, calls // BLOCK)):
        for name, guard in guards.items():
            _block(guard, ids, min(BLOCK, calls), taken[name])
    for guard in guards.values():
        guard.close(60)
    return taken


def _block(guard: Guard, ids: Iterator[int], calls: int, taken: Taken) -> None:
    made = [_asked(next(ids)) for _ in range(calls)]
    ended = [_ended(asked.attempt, asked.traits) for asked in made]
    cpu, clock = time.process_time(), time.perf_counter_ns
    for asked, call in zip(made, ended, strict=True):
        began = clock()
        verdict = guard.check(asked)
        checked = clock()
        guard.settle(call)
        taken.settle.append(clock() - checked)
        taken.check.append(checked - began)
        if verdict is not None and not isinstance(verdict, Grant):
            raise RuntimeError(f"the budget refused a call of the benchmark: {verdict}")
    guard.settler.flush(60)
    taken.cpu += time.process_time() - cpu


_BODY, _CONTENT = call_request()


def _asked(number: int) -> BudgetRequest:
    traits = {
        "provider": "openai",
        "model": OPENAI_MODEL,
        "operation": "chat",
        "host": "api.openai.com",
        "user": f"user-{number % USERS}",
        "session": f"session-{number % USERS}",
    }
    facts = Facts("chat")
    facts.request_model, facts.max_output = OPENAI_MODEL, _BODY["max_tokens"]
    shape = RequestShape(facts=facts, prices=("openai",), body=_BODY, content=_CONTENT, size=len(_CONTENT))
    return BudgetRequest(attempt=f"{number:032x}", traits=traits, shape=shape)


def _ended(attempt: str, traits: Mapping[str, str]) -> Call:
    return Call(
        id=attempt,
        operation_id=attempt,
        provider="openai",
        operation="chat",
        started_at=0,
        duration=1.0,
        http_status=200,
        usage=Usage(input=INPUT, output=OUTPUT),
        cost=Cost(amount=3 * 10**14, quality="measured"),
        attribution={name: traits[name] for name in ("user", "session")},
    )


def running_redis(stack: ExitStack, folder: Path) -> str | None:
    """Start a Redis for as long as the stack lives, and give its address; None where its server is not installed."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    if shutil.which("redis-server", path=path) is None:
        return None
    from tests.stack import servers

    running = servers.redis(folder)
    running.server.start()
    stack.callback(running.server.stop)
    running.server.wait_ready()
    return running.url
