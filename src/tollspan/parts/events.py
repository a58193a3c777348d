"""Has calls emitted as log events, where settings ask for it: `start(recorder, logger_provider)`, `stop(recorder)`.

Events go to the application's own LoggerProvider, or to the one that `tollspan run` and `opentelemetry-instrument` set
up. The SDK exports them in a thread of its own, and writes out the rest when the process ends.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from opentelemetry._logs import get_logger

from tollspan.telemetry import events
from tollspan.version import __version__

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider

    from tollspan.attempts.recorder import Recorder

log = logging.getLogger("tollspan")

_VIEW: Final = "events"


def start(recorder: Recorder, scope: str, logger_provider: LoggerProvider | None = None) -> None:
    """Emit every call as an event of the instrumentation scope `scope`; by default to the global LoggerProvider."""
    settings = recorder.settings
    if not settings.events:
        return
    if not events.supported():
        needed = ".".join(map(str, events.OLDEST))
        log.warning("no events of calls are sent: they need opentelemetry-api and -sdk %s or newer", needed)
        return
    given = {"session": settings.session, "run": settings.run_id}
    defaults = {name: value for name, value in given.items() if value is not None}
    recorder.views.append((_VIEW, events.Events(get_logger(scope, __version__, logger_provider), defaults).add))


def stop(recorder: Recorder) -> None:
    """Emit no more."""
    recorder.views[:] = [view for view in recorder.views if view[0] != _VIEW]
