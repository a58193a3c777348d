"""OpenTelemetry's logs API, which still has a private name (`opentelemetry._logs`), for the events of calls.

Importing this module imports that API. Before that, `loaded_logger_provider()` of `logger_provider.py` can be used.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from opentelemetry._logs import (
    Logger,
    LoggerProvider,
    LogRecord,
    SeverityNumber,
    get_logger,
    get_logger_provider,
)

__all__ = [
    "OLDEST",
    "LogRecord",
    "Logger",
    "LoggerProvider",
    "SeverityNumber",
    "get_logger",
    "get_logger_provider",
    "supported",
]

OLDEST: Final = (1, 37)
"""The first version of opentelemetry-api and -sdk in which records of the API can be emitted as events."""


def supported() -> bool:
    """Return whether the installed OpenTelemetry accepts events."""
    return tuple(int(part) for part in version("opentelemetry-api").split(".")[:2]) >= OLDEST
