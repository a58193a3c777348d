"""Puts the ledger in its place: `start(recorder)` has calls written where the settings say, `stop(recorder)` ends that.

What is waiting is written when the process ends: at its normal end, in children of multiprocessing, and on SIGTERM and
SIGHUP as long as the application leaves these to the system. On AWS Lambda, where the environment is frozen between two
invocations, everything is flushed after the answer of each was sent.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from tollspan.ledger.resets import News
from tollspan.ledger.writer import Writer
from tollspan.settings import ledger_path, on_lambda

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tollspan.attempts.recorder import Recorder

log = logging.getLogger("tollspan")

_ENDING: Final = ("SIGTERM", "SIGHUP")
_handlers: Final[dict[int, Callable[[int, FrameType | None], None]]] = {}
_GRACE: Final = 2.0
"""Seconds that the end of a process, or of an invocation, waits for the ledger at most."""


def start(recorder: Recorder) -> None:
    """Have every call written into the ledger, where there is one."""
    path = ledger_path(recorder.settings)
    if path is None:
        return
    settings = recorder.settings
    given = {"session": settings.session, "run": settings.run_id}
    defaults = {name: value for name, value in given.items() if value is not None}
    writer = Writer(path, recorder.accumulator.count_error, durability=settings.durability, defaults=defaults)
    recorder.ledger, recorder.news = writer, News(path)
    recorder.views.append(("ledger", writer.add))
    finish = functools.partial(_finish, recorder, writer)
    atexit.register(finish)
    _finish_on_signals(finish)


def stop(recorder: Recorder) -> None:
    """Write what is waiting, and write no more."""
    writer, recorder.ledger = recorder.ledger, None
    recorder.news = None
    if writer is not None:
        recorder.views[:] = [view for view in recorder.views if view[0] != "ledger"]
        writer.close()
        _leave_signals()


def _finish(recorder: Recorder, writer: Writer) -> None:
    if recorder.ledger is writer:
        recorder.end_open_attempts()
        writer.close()


def _finish_on_signals(finish: Callable[[], None]) -> None:
    """Write before a signal ends the process; a handler that the application sets takes the place of this one."""
    if threading.current_thread() is not threading.main_thread():
        return  # only the main thread may set handlers
    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            _handlers[number] = functools.partial(_end, finish)
            signal.signal(number, _handlers[number])


def _leave_signals() -> None:
    """Give the signals back to the system, where their handlers are still ours."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in _handlers.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, signal.SIG_DFL)
        _handlers.clear()


def _end(finish: Callable[[], None], number: int, _frame: FrameType | None) -> None:
    # A thread, for what the signal interrupted may hold a lock that is needed now.
    thread = threading.Thread(target=finish, name="tollspan-end", daemon=True)
    try:
        thread.start()
        thread.join(_GRACE)
    finally:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # and so the process ends as it would have without us


def flush_after_invocations(flush: Callable[[float], bool]) -> None:
    """On AWS Lambda, flush before the runtime asks for the next invocation: the last answer is out by then."""
    if not on_lambda():
        return
    try:
        client: Any = importlib.import_module("awslambdaric.lambda_runtime_client").LambdaRuntimeClient
    except (ImportError, AttributeError):
        log.warning("the Lambda runtime is not known to tollspan: call tollspan.flush() at the end of your handler")
        return
    if hasattr(client.wait_next_invocation, "__wrapped__"):
        return
    wait = client.wait_next_invocation

    @functools.wraps(wait)
    def wait_next_invocation(*args: Any, **kwargs: Any) -> Any:
        try:
            flush(_GRACE)
        except Exception:
            log.exception("tollspan could not flush; the invocation itself is not affected")
        return wait(*args, **kwargs)

    client.wait_next_invocation = wait_next_invocation
