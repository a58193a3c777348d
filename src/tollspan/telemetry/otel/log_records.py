"""OpenTelemetry's logs API, which still has a private name (`opentelemetry._logs`), for the events of calls.

Importing this module imports that API: `logs_api.supported()` says before whether it can be used.
"""

from __future__ import annotations

from opentelemetry._logs import (
    Logger,
    LoggerProvider,
    LogRecord,
    SeverityNumber,
    get_logger,
    get_logger_provider,
)

__all__ = [
    "LogRecord",
    "Logger",
    "LoggerProvider",
    "SeverityNumber",
    "get_logger",
    "get_logger_provider",
]
