"""The bundled price table.

`snapshot.txt` beside this file is written by `python -m tollspan.prices.build`; its data comes from LiteLLM (MIT, see
`LICENSE.litellm`) and from `corrections.toml`.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock
from typing import Final

from tollspan.prices.table import PriceTable
from tollspan.runtime.resources import folder

PATH: Final = Path(__file__).with_name("snapshot.txt")

_lock = Lock()
_table: PriceTable | None = None


def _fresh() -> None:
    """Create a new lock: in a forked child, the thread that held it does not exist."""
    global _lock  # noqa: PLW0603 - of the whole process, as the table is
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh)


def bundled() -> PriceTable:
    """Return the bundled table; the first call of the process reads the file."""
    global _table  # noqa: PLW0603 - one table per process, as the docstring promises
    if _table is None:
        with _lock:
            if _table is None:
                _table = PriceTable.parse(folder(__package__).joinpath(PATH.name).read_bytes())
    return _table
