"""What models have written in the calls of a ledger, so that budgets do not begin without experience."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tollspan.ledger.schema import FAILURES, explain, opened

if TYPE_CHECKING:
    from pathlib import Path

NEWEST: Final = 2000
"""Calls that are read: some milliseconds."""
_PATIENCE: Final = 0.2
"""Seconds to wait for a process that creates or migrates the file."""


class Output(NamedTuple):
    """The output tokens of one call that was answered to its end."""

    provider: str
    operation: str
    model: str
    tokens: int


def recent_outputs(path: Path) -> list[Output]:
    """Return the output of the newest calls whose usage was measured, oldest first.

    Raises:
        LedgerError: the file is missing, or cannot be read.
    """
    query = (
        "SELECT provider, operation, coalesce(request_model, ''), output_tokens FROM calls "
        "WHERE outcome = 'ok' AND billable AND quality IN ('measured', 'provider') AND output_tokens IS NOT NULL "
        "AND n > (SELECT coalesce(max(n), 0) FROM calls) - ? ORDER BY n"
    )
    with opened(path, write=False, patience=_PATIENCE) as db:
        try:
            return [Output(*row) for row in db.execute(query, (NEWEST,))]
        except FAILURES as error:
            raise explain(error, path) from None
