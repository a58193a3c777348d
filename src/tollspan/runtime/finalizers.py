"""What the garbage collector finds is ended in a thread of its own: what it has interrupted may hold a lock.

The collector runs finalizers in the middle of any Python code, on whatever thread it started on. The OpenTelemetry SDK
keeps its sums under locks that are not reentrant, and so may an exporter or the application; ending an attempt there
and then could wait for ever for a lock that its own thread holds.
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
    """Knows which thread is collecting garbage, if any is."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self.waiting: deque[Callable[[], None]] = deque()
        self._fresh()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._fresh)  # what is waiting is the parent's

    def _fresh(self) -> None:
        self.waiting.clear()
        self.working = _thread.allocate_lock()

    def __call__(self, phase: str, _: dict[str, Any]) -> None:
        self.thread = _thread.get_ident() if phase == "start" else None


_watch = _Watch()


def watch() -> None:
    """Begin to watch the collector."""
    if _watch not in gc.callbacks:
        gc.callbacks.append(_watch)


def unwatch() -> None:
    """Watch it no more."""
    with contextlib.suppress(ValueError):
        gc.callbacks.remove(_watch)


def end(action: Callable[[], None]) -> None:
    """Run what a finalizer has to do: at once where only its own code is under way, else in a thread."""
    if _watch.thread != _thread.get_ident():
        action()
        return
    _watch.waiting.append(action)
    if len(_watch.waiting) == 1:  # else the thread for the first one sees to it; two collections never run at once
        _begin()


def _begin() -> None:
    try:
        _thread.start_new_thread(settle, ())  # threading's own would take a lock
    except RuntimeError:  # the interpreter is ending, and nobody else holds anything
        _end_all()


def settle() -> None:
    """Do what is waiting, and wait for the thread that is doing so."""
    with _watch.working:
        try:
            _end_all()
        finally:
            if _watch.waiting:  # an action has raised; the others are done all the same
                _begin()


def _end_all() -> None:
    waiting = _watch.waiting
    while waiting:
        with contextlib.suppress(IndexError):
            waiting.popleft()()
