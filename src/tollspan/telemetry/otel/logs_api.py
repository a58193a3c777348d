"""Whether OpenTelemetry's logs API can be used, and its global provider, without importing that API for it."""

from __future__ import annotations

import sys
from typing import Any, Final

OLDEST: Final = (1, 37)
"""The first version of opentelemetry-api and -sdk in which records of the API can be emitted as events."""

_PACKAGE: Final = "opentelemetry._logs"


def supported() -> bool:
    """Return whether the installed OpenTelemetry accepts events, and has the API where `log_records` imports it."""
    from importlib.metadata import version  # these two take long to load: only if events are on
    from importlib.util import find_spec

    installed = tuple(int(part) for part in version("opentelemetry-api").split(".")[:2])
    return installed >= OLDEST and find_spec(_PACKAGE) is not None


def loaded_logger_provider() -> Any:
    """Return the global LoggerProvider, or None if nothing in this process has imported the logs API yet."""
    logs = sys.modules.get(_PACKAGE)
    return None if logs is None else logs.get_logger_provider()
