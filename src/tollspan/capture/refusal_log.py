"""The calls that budgets refused: counted for the summary at the end, and written for `tollspan run`."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tollspan.model.refusal import RefusedCalls, RefusedTally
from tollspan.model.text import as_text
from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tollspan.model.refusal import Refusal


class RefusalLog:
    """Counts refused calls, and writes a line for each to a file; a forked child starts at zero."""

    def __init__(self, path: str | None) -> None:
        """Write to the file at `path`, which `tollspan run` reads at the end; None = only count."""
        self._path = path
        self._clear()
        renew_in_child(self, RefusalLog._clear)

    def _clear(self) -> None:
        self._tally = RefusedTally()

    def add(self, refusal: Refusal) -> None:
        """Count a refused call, and write it down.

        A line is for people up to its last column, which has the whole record as JSON.
        """
        self._tally.add(RefusedCalls.one(refusal))
        if self._path is None:
            return
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        columns = (now, str(os.getpid()), as_text(refusal.budget), refusal.reason, json.dumps(refusal.as_data()))
        with suppress(OSError), Path(self._path).open("a", encoding="utf-8") as file:
            file.write("\t".join(columns) + "\n")

    @property
    def calls(self) -> Sequence[RefusedCalls]:
        """Return the refused calls by budget and reason, the most often refused first."""
        return self._tally.calls
