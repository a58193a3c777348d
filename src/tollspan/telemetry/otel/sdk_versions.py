"""The versions of the OpenTelemetry SDK whose insides have been read, so that a call's end may go past its public API.

`points.py` and `attributes.py` do, where the SDK checks again what was checked before: much of a call's time would go
there. In a version that nobody has read, both do everything by the public API.
"""

from __future__ import annotations

import re
from types import FunctionType
from typing import Final

from opentelemetry.sdk.version import __version__  # not when it is asked for: the end of a call loads nothing

READ: Final = ((1, 30, 0), (1, 45, 2))
"""The first and the last version in which `Histogram.record` and `Span.set_attributes` do what is done past them."""


def is_read() -> bool:
    """Return whether the SDK that is installed is one of these."""
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", __version__)
    first, last = READ
    return found is not None and first <= tuple(map(int, found.groups())) <= last


def is_own(method: object, module: str) -> bool:
    """Return whether a method is the one that a module of the SDK defines: nobody has put another in its place."""
    return type(method) is FunctionType and method.__globals__["__name__"] == module
