"""Event loops: whether one runs here, and how a task waits for work that must not block the others.

`await aside(work)` runs `work()` in a thread, in the task's context, and returns its result. If the task is cancelled
meanwhile, the thread finishes alone. asyncio and trio are looked for and never imported, so that a program that uses
neither does not load them.
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
"""Tasks that can wait for a store at once. The threads are our own: the application may use all those of its loop."""


def on_loop() -> bool:
    """Return whether this code runs on an event loop, so that waiting would block every other task."""
    return trio_here() is not None or asyncio_loop() is not None


async def aside(work: Callable[[], Result]) -> Result:
    """Return the result of `work()`, run in a thread (see the module's text); run it here on any other event loop."""
    if (trio := trio_here()) is not None:  # first, because trio may be a guest of asyncio's loop
        result: Result = await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=_limiter(trio))
        return result
    if (loop := asyncio_loop()) is not None:
        try:
            future = loop.run_in_executor(_threads.pool(), copy_context().run, work)
        except RuntimeError:  # the interpreter is ending, and starts no more threads
            return work()
        done: Result = await future
        return done
    return work()


def asyncio_loop() -> Any:
    """Return asyncio's event loop that runs here; None if none does."""
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def trio_here() -> Any:
    """Return trio if it runs this code; None if it does not."""
    trio: Any = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return None
    return trio


class _Threads:
    """The threads for asyncio's tasks, which are started when they are needed."""

    def __init__(self) -> None:
        self._fresh()
        renew_in_child(self, _Threads._fresh)

    def _fresh(self) -> None:
        self._pool: Any = None  # the parent's threads do not exist in a child

    def pool(self) -> Any:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(THREADS, "tollspan-budget")
        return self._pool


_threads: Final = _Threads()
_limiters: Final[list[Any]] = []


def _limiter(trio: Any) -> Any:
    """Return the limiter for trio's threads: one for each run, because what a run leaves undone stays counted."""
    if not _limiters:
        _limiters.append(trio.lowlevel.RunVar("tollspan_budget"))
    variable = _limiters[0]
    try:
        return variable.get()
    except LookupError:
        limiter = trio.CapacityLimiter(THREADS)
        variable.set(limiter)
        return limiter
