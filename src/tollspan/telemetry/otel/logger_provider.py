"""The global LoggerProvider, without importing the logs API for it."""

from __future__ import annotations

import sys
from typing import Any, Final

_LOGS: Final = "opentelemetry._logs"


def loaded_logger_provider() -> Any:
    """Return the global LoggerProvider, or None if nothing in this process has imported the logs API yet."""
    logs = sys.modules.get(_LOGS)
    return None if logs is None else logs.get_logger_provider()
