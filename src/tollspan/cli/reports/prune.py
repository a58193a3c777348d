"""`tollspan prune` deletes old rows of the ledger; `tollspan reset` resets the totals and budgets of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tollspan.attribution import kept
from tollspan.cli.budget import reset_budgets, store_option
from tollspan.cli.ledger_options import with_ledger
from tollspan.cli.times import WhenType, shown
from tollspan.ledger.conditions import Where
from tollspan.ledger.pruning import OLD, compact
from tollspan.ledger.pruning import prune as delete
from tollspan.ledger.queries import Ledger
from tollspan.ledger.resets import reset_session
from tollspan.model.errors import LedgerError
from tollspan.model.text import many

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@with_ledger
@click.option(
    "--before",
    type=WhenType(),
    required=True,
    metavar="WHEN",
    help="Delete calls older than this: 90d, 12w, 2026-01-01 (m is minutes).",
)
@click.option(
    "--totals", is_flag=True, help="Delete their totals too.  [default: keep them, so that inspect still counts them]"
)
@click.option("--compact", "vacuum", is_flag=True, help="Compact the file (VACUUM); blocks writers meanwhile.")
@click.option("--yes", is_flag=True, help="Skip the confirmation.")
def prune(path: Path, before: int, *, totals: bool, vacuum: bool, yes: bool) -> None:
    r"""Delete the rows of old calls from the ledger. Pending calls are kept.

    \b
    Example:
      tollspan prune --before 90d
    """
    with Ledger(path) as ledger:
        query = f"SELECT count(*) FROM calls WHERE {OLD}"  # noqa: S608 - a constant
        (count,) = ledger.db.execute(query, (before,)).fetchone()
    if count and not yes:
        click.confirm(f"Delete {many(count, 'call')} from before {shown(before)} UTC from {path}?", abort=True)
    deleted = delete(path, before, totals=totals)
    if vacuum:
        compact(path)
    click.echo(f"deleted {many(deleted, 'call')}; their totals are {'deleted too' if totals else 'kept'}")


@click.command()
@with_ledger
@store_option
@click.argument("session")
def reset(path: Path, session: str, store_text: str | None) -> None:
    r"""Reset SESSION: its running totals, status line and budgets.

    The totals are those of running programs and of tollspan top. The calls stay in the ledger, and inspect shows them.
    Only budgets that count each session separately, by their period or by `per`, are reset.

    \b
    Example:
      tollspan reset chat-17
    """
    session = kept(session)  # as calls have it
    counters = reset_budgets(session, store_text)
    try:
        _reset_summary(path, session)
    except LedgerError as error:
        if not counters:
            raise
        click.echo(f"{error}; only its budgets are reset", err=True)
    budgets = f" and {many(counters, 'budget')}" if counters else ""
    click.echo(f"reset session {session}{budgets}")


def _reset_summary(path: Path, session: str) -> None:
    with Ledger(path) as ledger:
        if ledger.figures(Where(session=session)).last_n is None:
            raise LedgerError(f"ledger {path}: no calls of session {session!r}", "unknown")
    reset_session(path, session)
