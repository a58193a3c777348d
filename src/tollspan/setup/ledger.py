"""Puts the ledger in its place: `start(recorder)` has calls written where the settings say, `stop(recorder)` ends that.

What is waiting is written when the process ends, in children of multiprocessing too. On AWS Lambda, where the
environment is frozen between two invocations, everything is flushed after the answer of each was sent.
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
    """Have every call written into the ledger, where there is one."""
    path = ledger_path(recorder.settings)
    if path is None:
        return
    from tollspan.ledger.resets import ResetWatcher  # these two where there is a ledger: SQLite takes long to load
    from tollspan.ledger.writer import Writer

    settings = recorder.settings
    given = {"session": settings.session, "run": settings.run_id}
    defaults = {name: value for name, value in given.items() if value is not None}
    recorder.live.shared = True
    news = ResetWatcher(path, recorder.live.reset, recorder.live.heard)
    count = recorder.accumulator.count_error
    writer = Writer(path, count, durability=settings.durability, defaults=defaults, news=news)
    recorder.ledger, recorder.news = writer, news
    recorder.views.append(("ledger", writer.add))
    _finishes.append(functools.partial(_finish, recorder, writer))
    shutdown.before_end(_finishes[-1])


def stop(recorder: Recorder) -> None:
    """Write what is waiting, and let go of the file; calls under way are written as they end, by who ends them."""
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
            flush(shutdown.GRACE)
        except Exception:
            log.exception("tollspan could not flush; the invocation itself is not affected")
        return wait(*args, **kwargs)

    client.wait_next_invocation = wait_next_invocation
