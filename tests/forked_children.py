"""Children that tests fork."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

_WHERE_IT_CAN: Final = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
_THOUGH_THERE_ARE_THREADS: Final = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def forks(test: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a test that forks: it runs where that can be done, and Python 3.12's warning of threads is no failure."""
    marked: Callable[..., Any] = _WHERE_IT_CAN(_THOUGH_THERE_ARE_THREADS(test))
    return marked


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
