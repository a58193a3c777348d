"""The size of recent responses' conversations in a ledger, so that a request that continues one can be bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.ledger.schema import FAILURES, explain, opened

if TYPE_CHECKING:
    from pathlib import Path

NEWEST: Final = 2000
"""Calls that are read: some milliseconds."""
_PATIENCE: Final = 0.2
"""Seconds to wait for a process that creates or migrates the file."""


def recent_responses(path: Path) -> list[tuple[str, int]]:
    """Return id and size of the newest responses whose usage was measured, oldest first; the size is in tokens.

    Raises:
        LedgerError: the file is missing, or cannot be read.
    """
    query = (
        "SELECT response_id, input_tokens + coalesce(output_tokens, 0) FROM calls "
        "WHERE response_id IS NOT NULL AND input_tokens IS NOT NULL AND billable "
        "AND quality IN ('measured', 'provider') AND n > (SELECT coalesce(max(n), 0) FROM calls) - ? ORDER BY n"
    )
    with opened(path, write=False, patience=_PATIENCE) as db:
        try:
            return [(response, size) for response, size in db.execute(query, (NEWEST,))]
        except FAILURES as error:
            raise explain(error, path) from None
