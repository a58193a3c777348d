"""Has calls emitted as log events, where settings ask for it: `start(recorder, logger_provider)`, `stop(recorder)`.

Events go to the application's own LoggerProvider, or to the one that `tollspan run` and `opentelemetry-instrument` set
up. The SDK exports them in a thread of its own; what is left is exported when the process ends, on signals too.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Final

from tollspan.setup import shutdown
from tollspan.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry._logs import LoggerProvider

    from tollspan.capture.recorder import Recorder

log = logging.getLogger("tollspan")

_finishes: Final[list[Callable[[], None]]] = []


def start(recorder: Recorder, scope: str, logger_provider: LoggerProvider | None = None) -> None:
    """Emit every call as an event of the instrumentation scope `scope`; by default to the global LoggerProvider."""
    settings = recorder.settings
    if not settings.events:
        return
    from opentelemetry._logs import get_logger, get_logger_provider  # both where events are asked for

    from tollspan.telemetry import events

    if not events.supported():
        needed = ".".join(map(str, events.OLDEST))
        log.warning("no events of calls are sent: they need opentelemetry-api and -sdk %s or newer", needed)
        return
    given = {"session": settings.session, "run": settings.run_id}
    defaults = {name: value for name, value in given.items() if value is not None}
    recorder.views.append(("events", events.Events(get_logger(scope, __version__, logger_provider), defaults).add))
    _finishes.append(functools.partial(_finish, recorder, lambda: logger_provider or get_logger_provider()))
    shutdown.before_end(_finishes[-1])


def stop(_: Recorder) -> None:
    """Wait for nothing at the end; calls under way are emitted as they end."""
    while _finishes:
        shutdown.forget(_finishes.pop())


def _finish(recorder: Recorder, provider: Callable[[], LoggerProvider]) -> None:
    recorder.end_open_attempts()
    flush = getattr(provider(), "force_flush", None)
    if flush is not None:
        flush(round(shutdown.GRACE * 1000))
