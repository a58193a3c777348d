"""Budgets on an event loop: while a store answers, other tasks go on, and a task that is cancelled keeps nothing."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

import tollspan
from tollspan.budget.stores.memory import MemoryStore
from tollspan.runtime.event_loops import aside, on_loop
from tollspan.setup.guards import new
from tollspan.setup.instrument import current

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.conftest import Metered
    from tollspan.budget.stores import CounterUpdate, ReservationResult

URL = "https://api.openai.com/v1/chat/completions"
BODY = {"model": "gpt-4o-mini", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


class Slow:
    """A store that answers a reservation when the test lets it."""

    remote = False

    def __init__(self) -> None:
        """Start empty, with every reservation held."""
        self.inner = MemoryStore()
        self.asked, self.answer = threading.Event(), threading.Event()
        self.threads: set[int] = set()
        self.settled = threading.Event()

    def __getattr__(self, name: str) -> Any:
        """Do as a store in memory does."""
        return getattr(self.inner, name)

    def reserve(self, attempt: str, updates: Sequence[CounterUpdate], now: float, until: float) -> ReservationResult:
        """Reserve, when it is let."""
        self.threads.add(threading.get_ident())
        self.asked.set()
        assert self.answer.wait(30)
        return self.inner.reserve(attempt, updates, now, until)

    def settle(self, *settlement: Any) -> Any:
        """Settle, and tell who did."""
        self.threads.add(threading.get_ident())
        states = self.inner.settle(*settlement)
        self.settled.set()
        return states


@pytest.fixture
def slow(instrumented: Callable[..., Metered]) -> Slow:
    """Instrument with a slow store."""
    instrumented(budget="2 calls, 5 USD/session")
    recorder, store = current(), Slow()
    assert recorder is not None
    assert recorder.guard is not None
    recorder.guard = new(recorder, recorder.guard.budgets, store)
    return store


def client() -> httpx.AsyncClient:
    """Return a client whose provider answers at once."""
    reply = {"object": "chat.completion", "model": "gpt-4o-mini", "choices": [], "usage": USAGE}
    return httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=reply)))


def reserved(store: Slow) -> int:
    """Return what is reserved on all counters."""
    return sum(counter.reserved for counter in store.inner.counters(0))


def test_asyncio_goes_on_while_a_store_answers(slow: Slow) -> None:
    """The loop's other tasks run while a store is read in a thread, and attribution stays the call's."""

    async def main() -> None:
        async with client() as lib:
            with tollspan.attribution(session="mine"):
                call = asyncio.create_task(lib.post(URL, json=BODY))
            assert await asyncio.to_thread(slow.asked.wait, 30)
            assert not call.done()
            slow.answer.set()
            assert (await call).status_code == 200

    asyncio.run(main())
    assert {counter.key.split("/")[-1] for counter in slow.counters(0)} >= {"session=mine"}
    spent = {item.unit: item.spent for item in tollspan.budget.status()}
    assert spent["calls"] == 1
    assert reserved(slow) == 0
    assert threading.get_ident() not in slow.threads


def test_trio_goes_on_while_a_store_answers(slow: Slow) -> None:
    """The same under trio, which httpx runs on too."""
    codes = []

    async def call(lib: httpx.AsyncClient) -> None:
        codes.append((await lib.post(URL, json=BODY)).status_code)

    async def main() -> None:
        async with client() as lib, trio.open_nursery() as nursery:
            nursery.start_soon(call, lib)
            assert await trio.to_thread.run_sync(slow.asked.wait, 30)
            slow.answer.set()

    trio.run(main)
    assert codes == [200]
    assert {item.unit: item.spent for item in tollspan.budget.status()}["calls"] == 1
    assert threading.get_ident() not in slow.threads


def test_refusals_reach_the_task(slow: Slow) -> None:
    """A call that does not fit is refused with 402, also while other calls are checked."""
    slow.answer.set()

    async def main() -> list[int]:
        async with client() as lib:
            answers = await asyncio.gather(*(lib.post(URL, json=BODY) for _ in range(6)))
            return sorted(answer.status_code for answer in answers)

    assert asyncio.run(main()) == [200, 200, 402, 402, 402, 402]


@pytest.mark.parametrize("runs", ["asyncio", "trio"])
def test_a_cancelled_task_keeps_nothing_reserved(slow: Slow, runs: str) -> None:
    """A task that is cancelled while a store is asked was never sent: it costs nothing, and frees what it reserved."""

    async def with_asyncio() -> None:
        async with client() as lib:
            call = asyncio.create_task(lib.post(URL, json=BODY))
            assert await asyncio.to_thread(slow.asked.wait, 30)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    async def with_trio() -> None:
        async with client() as lib, trio.open_nursery() as nursery:
            nursery.start_soon(lambda: lib.post(URL, json=BODY))
            assert await trio.to_thread.run_sync(slow.asked.wait, 30)
            nursery.cancel_scope.cancel()

    if runs == "asyncio":
        asyncio.run(with_asyncio())
    else:
        trio.run(with_trio)
    slow.answer.set()
    assert slow.settled.wait(30)
    assert reserved(slow) == 0
    assert {item.unit: item.spent for item in tollspan.budget.status()} == {"calls": 0, "usd": 0}
    recorder = current()
    assert recorder is not None
    assert recorder.last is not None
    assert (recorder.last.outcome, recorder.last.billable) == ("aborted", False)


def test_paid_tools_wait_aside_too(slow: Slow) -> None:
    """A paid tool that is async asks the budgets beside the loop."""

    @tollspan.tool(price="0.01 USD")
    async def search() -> str:
        return "found"

    async def main() -> str:
        use = asyncio.create_task(search())
        assert await asyncio.to_thread(slow.asked.wait, 30)
        slow.answer.set()
        return await use

    assert asyncio.run(main()) == "found"
    assert threading.get_ident() not in slow.threads


def test_memory_is_asked_where_one_is() -> None:
    """Work without a loop is done at once; on a loop in another thread, with the task's own context."""
    assert not on_loop()

    async def main() -> tuple[bool, bool, str | None]:
        with tollspan.attribution(user="alice") as scope:
            here = threading.get_ident()
            elsewhere = await aside(lambda: threading.get_ident() != here)
            user = await aside(lambda: dict(scope.values).get("user"))
            return on_loop(), elsewhere, user

    assert asyncio.run(main()) == (True, True, "alice")
    assert trio.run(main) == (True, True, "alice")
    with pytest.raises(StopIteration) as done:
        aside(lambda: 7).send(None)
    assert done.value.value == 7
