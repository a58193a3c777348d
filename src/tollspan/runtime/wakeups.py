"""Wake-ups: a thread or a task waits until another one wakes it, or for some seconds.

    wakeup = ThreadWakeup()      wakeup.wait(30.0)          blocks its thread
    wakeup = task_wakeup()       await wakeup.wait(30.0)    holds no thread; None on an event loop that is unknown
    wakeup.wake()                from any thread, finalizer or signal handler: it waits for no lock of ours

A `wake` that comes before its `wait` is not lost. A `wait` may end early without one.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from tollspan.runtime.event_loops import asyncio_loop, trio_here

if TYPE_CHECKING:
    import asyncio


class Wakeup(Protocol):
    """What wakes a thread or a task."""

    def wake(self) -> bool:
        """Wake it; return False if it is gone, because its event loop is closed."""
        ...


class ThreadWakeup:
    """Wakes a thread."""

    def __init__(self) -> None:
        """Start with no wake-up."""
        self._asleep = threading.Lock()  # an Event has a lock of its own, which an interrupted `wake` would still hold
        self._asleep.acquire()

    def wake(self) -> bool:
        """Wake the thread."""
        with suppress(RuntimeError):  # it is awake already
            self._asleep.release()
        return True

    def wait(self, seconds: float) -> None:
        """Wait until the thread is woken, `seconds` at most."""
        self._asleep.acquire(timeout=seconds)


class TaskWakeup(Wakeup, Protocol):
    """What wakes a task."""

    async def wait(self, seconds: float) -> None:
        """Wait until the task is woken, `seconds` at most."""
        ...


class _AsyncioWakeup:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._woken = loop.create_future()

    def wake(self) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _end(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)

    async def wait(self, seconds: float) -> None:
        later = self._loop.call_later(seconds, self._end)
        try:
            await self._woken
        finally:
            later.cancel()
        self._woken = self._loop.create_future()


class _TrioWakeup:
    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._woken = trio.Event()

    def wake(self) -> bool:
        try:
            self._token.run_sync_soon(self._end)
        except self._trio.RunFinishedError:
            return False
        return True

    def _end(self) -> None:
        self._woken.set()

    async def wait(self, seconds: float) -> None:
        with self._trio.move_on_after(seconds):
            await self._woken.wait()
        self._woken = self._trio.Event()


def task_wakeup() -> TaskWakeup | None:
    """Return a wake-up of the current task; None on an event loop that is neither asyncio's nor trio's."""
    if (trio := trio_here()) is not None:  # first, because trio may be a guest of asyncio's loop
        return _TrioWakeup(trio)
    loop = asyncio_loop()
    return None if loop is None else _AsyncioWakeup(loop)
