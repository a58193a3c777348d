"""Call events: `start(recorder, scope, logger_provider)` emits each call as a log event, `stop(recorder)` ends that.

Events go to the application's own LoggerProvider, or to the one that `tollspan run` and `opentelemetry-instrument` set
up. The SDK exports them in a thread of its own. What is left is exported when the process ends, on signals too.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Final

from tollspan.setup import shutdown
from tollspan.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.capture.recorder import Recorder
    from tollspan.telemetry.otel.log_records import LoggerProvider

log = logging.getLogger("tollspan")

_finishes: Final[list[Callable[[], None]]] = []


def start(recorder: Recorder, scope: str, logger_provider: LoggerProvider | None = None) -> None:
    """Emit every call as an event, if the settings ask for it.

    Args:
        recorder: the recorder of the calls.
        scope: the instrumentation scope of the events.
        logger_provider: where they go; the global LoggerProvider by default.
    """
    settings = recorder.settings
    if not settings.events:
        return
    from tollspan.telemetry.otel import logs_api  # these three only if events are on

    if not logs_api.supported():
        needed = ".".join(map(str, logs_api.OLDEST))
        log.warning("call events are disabled: they require opentelemetry-api and -sdk %s or newer", needed)
        return
    from tollspan.telemetry.events import Events
    from tollspan.telemetry.otel import log_records

    logger = log_records.get_logger(scope, __version__, logger_provider)
    recorder.views.append(("events", Events(logger, settings.default_attribution()).add))
    _finishes.append(functools.partial(_finish, recorder, lambda: logger_provider or log_records.get_logger_provider()))
    shutdown.before_end(_finishes[-1])


def stop(_: Recorder) -> None:
    """Do not wait at the end of the process any more; calls that are running are emitted when they end."""
    while _finishes:
        shutdown.forget(_finishes.pop())


def _finish(recorder: Recorder, provider: Callable[[], LoggerProvider]) -> None:
    recorder.end_open_attempts()
    flush = getattr(provider(), "force_flush", None)
    if flush is not None:
        flush(round(shutdown.GRACE * 1000))
