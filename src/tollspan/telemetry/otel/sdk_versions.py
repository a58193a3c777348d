"""The versions of the OpenTelemetry SDK whose private parts were read, and which functions are the SDK's own.

In a version that was not read, the modules of this package use the SDK's public API only.
"""

from __future__ import annotations

import re
from types import FunctionType
from typing import Final

from opentelemetry.sdk.version import __version__  # imported here: the end of a call loads nothing

READ: Final = ((1, 30, 0), (1, 45, 2))
"""The first and the last version that was read."""


def is_read() -> bool:
    """Return whether the installed SDK is one of the versions that were read; previews are not."""
    numbers = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", __version__)
    first, last = READ
    return numbers is not None and first <= tuple(map(int, numbers.groups())) <= last


def is_own(method: object, module: str) -> bool:
    """Return whether a function is the one that the SDK's `module` defines, and not a replacement for it."""
    return type(method) is FunctionType and method.__globals__["__name__"] == module
