"""Children that tests fork."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def child_finds(true: Callable[[], bool]) -> bool:
    """Fork, and tell what the child found."""
    child = os.fork()
    if child == 0:
        found = False
        try:
            found = true()
        finally:
            os._exit(0 if found else 1)
    return os.waitpid(child, 0)[1] == 0
