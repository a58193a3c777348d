"""The ledger of a process: `start(recorder)` writes calls to the file of the settings, `stop(recorder)` ends that.

What is waiting is written when the process ends, in children of multiprocessing too. On AWS Lambda, where the
environment is frozen between two invocations, everything is flushed after the response of each was sent.
"""

from __future__ import annotations

import functools
import importlib
import logging
from typing import TYPE_CHECKING, Any, Final

from tollspan.settings import ledger_path, on_lambda
from tollspan.setup import shutdown

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.capture.recorder import Recorder
    from tollspan.ledger.writer import Writer

log = logging.getLogger("tollspan")

_finishes: Final[list[Callable[[], None]]] = []


def start(recorder: Recorder) -> None:
    """Write every call to the ledger, if the settings name one."""
    path = ledger_path(recorder.settings)
    if path is None:
        return
    from tollspan.ledger.resets import ResetWatcher  # these two only if there is a ledger: SQLite takes long to load
    from tollspan.ledger.writer import Writer

    settings = recorder.settings
    recorder.live.shared = True
    news = ResetWatcher(path, recorder.live.reset_written, recorder.live.written)
    count = recorder.accumulator.count_error
    defaults = settings.default_attribution()
    writer = Writer(path, count, durability=settings.durability, defaults=defaults, news=news)
    recorder.ledger, recorder.news = writer, news
    recorder.views.append(("ledger", writer.add))
    _finishes.append(functools.partial(_finish, recorder, writer))
    shutdown.before_end(_finishes[-1])


def stop(recorder: Recorder) -> None:
    """Write what is waiting and release the file. A call that is still running writes itself when it ends."""
    writer, recorder.ledger = recorder.ledger, None
    recorder.news = None
    if writer is not None:
        writer.close()
        shutdown.forget(_finishes.pop())


def _finish(recorder: Recorder, writer: Writer) -> None:
    if recorder.ledger is writer:
        recorder.end_open_attempts()
        writer.close()


def flush_after_invocations(flush: Callable[[float], bool]) -> None:
    """On AWS Lambda, flush before the runtime waits for the next invocation: the last response is sent by then."""
    if not on_lambda():
        return
    try:
        client: Any = importlib.import_module("awslambdaric.lambda_runtime_client").LambdaRuntimeClient
    except (ImportError, AttributeError):
        log.warning("unsupported Lambda runtime client: call tollspan.flush() at the end of your handler")
        return
    if hasattr(client.wait_next_invocation, "__wrapped__"):
        return
    wait = client.wait_next_invocation

    @functools.wraps(wait)
    def wait_next_invocation(*args: Any, **kwargs: Any) -> Any:
        try:
            flush(shutdown.GRACE)
        except Exception:
            log.exception("tollspan could not flush; your invocation was not affected")
        return wait(*args, **kwargs)

    client.wait_next_invocation = wait_next_invocation
