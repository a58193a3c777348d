"""The price table that comes with the package.

`snapshot.txt` beside this file is made by `python -m tollspan.prices.build`; its data come from LiteLLM (MIT, see
`LICENSE.litellm`) and from `corrections.toml`.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Final

from tollspan.prices.table import PriceTable

PATH: Final = Path(__file__).with_name("snapshot.txt")

_lock: Final = Lock()
_table: PriceTable | None = None


def bundled() -> PriceTable:
    """Give the bundled table. The first call reads the file, once for the whole process; every later one is free."""
    global _table  # noqa: PLW0603 - one table per process, as the docstring promises
    if _table is None:
        with _lock:
            if _table is None:
                _table = PriceTable.parse(PATH.read_bytes())
    return _table
