"""Files that only their owner can read: what they hold names users, sessions and spending."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def make_private(path: Path) -> None:
    """Create an empty file, and the folders above it, that only their owner can open; an existing one stays as it is.

    SQLite gives the files that it puts beside a database the mode of the database.

    Raises:
        OSError: a folder or the file cannot be created.
    """
    if path.exists():
        return
    for folder in reversed(path.parents):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
