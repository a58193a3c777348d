"""Programs that make calls in many ways at once: `python -m tests.concurrency.programs NAME URL`.

Each makes its calls against the fake provider at URL and ends as such programs do. What they cost is kept in the ledger
that `TOLLSPAN_LEDGER` names; the test that started the program compares it with the provider's own books.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import ssl
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import anyio
import httpx
import httpx2
import trio

import tollspan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATH: Final = "/openai/v1/chat/completions"
KEY: Final = {"authorization": "Bearer any"}
ASKED: Final = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Tell me what you are."}]}
STREAM: Final = {"stream": True, "stream_options": {"include_usage": True}}
STREAMED: Final = {**ASKED, **STREAM}
OTHER: Final = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "And who has made you, and what for?"}],
}
STALLED: Final = {**KEY, "x-fake": "fault=stall:3"}
"""Headers that make the provider send three events, and then nothing more."""
TLS: Final = ssl.create_default_context()
"""One context for all clients of `call`: OpenSSL hangs in a child that is forked while a thread makes another one."""


def call(url: str, *, times: int = 1, lib: Any = httpx2, asked: Any = ASKED) -> None:
    """Make so many pairs of calls, one plain and one streamed."""
    with lib.Client(base_url=url, headers=KEY, verify=TLS) as client:
        for _ in range(times):
            client.post(PATH, json=asked).raise_for_status()
            with client.stream("POST", PATH, json={**asked, **STREAM}) as response:
                for _ in response.iter_lines():
                    pass


async def acall(url: str, *, times: int = 1, lib: Any = httpx2) -> None:
    """Make so many pairs of calls, as `call` does."""
    async with lib.AsyncClient(base_url=url, headers=KEY) as client:
        for _ in range(times):
            (await client.post(PATH, json=ASKED)).raise_for_status()
            async with client.stream("POST", PATH, json=STREAMED) as response:
                async for _ in response.aiter_lines():
                    pass


def stalled(url: str) -> Any:
    """Open a stream and read of it until nothing more comes; give client, response and the lines."""
    client = httpx2.Client(base_url=url, headers=STALLED, timeout=300)
    response = client.send(client.build_request("POST", PATH, json=STREAMED), stream=True)
    lines = response.iter_lines()
    seen = 0
    while seen < 2:
        seen += next(lines).startswith("data:")
    return client, response, lines


def wait(lines: Iterator[str]) -> None:
    """Read on, where nothing more comes."""
    for _ in lines:
        pass


# Threads and event loops


def threads(url: str) -> None:
    """Call from eight threads at once, by both libraries."""
    with ThreadPoolExecutor(8) as pool:
        for number in range(16):
            pool.submit(call, url, times=3, lib=(httpx, httpx2)[number % 2])


def asyncio_tasks(url: str) -> None:
    """Call from many tasks at once, while others are cancelled in the middle of a stream."""

    async def cancelled() -> None:
        async with (
            httpx2.AsyncClient(base_url=url, headers=STALLED) as client,
            client.stream("POST", PATH, json=STREAMED) as response,
        ):
            async for _ in response.aiter_lines():
                pass

    async def main() -> None:
        tasks = [asyncio.create_task(cancelled()) for _ in range(4)]
        await asyncio.gather(*(acall(url, times=2, lib=(httpx, httpx2)[number % 2]) for number in range(16)))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def trio_tasks(url: str) -> None:
    """Call from many tasks of trio at once, while others are cancelled."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(lambda lib: acall(url, times=2, lib=lib), (httpx, httpx2)[number % 2])
            with trio.CancelScope() as scope:
                async with (
                    httpx.AsyncClient(base_url=url, headers=STALLED) as client,
                    client.stream("POST", PATH, json=STREAMED) as response,
                ):
                    async for line in response.aiter_lines():
                        if "content" in line:
                            scope.cancel()

    trio.run(main)


def anyio_tasks(url: str) -> None:
    """Call from a task group of anyio, on both of its loops."""

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(lambda: acall(url, lib=httpx))

    anyio.run(main, backend="asyncio")
    anyio.run(main, backend="trio")


def loops(url: str) -> None:
    """Run one event loop after another, and several in threads, as web servers' sync workers do."""
    with ThreadPoolExecutor(4) as pool:
        for _ in range(8):
            pool.submit(lambda: asyncio.run(acall(url)))
    asyncio.run(acall(url))


# Processes


def forks(url: str) -> None:
    """Fork while a stream is open and threads are calling; every process goes on calling, the parent too."""
    call(url)
    opened = stalled(url)
    with ThreadPoolExecutor(2) as pool:
        work = [pool.submit(call, url, times=2) for _ in range(2)]
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                call(url, times=2)
                good = tollspan.flush()
                os._exit(0 if good else 3)
            children.append(child)
        for done in work:
            done.result()
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    opened[1].close()
    call(url)


def _child(url: str) -> None:
    tollspan.instrument()  # does nothing where the parent's instrumentation came along
    call(url, times=2)


def _processes(method: str, url: str) -> None:
    call(url)
    context: Any = multiprocessing.get_context(method)
    children: list[Any] = [context.Process(target=_child, args=(url,)) for _ in range(3)]
    for child in children:
        child.start()
    call(url)
    for child in children:
        child.join()
        assert child.exitcode == 0


def multiprocessing_fork(url: str) -> None:
    """Call from children of multiprocessing that are forked."""
    _processes("fork", url)


def multiprocessing_spawn(url: str) -> None:
    """Call from children of multiprocessing that are started anew."""
    _processes("spawn", url)


def multiprocessing_forkserver(url: str) -> None:
    """Call from children of multiprocessing that a server forks."""
    _processes("forkserver", url)


def process_pool(url: str) -> None:
    """Call from the workers of a pool."""
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork")) as pool:
        for done in [pool.submit(_child, url) for _ in range(6)]:
            done.result()


# Ends


def exit_in_flight(url: str) -> None:
    """End while daemon threads and an abandoned stream wait for more."""
    opened = stalled(url)
    for _ in range(3):
        ready = threading.Event()

        def read(ready: threading.Event = ready) -> None:
            _, _, lines = stalled(url)
            ready.set()
            wait(lines)

        threading.Thread(target=read, daemon=True).start()
        ready.wait()
    call(url)
    globals()["kept until the end"] = opened


def loop_closed_in_flight(url: str) -> None:
    """Let an event loop end while a task still reads a stream: `asyncio.run` cancels it."""

    async def read(started: asyncio.Event) -> None:
        async with (
            httpx2.AsyncClient(base_url=url, headers=STALLED) as client,
            client.stream("POST", PATH, json=STREAMED) as response,
        ):
            async for _ in response.aiter_lines():
                started.set()

    async def main() -> None:
        started = asyncio.Event()
        globals()["task"] = asyncio.create_task(read(started))
        await started.wait()
        await acall(url)

    asyncio.run(main())


def terminated(url: str) -> None:
    """Be terminated in the middle of a stream."""
    call(url)
    opened = stalled(url)
    print("waiting", flush=True)  # noqa: T201 - whoever waits for it
    wait(opened[2])


def interrupted(url: str) -> None:
    """Be interrupted in the middle of a stream, and clean up."""
    call(url)
    _, response, lines = stalled(url)
    try:
        print("waiting", flush=True)  # noqa: T201 - whoever waits for it
        wait(lines)
    except KeyboardInterrupt:
        response.close()
        call(url)


def own_handler(url: str) -> None:
    """Handle SIGTERM oneself, by an exception, as many servers do."""

    def leave(*_: object) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    terminated(url)


def alarms(url: str) -> None:
    """Call while signals interrupt wherever they may, and their handler makes calls itself."""
    calls: list[int] = []
    inside: list[int] = []

    def ring(*_: object) -> None:
        if len(calls) < 5 and not inside:  # a handler inside a handler would send what the outer one is sending
            calls.append(1)
            inside.append(1)
            call(url, asked=OTHER)  # the same as what waits for its answer would be taken for its being sent on
            inside.clear()

    call(url)  # imports what is imported late: a half-imported module is nothing for a signal's handler
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    end = time.monotonic() + 60
    while len(calls) < 5 and time.monotonic() < end:
        call(url)
    signal.setitimer(signal.ITIMER_REAL, 0)


PROGRAMS: Final[dict[str, Callable[[str], None]]] = {
    program.__name__: program
    for program in (
        threads, asyncio_tasks, trio_tasks, anyio_tasks, loops, forks, multiprocessing_fork, multiprocessing_spawn,
        multiprocessing_forkserver, process_pool, exit_in_flight, loop_closed_in_flight, terminated, interrupted,
        own_handler, alarms,
    )
}  # fmt: skip

if __name__ == "__main__":
    tollspan.instrument()
    PROGRAMS[sys.argv[1]](sys.argv[2])
