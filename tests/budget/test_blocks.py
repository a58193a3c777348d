"""Blocks of budgets and attribution that end out of order: one that is over holds no more, and the others stay."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry import baggage, context

import tollspan
from tollspan.attribution import current_attribution

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from tests.conftest import Metered

CHAT = {
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500},
}
"""An answer that was made, not recorded."""

NOTHING = "0 calls"
"""A limit that refuses every call."""


@pytest.fixture
def status(instrumented: Callable[..., Metered]) -> Callable[[], int]:
    """Instrument, and return a function that makes a call and returns its status."""
    instrumented()

    def call() -> int:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, json=CHAT))
        body = {"model": "gpt-4o-mini", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}
        with httpx.Client(transport=transport) as client:
            return client.post("https://api.openai.com/v1/chat/completions", json=body).status_code

    return call


def inside(*blocks: Any) -> Generator[int]:
    """Yield twice inside blocks."""
    with blocks[0]:
        yield from inside(*blocks[1:]) if blocks[1:] else (1, 2)


async def inside_async(block: Any) -> AsyncGenerator[int]:
    """Yield twice inside a block."""
    with block:
        yield 1
        yield 2


def elsewhere(action: Callable[[], Any]) -> Any:
    """Run an action in another thread."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(action()))
    thread.start()
    thread.join()
    return results[0]


def test_a_generator_that_another_thread_closes(status: Callable[[], int]) -> None:
    """Its block holds until it is closed, then nowhere; the block of the thread that closes it stays."""
    generator = inside(tollspan.budget(NOTHING), tollspan.attribution(user="alice"))
    next(generator)
    assert (status(), current_attribution()) == (402, {"user": "alice"})

    def close() -> tuple[int, int]:
        with tollspan.budget(NOTHING):
            generator.close()
            refused = status()
        return refused, status()

    assert elsewhere(close) == (402, 200)
    assert (status(), current_attribution()) == (200, {})
    assert elsewhere(tollspan.carry(status)) == 200


def test_generators_that_end_in_turns(status: Callable[[], int]) -> None:
    """Blocks that end in the order in which they began leave each other alone."""
    first = inside(tollspan.budget("1 call"), tollspan.attribution(user="alice"))
    second = inside(tollspan.budget(NOTHING), tollspan.attribution(step="2"))
    next(first)
    next(second)
    first.close()
    assert (status(), current_attribution()) == (402, {"step": "2"})
    second.close()
    assert (status(), current_attribution()) == (200, {})


def test_a_generator_that_is_collected(status: Callable[[], int]) -> None:
    """A block in a generator that nobody finishes ends when it is collected, whatever block it is collected in."""
    generator = inside(tollspan.budget(NOTHING))
    next(generator)
    with tollspan.budget("2 calls") as block:
        assert status() == 402
        del generator
        gc.collect()
        assert (status(), block.spent) == (200, 1)
    assert status() == 200


def test_an_asynchronous_generator_that_another_task_closes(status: Callable[[], int]) -> None:
    """The task that closes it keeps its own blocks, and the task that began it gets rid of the one that is over."""

    async def main() -> None:
        generator = inside_async(tollspan.budget("5 calls"))
        await asyncio.create_task(anext(generator))
        with tollspan.budget(NOTHING) as own, tollspan.attribution(user="dave") as scope:
            await generator.aclose()
            assert (status(), current_attribution(), own.spent, scope.calls) == (402, {"user": "dave"}, 0, 0)
        left = inside_async(tollspan.budget(NOTHING))
        await anext(left)
        await asyncio.create_task(left.aclose())
        assert await asyncio.create_task(asyncio.to_thread(status)) == 200
        assert status() == 200

    asyncio.run(main())


def test_tasks_keep_the_block_that_they_were_started_in(status: Callable[[], int]) -> None:
    """A limit holds for the calls of tasks and threads from inside, also if the block ends before they do."""

    async def main() -> int:
        with tollspan.budget(NOTHING):
            task = asyncio.create_task(asyncio.to_thread(status))
        return await task

    assert asyncio.run(main()) == 402
    with tollspan.budget(NOTHING):
        carried = tollspan.carry(status)
    assert elsewhere(carried) == 402


def test_a_block_inside_itself_counts_once(status: Callable[[], int]) -> None:
    """A block that is entered again goes on with its sums, and holds until it was left as often."""
    block, scope = tollspan.budget("3 calls"), tollspan.attribution(user="alice")
    for again in range(2):
        with block, scope:
            with block, scope:
                assert status() == 200
            assert (block.spent, scope.calls) == (again + 1, again + 1)
        assert current_attribution() == {}
    assert block.tree() == "3 calls: 2 of 3 spent"
    with block:
        with block:
            assert status() == 200
        assert status() == 402


def test_a_block_that_threads_share(status: Callable[[], int]) -> None:
    """Each thread is inside from its own beginning to its own end; all of them spend the same limit."""
    block, scope = tollspan.budget("2 calls"), tollspan.attribution(user="alice")
    is_in, is_over = threading.Event(), threading.Event()
    statuses: list[int] = []

    def work() -> None:
        with block, scope:
            is_in.set()
            is_over.wait(30)
            statuses.extend((status(), status()))
        statuses.append(status())

    thread = threading.Thread(target=work)
    thread.start()
    is_in.wait(30)
    with block, scope:
        assert status() == 200
    assert status() == 200
    is_over.set()
    thread.join()
    assert statuses == [200, 402, 200]
    assert (block.spent, scope.calls, current_attribution()) == (2, 2, {})


def test_values_come_from_the_blocks_around_the_place(status: Callable[[], int]) -> None:
    """A block of attribution that is entered again has the values of the blocks around it there, and no others."""
    scope = tollspan.attribution(step="1")
    with tollspan.attribution(user="alice"), scope:
        assert current_attribution() == {"user": "alice", "step": "1"}
    with scope:
        assert (status(), current_attribution()) == (200, {"step": "1"})
        assert scope.values == {"step": "1"}


def test_baggage_of_a_block_that_ended_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    """Its baggage counts no longer, the baggage around it counts again, and OpenTelemetry logs nothing."""
    token = context.attach(baggage.set_baggage("tollspan.session", "outer"))
    try:
        for _ in range(3):
            generator = inside(tollspan.attribution(user="alice", session="inner", baggage=True))
            next(generator)
            assert current_attribution() == {"user": "alice", "session": "inner"}
            elsewhere(generator.close)
            assert current_attribution() == {"session": "outer"}
        with tollspan.attribution(step="1", baggage=True):
            assert dict(baggage.get_all()) == {"tollspan.session": "outer", "tollspan.step": "1"}
    finally:
        context.detach(token)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_block_of_long_life_keeps_no_list_without_end(status: Callable[[], int]) -> None:
    """Its tree shows the last blocks inside, and the sums of the earlier ones; those take no memory."""
    seen: list[weakref.ref[Any]] = []
    with tollspan.budget("1000 calls") as outer:
        for number in range(300):
            with tollspan.budget("5 calls") as block:
                assert number % 3 or status() == 200
            seen.append(weakref.ref(block))
        del block
        gc.collect()
        assert sum(ref() is not None for ref in seen) == 100
    first, earlier, *last = outer.tree().splitlines()
    assert (first, len(last)) == ("1000 calls: 100 of 1,000 spent", 100)
    assert earlier == "  200 earlier blocks: 67 calls spent"
