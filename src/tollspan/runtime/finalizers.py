"""Finalizers that the garbage collector runs do their work in another thread: the code they interrupt may hold a lock.

The collector runs finalizers in the middle of any Python code, on the thread that it started on. The OpenTelemetry SDK
keeps its sums under locks that are not reentrant, as an exporter or the application may; an attempt that ended right
there could wait forever for a lock that its own thread holds.
"""

from __future__ import annotations

import _thread
import contextlib
import gc
import os
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class _Watch:
    """The thread that is collecting garbage, if any, and the actions that wait."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self.waiting: deque[Callable[[], None]] = deque()
        self._fresh()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._fresh)  # waiting actions are the parent's

    def _fresh(self) -> None:
        self.waiting.clear()
        self.working = _thread.allocate_lock()

    def __call__(self, phase: str, _: dict[str, Any]) -> None:
        self.thread = _thread.get_ident() if phase == "start" else None


_watch = _Watch()


def watch() -> None:
    """Start to watch the collector."""
    if _watch not in gc.callbacks:
        gc.callbacks.append(_watch)


def unwatch() -> None:
    """Stop to watch the collector."""
    with contextlib.suppress(ValueError):
        gc.callbacks.remove(_watch)


def end(action: Callable[[], None]) -> None:
    """Run what a finalizer has to do: at once, or in a thread if the garbage collector runs the finalizer."""
    if _watch.thread != _thread.get_ident():
        action()
        return
    _watch.waiting.append(action)
    if len(_watch.waiting) == 1:  # the thread for the first one does the others; two collections never run at once
        _start()


def _start() -> None:
    try:
        _thread.start_new_thread(settle, ())  # threading's own would take a lock
    except RuntimeError:  # the interpreter is ending, and no other thread holds a lock
        _end_all()


def settle() -> None:
    """Run the waiting actions, and wait for the thread that is running them."""
    with _watch.working:
        try:
            _end_all()
        finally:
            if _watch.waiting:  # an action has raised; the others are run all the same
                _start()


def _end_all() -> None:
    waiting = _watch.waiting
    while waiting:
        with contextlib.suppress(IndexError):
            waiting.popleft()()
