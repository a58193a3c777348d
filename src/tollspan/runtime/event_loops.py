"""Event loops: whether one runs here, and how a task waits for work that must not stop the others.

`await aside(work)` runs `work()` in a thread, in the task's own context, and gives what it gives. Where the task is
cancelled meanwhile, the thread goes on alone. asyncio and trio are looked for, and never imported: whose program uses
neither is not made to load them.
"""

from __future__ import annotations

import sys
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

THREADS: Final = 32
"""Tasks that can wait for a store at once. The threads are our own: an application may use all those of its loop."""


def on_loop() -> bool:
    """Return whether this code runs on an event loop, and would keep every other task from going on."""
    return _trio() is not None or _asyncio() is not None


async def aside(work: Callable[[], Result]) -> Result:
    """Wait for `work()` in a thread (see the module's text); on a loop that is neither asyncio's nor trio's, here."""
    if (trio := _trio()) is not None:  # first, for trio may be a guest of asyncio's loop
        result: Result = await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=_limiter(trio))
        return result
    if (loop := _asyncio()) is not None:
        try:
            future = loop.run_in_executor(_threads.pool(), copy_context().run, work)
        except RuntimeError:  # the interpreter is ending, and starts no more threads
            return work()
        done: Result = await future
        return done
    return work()


def _asyncio() -> Any:
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _trio() -> Any:
    trio: Any = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return None
    return trio


class _Threads:
    """The threads of asyncio's tasks; they are started when they are needed."""

    def __init__(self) -> None:
        self._fresh()
        renew_in_child(self, _Threads._fresh)

    def _fresh(self) -> None:
        self._pool: Any = None  # a parent's threads do not live in a child

    def pool(self) -> Any:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(THREADS, "tollspan-budget")
        return self._pool


_threads: Final = _Threads()
_limiters: Final[list[Any]] = []


def _limiter(trio: Any) -> Any:
    """Return what limits the threads of trio's tasks: one for each run, for what a run leaves undone stays counted."""
    if not _limiters:
        _limiters.append(trio.lowlevel.RunVar("tollspan_budget"))
    variable = _limiters[0]
    try:
        return variable.get()
    except LookupError:
        limiter = trio.CapacityLimiter(THREADS)
        variable.set(limiter)
        return limiter
