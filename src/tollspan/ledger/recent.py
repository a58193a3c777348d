"""What the newest calls of a ledger were like, so that budgets do not begin without experience.

    recent_outputs(path)   -> what models have written
    recent_responses(path) -> the size of conversations, so that a request that continues one can be bounded

Only calls whose usage was measured are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

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
    """Return the output of the newest calls, oldest first.

    Raises:
        LedgerError: the file is missing, or cannot be read.
    """
    columns = "provider, operation, coalesce(request_model, ''), output_tokens"
    return [Output(*row) for row in _newest(path, columns, "outcome = 'ok' AND output_tokens IS NOT NULL")]


def recent_responses(path: Path) -> list[tuple[str, int]]:
    """Return id and size of the newest responses, oldest first; the size is in tokens.

    Raises:
        LedgerError: the file is missing, or cannot be read.
    """
    columns = "response_id, input_tokens + coalesce(output_tokens, 0)"
    return _newest(path, columns, "response_id IS NOT NULL AND input_tokens IS NOT NULL")


def _newest(path: Path, columns: str, condition: str) -> list[tuple[Any, ...]]:
    """Return columns of the newest billed and measured calls that meet a condition, both as SQL of this module."""
    query = (
        f"SELECT {columns} FROM calls WHERE {condition} AND billable AND quality IN ('measured', 'provider') "  # noqa: S608
        "AND n > (SELECT coalesce(max(n), 0) FROM calls) - ? ORDER BY n"
    )
    with opened(path, write=False, patience=_PATIENCE) as db:
        try:
            return db.execute(query, (NEWEST,)).fetchall()
        except FAILURES as error:
            raise explain(error, path) from None
