"""Calls wait where only calls under way hold the rest of a budget: in order, beside the event loop, for a while."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

import tollspan
from tests.budget.test_guard import CENT, DOLLAR, Clock, budget_request, clock, ended, guard_of
from tests.forked_children import child_finds, forks
from tollspan.budget import holders
from tollspan.budget.denials.denial import Denial
from tollspan.budget.guard import Guard, check_aside
from tollspan.budget.policy.budget import parse_tables
from tollspan.budget.policy.enforcement import USUAL
from tollspan.budget.policy.matching import Block, CompiledBudget, blocks
from tollspan.budget.request import BudgetRequest, Downgrade, Grant
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.model.errors import BudgetExceeded
from tollspan.runtime.event_loops import trio_here
from tollspan.setup.guards import new
from tollspan.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Metered
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.request import BudgetDecision

__all__ = ["clock"]  # a fixture

URL = "https://api.openai.com/v1/chat/completions"
BODY = {"model": "gpt-4o-mini", "max_tokens": 1000, "messages": [{"role": "user", "content": "hello"}]}
ANSWER = {
    "object": "chat.completion",
    "model": "gpt-4o-mini",
    "choices": [],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
}
ONE = "0.0009 USD"
"""A limit with enough left for one call like `BODY`, which may cost $0.0006 and costs nearly nothing."""
LONG = 20.0
"""Seconds that a test waits at most for what has to happen soon."""


def budgets(*tables: dict[str, Any]) -> tuple[Budget, ...]:
    """Return hard budgets, so that the test knows what a call reserves."""
    return parse_tables([{"period": "day", "hard": True, **table} for table in tables])


def elsewhere(guard: Guard, request: BudgetRequest) -> BudgetDecision:
    """Check a call in a context of its own, as that of another task or thread."""
    return contextvars.Context().run(guard.check, request)


def waiting(guard: Guard) -> int:
    """Return how many calls wait."""
    return sum(map(len, guard.waiting.queues.values()))


def until(true: Callable[[], object]) -> None:
    """Wait until something is true."""
    limit = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.002)


async def until_waiting(guard: Guard, number: int) -> None:
    """Let other tasks run until so many calls wait."""
    lib: Any = trio if trio_here() is not None else asyncio
    while waiting(guard) < number:
        await lib.sleep(0)


class Calls:
    """Calls that are checked in threads of their own, and how these checks ended, in order."""

    def __init__(self, guard: Guard) -> None:
        """Check with `guard`."""
        self.guard = guard
        self.decisions: dict[str, BudgetDecision] = {}
        self.threads: list[threading.Thread] = []

    def start(self, *requests: BudgetRequest) -> None:
        """Start calls, each of them when the one before it waits."""
        for request in requests:
            before = waiting(self.guard)
            thread = threading.Thread(target=self._check, args=(request,), daemon=True)
            self.threads.append(thread)
            thread.start()
            until(partial(self._waits, request.attempt, before))

    def _waits(self, attempt: str, before: int) -> bool:
        return attempt in self.decisions or waiting(self.guard) > before

    def _check(self, request: BudgetRequest) -> None:
        self.decisions[request.attempt] = self.guard.check(request)

    def join(self) -> dict[str, BudgetDecision]:
        """Wait for all of them."""
        for thread in self.threads:
            thread.join(LONG)
            assert not thread.is_alive()
        return self.decisions


@pytest.fixture(autouse=True)
def _nothing_under_way() -> None:
    """Forget the calls of earlier tests in this context: ids of attempts are unique, those of tests are not."""
    holders._here.set(())


@pytest.fixture
def guard(clock: Clock) -> Guard:
    """Return a guard of one dollar a day."""
    return guard_of(budgets({"name": "b", "limit": "1 USD"}), clock)


@pytest.fixture
def calls(guard: Guard) -> Calls:
    """Return the calls of the guard."""
    return Calls(guard)


def test_waits_for_a_settlement(guard: Guard, calls: Calls) -> None:
    """A call that would fit without the one under way is sent as soon as that has been settled."""
    assert isinstance(elsewhere(guard, budget_request("1", DOLLAR)), Grant)
    calls.start(budget_request("2", 90 * CENT))
    assert waiting(guard) == 1
    guard.settle(ended("1", CENT))
    grant = calls.join()["2"]
    assert isinstance(grant, Grant)
    assert grant.waited is not None
    assert grant.waited.budget == "b"
    assert 0 < grant.waited.seconds < LONG
    assert not guard.waiting.queues


def test_what_is_spent_is_refused_at_once(guard: Guard, calls: Calls) -> None:
    """Nobody waits for a limit that is spent, or for what does not fit without the calls under way either."""
    guard.settle(ended("0", 50 * CENT))
    assert isinstance(elsewhere(guard, budget_request("1", 50 * CENT)), Grant)
    denial = elsewhere(guard, budget_request("2", 51 * CENT))
    assert isinstance(denial, Denial)
    assert denial.waited is None
    calls.start(budget_request("3", CENT))  # it waits: behind it, the same holds
    assert isinstance(elsewhere(guard, budget_request("4", 51 * CENT)), Denial)
    guard.settle(ended("1", 50 * CENT))
    denial = calls.join()["3"]
    assert isinstance(denial, Denial)
    assert denial.reason == "exhausted"


def test_first_come_first_served(guard: Guard, calls: Calls) -> None:
    """Who came first is sent first, whatever it costs; a small call does not go past a large one that waits."""
    for attempt in "ab":
        assert isinstance(elsewhere(guard, budget_request(attempt, 50 * CENT)), Grant)
    calls.start(budget_request("1", DOLLAR), budget_request("2", CENT), budget_request("3", CENT))
    guard.settle(ended("a", 0))
    time.sleep(0.05)
    assert calls.decisions == {}  # there would be enough for the small ones
    calls.start(budget_request("4", CENT))
    guard.settle(ended("b", 0))
    until(lambda: "1" in calls.decisions)
    assert list(calls.decisions) == ["1"]
    guard.settle(ended("1", 0))
    assert list(calls.join()) == ["1", "2", "3", "4"]
    assert all(isinstance(decision, Grant) for decision in calls.decisions.values())


def test_wait_has_an_end(clock: Clock) -> None:
    """After `wait` the call is refused, and the text says who holds the rest and how long it waited."""
    guard = guard_of(budgets({"name": "b", "limit": "1 USD", "wait": 0.2}), clock)
    for attempt in "12":
        assert isinstance(elsewhere(guard, budget_request(attempt, 40 * CENT)), Grant)
    denial = elsewhere(guard, budget_request("3", 30 * CENT))
    assert isinstance(denial, Denial)
    assert denial.message.startswith(
        'Budget "b" refused this call: $1.0000 of $1.00 is left, $0.8000 of it reserved for 2 calls under way '
        "(waited 0.2 s for them), and the call may cost up to $0.3000."
    )
    assert denial.reason == "insufficient"
    assert denial.waited == pytest.approx(0.2, abs=0.15)
    assert not guard.waiting.queues


@pytest.mark.parametrize(
    ("wait", "timeout", "seconds"), [(0, None, 0), ("1h", 0.1, 0.1), (0.1, 600.0, 0.1), (30, 0.0, 0)]
)
def test_smaller_of_wait_and_timeout(clock: Clock, wait: Any, timeout: float | None, seconds: float) -> None:
    """A call waits no longer than its client waits for a response, and with wait = 0 not at all."""
    guard = guard_of(budgets({"name": "b", "limit": "1 USD", "wait": wait}), clock)
    assert isinstance(elsewhere(guard, budget_request("1", DOLLAR)), Grant)
    request = budget_request("2")
    request = BudgetRequest(attempt="2", traits=request.traits, shape=request.shape, timeout=timeout)
    began = time.monotonic()
    assert isinstance(elsewhere(guard, request), Denial)
    assert seconds <= time.monotonic() - began < seconds + 1


def test_smallest_wait_of_the_budgets_in_the_way(clock: Clock) -> None:
    """Of several budgets in the way, the one with the shortest wait decides; the others do not matter."""
    tables: list[dict[str, Any]] = [
        {"name": "in the way", "limit": "1 USD", "wait": "1h"},
        {"name": "too", "limit": "1 USD", "wait": 0.1},
        {"name": "not", "limit": "9 USD", "wait": 0},
    ]
    guard = guard_of(budgets(*tables), clock)
    assert isinstance(elsewhere(guard, budget_request("1", DOLLAR)), Grant)
    denial = elsewhere(guard, budget_request("2"))
    assert isinstance(denial, Denial)
    assert denial.waited == pytest.approx(0.1, abs=0.15)


def test_usual_amounts_wait_too(clock: Clock) -> None:
    """A budget that is not hard waits for calls under way, and admits any call when there are none."""
    guard = guard_of(parse_tables([{"name": "b", "limit": "1 USD", "period": "day"}]), clock)
    calls = Calls(guard)
    for budget in guard._compiled.all:
        budget.mode = USUAL
    assert isinstance(elsewhere(guard, budget_request("1", 60 * CENT)), Grant)
    calls.start(budget_request("2", 3 * DOLLAR), budget_request("3", CENT))
    guard.settle(ended("1", 50 * CENT))
    until(lambda: "2" in calls.decisions)
    assert isinstance(calls.decisions["2"], Grant)
    guard.settle(ended("2", DOLLAR))
    denial = calls.join()["3"]
    assert isinstance(denial, Denial)
    assert denial.reason == "exhausted"


def test_nested_budgets_hold_nothing_while_they_wait(clock: Clock) -> None:
    """A call that waits for one budget holds nothing of the others, and does not keep others from using them."""
    tables: list[dict[str, Any]] = [
        {"name": "all", "limit": "1 USD"},
        {"name": "user", "limit": "0.50 USD", "per": ["user"]},
    ]
    guard = guard_of(budgets(*tables), clock)
    calls = Calls(guard)
    assert isinstance(elsewhere(guard, budget_request("1", 50 * CENT, user="alice")), Grant)
    calls.start(budget_request("2", 50 * CENT, user="alice"))
    assert sum(counter.reserved for counter in guard.store.counters(clock.now)) == DOLLAR  # 50 cents in two budgets
    assert isinstance(elsewhere(guard, budget_request("3", 50 * CENT, user="bob")), Grant)
    guard.settle(ended("1", 0))
    assert isinstance(calls.join()["2"], Grant)


def test_moves_to_the_next_obstacle(clock: Clock) -> None:
    """A call that several counters keep waiting gets them all at once, in its order at each of them."""
    tables: list[dict[str, Any]] = [
        {"name": "user", "limit": "0.50 USD", "per": ["user"]},
        {"name": "all", "limit": "0.60 USD"},
    ]
    guard = guard_of(budgets(*tables), clock)
    calls = Calls(guard)
    assert isinstance(elsewhere(guard, budget_request("a", 50 * CENT, user="alice")), Grant)
    calls.start(budget_request("1", 50 * CENT, user="alice"))  # at alice's counter
    calls.start(budget_request("2", 50 * CENT, user="bob"))  # at that of all
    calls.start(budget_request("3", 10 * CENT, user="bob"))
    guard.settle(ended("a", 0))
    until(lambda: calls.decisions)
    first = next(iter(calls.decisions))
    for _ in range(3):
        until(lambda: calls.decisions)
        for attempt in list(calls.decisions):
            guard.settle(ended(attempt, 0))
        time.sleep(0.02)
    assert all(isinstance(decision, Grant) for decision in calls.join().values())
    assert first in {"1", "2"}
    order = list(calls.decisions)
    assert order.index("2") < order.index("3")


def test_block_in_memory_and_store_in_a_file(clock: Clock, tmp_path: Path) -> None:
    """A block's budget and one in a file are reserved together or not at all, whichever of them is in the way."""
    store = SqliteStore(tmp_path / "b.sqlite")
    guard = guard_of(budgets({"name": "day", "limit": "1 USD"}), clock, store)
    calls = Calls(guard)
    (inner,) = budgets({"name": "block", "limit": "1 USD", "period": "total"})
    context = contextvars.Context()
    context.run(blocks.enter, Block(((CompiledBudget(inner), "block:block"),), object()))
    assert isinstance(elsewhere(guard, budget_request("1", DOLLAR)), Grant)
    decisions: list[BudgetDecision] = []
    thread = threading.Thread(target=lambda: decisions.append(context.run(guard.check, budget_request("2", DOLLAR))))
    thread.start()
    until(lambda: waiting(guard))
    until(lambda: sum(counter.reserved for counter in guard.local.counters(clock.now)) == 0)
    guard.settle(ended("1", 0))
    thread.join(LONG)
    assert isinstance(decisions[0], Grant)
    assert not calls.decisions
    guard.close()


def test_spent_store_behind_a_block_that_is_busy(clock: Clock, tmp_path: Path) -> None:
    """A call does not wait for a block's budget if the one in the store is spent."""
    guard = guard_of(budgets({"name": "day", "limit": "1 USD"}), clock, SqliteStore(tmp_path / "b.sqlite"))
    (inner,) = budgets({"name": "block", "limit": "1 USD", "period": "total"})
    contexts = [contextvars.Context(), contextvars.Context()]
    for context in contexts:
        context.run(blocks.enter, Block(((CompiledBudget(inner), "block:block"),), object()))
    assert isinstance(contexts[0].run(guard.check, budget_request("1", DOLLAR)), Grant)
    guard.settle(ended("other", DOLLAR))
    denial = contexts[1].run(guard.check, budget_request("2", CENT))
    assert isinstance(denial, Denial)
    assert (denial.budget, denial.reason, denial.waited) == ("day", "exhausted", None)
    guard.close()


def test_downgrade_comes_before_waiting(clock: Clock) -> None:
    """Where a smaller model is wanted, nobody waits for the large one; the smaller one waits."""
    table = {"name": "b", "limit": "1 USD", "on_exceed": "downgrade", "downgrade": {"gpt-5.5": "gpt-5-mini"}}
    guard = guard_of(budgets({**table, "downgrade_at": 1}), clock)
    assert isinstance(elsewhere(guard, budget_request("1", 99 * CENT)), Grant)
    decision = guard.check(budget_request("2", 10 * CENT))
    assert isinstance(decision, Downgrade)
    decisions: list[BudgetDecision] = []
    request = budget_request("2", 10 * CENT, model="gpt-5-mini")
    thread = threading.Thread(target=lambda: decisions.append(guard.check(request, downgraded=True)))
    thread.start()
    until(lambda: waiting(guard))
    assert isinstance(guard.check(budget_request("3")), Downgrade)  # nor behind one that waits
    guard.settle(ended("1", 0))
    thread.join(LONG)
    assert isinstance(decisions[0], Grant)


def test_warn_never_waits(clock: Clock) -> None:
    """A budget that only warns lets everything pass at once."""
    guard = guard_of(parse_tables([{"name": "b", "limit": "1 USD", "period": "day", "on_exceed": "warn"}]), clock)
    for attempt in "123":
        grant = elsewhere(guard, budget_request(attempt, DOLLAR))
        assert isinstance(grant, Grant)
        assert grant.waited is None


def test_own_stream_is_not_waited_for(guard: Guard) -> None:
    """A call does not wait for one that is under way in its own task: it could not end. For others it waits."""
    assert isinstance(guard.check(budget_request("mine", 60 * CENT)), Grant)
    began = time.monotonic()
    denial = guard.check(budget_request("2", 60 * CENT))
    assert time.monotonic() - began < 1
    assert isinstance(denial, Denial)
    assert denial.waited is None
    assert "did not wait: $0.6000 is held by calls that are still open in its own task." in denial.message
    assert isinstance(elsewhere(guard, budget_request("other", 40 * CENT)), Grant)
    timer = threading.Timer(0.05, guard.settle, [ended("other", 0)])
    timer.start()
    assert isinstance(guard.check(budget_request("3", 30 * CENT)), Grant)
    guard.settle(ended("mine", 0))
    assert isinstance(elsewhere(guard, budget_request("4", 60 * CENT)), Grant)
    timer.join()


def test_who_gives_up_leaves_the_queue(guard: Guard, calls: Calls) -> None:
    """A signal that interrupts a wait takes the call out of the queue, and the one behind it gets its turn."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        pytest.skip("needs a timer signal in the main thread")
    assert isinstance(elsewhere(guard, budget_request("1", DOLLAR)), Grant)

    def interrupt(*_: object) -> None:
        calls.start(budget_request("behind", CENT))
        guard.settle(ended("1", 0))
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            elsewhere(guard, budget_request("2", DOLLAR))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert isinstance(calls.join()["behind"], Grant)
    assert not guard.waiting.queues


def test_released_and_withdrawn_calls_wake(guard: Guard, calls: Calls) -> None:
    """A call that was never sent makes room, too."""
    assert isinstance(elsewhere(guard, budget_request("1", DOLLAR)), Grant)
    calls.start(budget_request("2", DOLLAR), budget_request("3", DOLLAR))
    guard.release("1")
    until(lambda: "2" in calls.decisions)
    guard.withdraw("2")
    assert isinstance(calls.join()["3"], Grant)


def test_settled_by_a_finalizer_in_the_middle_of_a_wait(guard: Guard, calls: Calls) -> None:
    """A finalizer that settles while its thread changes the queues waits for no lock that this thread holds."""

    class Ends:
        def __del__(self) -> None:
            guard.settle(ended("1", 0))

    assert isinstance(elsewhere(guard, budget_request("1", DOLLAR)), Grant)
    calls.start(budget_request("2", DOLLAR))
    with guard.waiting._lock:
        garbage = Ends()
        garbage.me = garbage  # type: ignore[attr-defined]
        del garbage
        gc.collect()
    assert isinstance(calls.join()["2"], Grant)


@forks
def test_a_child_has_no_waiting_calls(guard: Guard, calls: Calls) -> None:
    """The calls that wait are the parent's: a forked child has none, and the parent's go on."""
    assert isinstance(elsewhere(guard, budget_request("1", DOLLAR)), Grant)
    calls.start(budget_request("2", DOLLAR))
    assert child_finds(lambda: not guard.waiting.queues and isinstance(guard.check(budget_request("3", DOLLAR)), Grant))
    guard.settle(ended("1", 0))
    assert isinstance(calls.join()["2"], Grant)


# Event loops


def test_three_thousand_tasks_wait_without_threads(guard: Guard) -> None:
    """Tasks wait beside the loop: 3,000 of them hold no thread, and are sent in their order."""
    order: list[int] = []
    most = 3000

    async def call(number: int) -> None:
        grant = await check_aside(guard, budget_request(str(number), DOLLAR))
        assert isinstance(grant, Grant)
        order.append(number)
        await asyncio.sleep(0)
        guard.settle(ended(str(number), 0))

    async def main() -> None:
        before = set(threading.enumerate())
        tasks = [asyncio.create_task(call(number)) for number in range(most)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert waiting(guard) == most - 1
        assert set(threading.enumerate()) <= before
        await asyncio.wait_for(asyncio.gather(*tasks), 60)

    asyncio.run(main())
    assert order == list(range(most))
    assert not guard.waiting.queues


def test_cancelled_tasks_leave_the_queue(guard: Guard) -> None:
    """A task that is cancelled while it waits, or just as it is woken, holds nothing and keeps nobody."""

    async def call(number: int) -> None:
        assert isinstance(await check_aside(guard, budget_request(str(number), DOLLAR)), Grant)

    async def main() -> None:
        assert isinstance(elsewhere(guard, budget_request("first", DOLLAR)), Grant)
        tasks = [asyncio.create_task(call(number)) for number in range(5)]
        await until_waiting(guard, len(tasks))
        tasks[2].cancel()
        guard.settle(ended("first", 0))  # wakes the first one...
        tasks[0].cancel()  # ...which is cancelled before it runs
        await asyncio.wait_for(tasks[1], LONG)
        assert (tasks[3].done(), tasks[4].done()) == (False, False)
        guard.settle(ended("1", 0))
        await asyncio.wait_for(tasks[3], LONG)
        guard.settle(ended("3", 0))
        await asyncio.wait_for(tasks[4], LONG)
        assert [task.cancelled() for task in tasks] == [True, False, True, False, False]

    asyncio.run(main())
    assert not guard.waiting.queues
    guard.settle(ended("4", 0))
    assert sum(counter.reserved for counter in guard.store.counters(0)) == 0


def test_trio_waits_and_is_cancelled(guard: Guard) -> None:
    """The same under trio."""
    sent: list[str] = []

    async def call(attempt: str) -> None:
        assert isinstance(await check_aside(guard, budget_request(attempt, DOLLAR)), Grant)
        sent.append(attempt)

    async def main() -> None:
        assert isinstance(elsewhere(guard, budget_request("0", DOLLAR)), Grant)
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.1) as scope:
                await call("1")
            assert scope.cancelled_caught
            nursery.start_soon(call, "2")
            await until_waiting(guard, 1)
            threading.Thread(target=guard.settle, args=[ended("0", 0)]).start()

    trio.run(main)
    assert sent == ["2"]
    assert not guard.waiting.queues


def test_a_loop_that_stopped_keeps_nobody(clock: Clock) -> None:
    """A task whose loop does not run any more is passed over: at once if it is closed, else after its deadline."""
    guard = guard_of(budgets({"name": "b", "limit": "1 USD"}), clock)
    calls = Calls(guard)
    assert isinstance(elsewhere(guard, budget_request("1", DOLLAR)), Grant)
    loop = asyncio.new_event_loop()
    check = check_aside(guard, budget_request("lost", DOLLAR))
    task = loop.create_task(check)
    while not waiting(guard):
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    calls.start(budget_request("2", DOLLAR))
    guard.settle(ended("1", 0))
    assert isinstance(calls.join()["2"], Grant)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    check.close()


def test_sync_client_on_a_loop_does_not_wait(guard: Guard) -> None:
    """A sync client on a running event loop would block it: it is refused at once, and told why."""

    async def main() -> BudgetDecision:
        return guard.check(budget_request("2"))

    assert isinstance(elsewhere(guard, budget_request("1", DOLLAR)), Grant)
    denial = asyncio.run(main())
    assert isinstance(denial, Denial)
    assert "did not wait, because that would block its event loop: use an async client" in denial.message


def test_child_task_does_not_wait_for_its_parents_stream(guard: Guard) -> None:
    """Tasks that are started while a stream is open do not wait for it: who started them usually waits for them."""

    async def main() -> list[BudgetDecision]:
        assert isinstance(await check_aside(guard, budget_request("stream", DOLLAR)), Grant)
        return await asyncio.gather(*(check_aside(guard, budget_request(str(number))) for number in range(3)))

    assert all(isinstance(denial, Denial) for denial in asyncio.run(main()))


# Around real calls


@pytest.fixture
def one_at_a_time(instrumented: Callable[..., Metered]) -> Iterator[Metered]:
    """Instrument with a budget that has enough left for one call at a time."""
    metered = instrumented(budget="9 USD/day")
    recorder = metered.recorder
    recorder.guard = new(recorder, budgets({"name": "b", "limit": ONE}), MemoryStore())
    yield metered
    assert metered.errors() == {}


def slow(request: httpx.Request) -> httpx.Response:
    """Answer after a while."""
    time.sleep(0.05)
    return httpx.Response(200, json=ANSWER, request=request)


def test_eight_threads_are_all_answered(one_at_a_time: Metered) -> None:
    """Eight threads under a budget with enough for one call at a time: all are answered, one after the other."""
    with httpx.Client(transport=httpx.MockTransport(slow)) as client, ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: client.post(URL, json=BODY).status_code, range(8)))
    assert codes == [200] * 8
    records = sorted(one_at_a_time.calls, key=lambda call: call.started_at)
    assert all(call.duration < 0.25 for call in records)  # the wait is no part of it
    ends = [call.started_at + call.duration * 1e9 for call in records]
    assert all(after.started_at > end - 1e7 for end, (_, after) in zip(ends, pairwise(records), strict=False))
    waits = [span.attributes.get(names.BUDGET_WAIT) for span in one_at_a_time.spans if span.attributes]
    assert sum(wait is not None for wait in waits) == 7
    assert max(wait for wait in waits if isinstance(wait, float)) > 0.2
    (point,) = one_at_a_time.points(names.BUDGET_WAIT_DURATION)
    assert (point.count, dict(point.attributes)) == (7, {names.BUDGET: "b"})
    assert point.sum == pytest.approx(sum(wait for wait in waits if isinstance(wait, float)))


def test_eight_tasks_are_all_answered(one_at_a_time: Metered) -> None:
    """The same in tasks of one loop, which goes on meanwhile."""

    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.02)
        return httpx.Response(200, json=ANSWER, request=request)

    async def main() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            responses = await asyncio.gather(*(client.post(URL, json=BODY) for _ in range(8)))
        return [response.status_code for response in responses]

    assert asyncio.run(main()) == [200] * 8
    assert len(one_at_a_time.calls) == 8


def test_read_timeout_of_the_client(one_at_a_time: Metered) -> None:
    """A client that reads for a tenth of a second waits no longer, and the refusal is no part of any duration."""
    guard = one_at_a_time.recorder.guard
    assert guard is not None
    assert isinstance(elsewhere(guard, budget_request("other", 5 * CENT // 100)), Grant)
    with httpx.Client(transport=httpx.MockTransport(slow), timeout=httpx.Timeout(9, read=0.1)) as client:
        began = time.monotonic()
        response = client.post(URL, json=BODY)
    assert time.monotonic() - began < LONG
    assert response.status_code == 402
    assert "reserved for 1 call under way (waited 0.1 s for them)" in response.json()["error"]["message"]
    assert one_at_a_time.attributes[names.BUDGET_WAIT] == pytest.approx(0.1, abs=0.1)
    assert one_at_a_time.calls[0].duration < 0.1
    assert one_at_a_time.points(names.BUDGET_WAIT_DURATION)[0].count == 1


def test_open_stream_of_the_same_thread(one_at_a_time: Metered) -> None:
    """A call between the chunks of a stream does not wait for that stream; when it is closed, the call is sent."""
    events = [b"data: " + json.dumps(ANSWER).encode() + b"\n\n", b"data: [DONE]\n\n"]

    def answer(request: httpx.Request) -> httpx.Response:
        if b'"stream"' in request.content:
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(events))
        return httpx.Response(200, json=ANSWER)

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        with client.stream("POST", URL, json={**BODY, "stream": True}) as stream:
            chunks = stream.iter_bytes()
            next(chunks)
            began = time.monotonic()
            assert client.post(URL, json=BODY).status_code == 402
            assert time.monotonic() - began < LONG / 2
            list(chunks)
        assert client.post(URL, json=BODY).status_code == 200
    assert [call.outcome for call in one_at_a_time.calls] == ["denied", "ok", "ok"]


def test_budget_that_raises_waits_before_it_raises(one_at_a_time: Metered) -> None:
    """`on_exceed = "raise"` waits as any other does."""
    recorder = one_at_a_time.recorder
    table = {"name": "b", "limit": ONE, "on_exceed": "raise", "wait": 0.1}
    recorder.guard = new(recorder, budgets(table), MemoryStore())
    assert recorder.guard is not None
    assert isinstance(elsewhere(recorder.guard, budget_request("other", 5 * CENT // 100)), Grant)
    with (
        httpx.Client(transport=httpx.MockTransport(slow)) as client,
        pytest.raises(BudgetExceeded, match=r"waited 0\.\d s"),
    ):
        client.post(URL, json=BODY)


def test_a_tool_is_not_waited_for_by_its_own_calls(one_at_a_time: Metered) -> None:
    """A call inside of a paid tool does not wait for what that tool has reserved."""

    @tollspan.tool(price="0.0005 USD")
    def search() -> int:
        with httpx.Client(transport=httpx.MockTransport(slow)) as client:
            return client.post(URL, json=BODY).status_code

    began = time.monotonic()
    assert search() == 402
    assert time.monotonic() - began < LONG / 2
    assert names.BUDGET_WAIT not in (one_at_a_time.spans[0].attributes or {})


# All together


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_nobody_is_forgotten(clock: Clock, tmp_path: Path, kind: str) -> None:
    """Threads and tasks with amounts of all sizes in nested budgets, some given up: the others are all sent."""
    tables: list[dict[str, Any]] = [
        {"name": "all", "limit": "2 USD", "wait": "10m"},
        {"name": "user", "limit": "1 USD", "per": ["user"], "wait": "10m"},
    ]
    store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "b.sqlite", deadline=30)
    guard = guard_of(budgets(*tables), clock, store)
    random = Random(20)  # noqa: S311 - amounts of a test
    requests = [
        budget_request(f"{kind}-{number}", random.randrange(1, 100) * CENT, user=random.choice("abc"))
        for number in range(200)
    ]
    sent: list[str] = []

    def send(request: BudgetRequest) -> None:
        assert isinstance(guard.check(request), Grant)
        time.sleep(0.001)
        guard.settle(ended(request.attempt, 0))
        sent.append(request.attempt)

    async def send_aside(request: BudgetRequest) -> None:
        assert isinstance(await check_aside(guard, request), Grant)
        try:
            await asyncio.sleep(0.001)
        finally:
            guard.settle(ended(request.attempt, 0))
        sent.append(request.attempt)

    async def main() -> None:
        tasks = [asyncio.create_task(send_aside(request)) for request in requests[:100]]
        for task in tasks[::5]:
            await asyncio.sleep(0.002)
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
        assert {task.cancelled() or task.exception() for task in tasks} <= {True, None}
        sent.extend(request.attempt for request, task in zip(requests, tasks, strict=False) if task.cancelled())

    threads = [threading.Thread(target=send, args=(request,), daemon=True) for request in requests[100:]]
    for thread in threads:
        thread.start()
    asyncio.run(main())
    for thread in threads:
        thread.join(60)
    assert sorted(sent) == sorted(request.attempt for request in requests)
    assert not guard.waiting.queues
    assert guard.settler.flush(LONG)
    assert sum(counter.reserved for counter in guard.store.counters(clock.now)) == 0
    guard.close()


# Processes that share a file

HOLDER = """
import sys, time
from tests.budget.test_guard import CENT, budget_request, ended, guard_of, Clock
from tests.budget.test_waiting import budgets
from tollspan.budget.stores.sqlite import SqliteStore

guard = guard_of(budgets({"name": "b", "limit": "1 USD"}), Clock(), SqliteStore(sys.argv[1]))
guard.check(budget_request("holder", 100 * CENT))
print("held", flush=True)
sys.stdin.readline()
guard.settle(ended("holder", 0))
print(time.time(), flush=True)
"""


def test_settlement_of_another_process_wakes(clock: Clock, tmp_path: Path) -> None:
    """A call, and a task, that wait for a call of another process on the same file are woken by its settlement."""
    path = tmp_path / "b.sqlite"
    guard = guard_of(budgets({"name": "b", "limit": "1 USD"}), clock, SqliteStore(path, deadline=10))
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "held\n"
        calls = Calls(guard)
        calls.start(budget_request("thread", 50 * CENT))

        async def main() -> BudgetDecision:
            check = asyncio.create_task(check_aside(guard, budget_request("task", 50 * CENT)))
            await until_waiting(guard, 2)
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            return await asyncio.wait_for(check, LONG)

        grant = asyncio.run(main())
        assert isinstance(grant, Grant)
        settled = float(process.stdout.readline())
        assert time.time() - settled < 5  # and not at the end of `wait`
        assert isinstance(calls.join()["thread"], Grant)
    until(lambda: all(thread.name != "tollspan-wait" for thread in threading.enumerate()))
    guard.close()


@forks
def test_fork_while_a_file_is_watched(clock: Clock, tmp_path: Path) -> None:
    """A fork closes the connection that watches a file; the parent's calls are woken by the child all the same."""
    path = tmp_path / "b.sqlite"
    guard = guard_of(budgets({"name": "b", "limit": "1 USD"}), clock, SqliteStore(path, deadline=10))
    calls = Calls(guard)
    assert isinstance(elsewhere(guard, budget_request("1", DOLLAR)), Grant)
    calls.start(budget_request("2", DOLLAR))
    until(lambda: any(thread.name == "tollspan-wait" for thread in threading.enumerate()))

    def settles() -> bool:
        assert not guard.waiting.queues
        return guard.store.settle("1", (), clock.now) is not None

    assert child_finds(settles)
    assert isinstance(calls.join()["2"], Grant)
    guard.close()
