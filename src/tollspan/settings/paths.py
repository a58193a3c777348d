"""Paths in settings: `absolute(name, value, folder)` makes them absolute when they are read.

Where the program goes afterwards (`os.chdir`, a daemon, a child that is started elsewhere) does not change where calls
are counted and written. A path in a file is relative to that file; any other is relative to the current directory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

PATHS: Final = frozenset({"budget_store", "ledger", "pricing_path", "refusals", "summary_json"})
"""The settings that are, or may contain, a path."""

_SQLITE: Final = "sqlite"
_WORDS: Final = frozenset({"on", "off"})


def absolute(name: str, value: Any, folder: str | None = None) -> Any:
    """Return the value of a setting with an absolute path, if it has a path; others as they are.

    Args:
        name: the setting.
        value: its value, as it was read.
        folder: what a path is relative to; the current directory by default.
    """
    if name == "budget_store":
        store, colon, path = value.partition(":")
        path = path.removeprefix("//")
        if store.lower() != _SQLITE or not colon or path in {"", ":memory:"}:
            return value
        return f"{_SQLITE}:{_absolute(path, folder)}"
    if name not in PATHS or value is None or (name == "ledger" and value in _WORDS):
        return value
    return _absolute(value, folder)


def folder_of(path: Path) -> str:
    """Return the folder of a file, absolute."""
    return os.path.dirname(_absolute(str(path), None))  # noqa: PTH120 - as below


def _absolute(path: str, folder: str | None) -> str:
    path = os.path.expanduser(path)  # noqa: PTH111 - pathlib raises if it does not know the user
    if os.path.isabs(path):  # noqa: PTH117 - a null character is a text like another here
        return path
    try:
        return os.path.join(os.getcwd() if folder is None else folder, path)  # noqa: PTH109, PTH118 - as above
    except OSError:  # the current directory was deleted: nothing relative can be opened
        return path
