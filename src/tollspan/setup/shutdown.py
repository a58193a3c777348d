"""What runs before the process ends: `before_end(finish)` registers a function, `forget(finish)` removes it again.

Functions run at the normal end of the process, and on SIGTERM and SIGHUP if the application leaves those to the system.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

GRACE: Final = 2.0
"""Seconds that the end of a process, or of an invocation, waits at most."""

_ENDING: Final = ("SIGTERM", "SIGHUP")
_finishes: Final[list[Callable[[], None]]] = []
_handled: Final[list[int]] = []


def before_end(finish: Callable[[], None]) -> None:
    """Call `finish` when the process ends."""
    _finishes.append(finish)
    atexit.register(finish)
    _handle_signals()


def forget(finish: Callable[[], None]) -> None:
    """Do not call `finish`; the system gets its signals back if no function is left."""
    atexit.unregister(finish)
    _finishes[:] = [kept for kept in _finishes if kept is not finish]
    if not _finishes:
        _leave_signals()


def _handle_signals() -> None:
    """Finish before a signal ends the process; a handler that the application sets replaces this one."""
    if threading.current_thread() is not threading.main_thread():
        return  # only the main thread may set handlers
    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
            _handled.append(number)


def _leave_signals() -> None:
    """Return the signals to the system, if their handlers are still ours."""
    if threading.current_thread() is threading.main_thread():
        for number in _handled:
            if signal.getsignal(number) is _end:
                signal.signal(number, signal.SIG_DFL)
        _handled.clear()


def _finish_all() -> None:
    for finish in tuple(_finishes):
        finish()


def _end(number: int, _frame: FrameType | None) -> None:
    # In a thread: the code that the signal interrupted may hold a lock that is needed now.
    thread = threading.Thread(target=_finish_all, name="tollspan-end", daemon=True)
    try:
        thread.start()
        thread.join(GRACE)
    finally:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # so the process ends as it would have ended without tollspan
