"""`tollspan prune` and `tollspan reset`: old rows go, and a session's summary begins anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tollspan.cli.budget import reset_budgets, store_option
from tollspan.cli.ledger_options import with_ledger
from tollspan.cli.times import WhenType, shown
from tollspan.ledger.pruning import OLD, compact
from tollspan.ledger.pruning import prune as delete
from tollspan.ledger.queries import Ledger, Where
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
    help="Delete calls from before then: 90d, 12w, 2026-01-01 (m is minutes).",
)
@click.option(
    "--totals", is_flag=True, help="Delete their totals too; without it inspect still knows what they came to."
)
@click.option(
    "--compact", "squeeze", is_flag=True, help="Give the space back to the disk; programs that write wait meanwhile."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(path: Path, before: int, *, totals: bool, squeeze: bool, yes: bool) -> None:
    r"""Delete the rows of old calls from the ledger. What is still pending stays.

    \b
    Example:
      tollspan prune --before 90d
    """
    with Ledger(path) as ledger:
        ask = f"SELECT count(*) FROM calls WHERE {OLD}"  # noqa: S608 - our own words
        (count,) = ledger.db.execute(ask, (before,)).fetchone()
    if count and not yes:
        click.confirm(f"Delete {many(count, 'call')} from before {shown(before)} UTC from {path}?", abort=True)
    deleted = delete(path, before, totals=totals)
    if squeeze:
        compact(path)
    click.echo(f"{many(deleted, 'call')} deleted; their totals are {'deleted too' if totals else 'kept'}")


@click.command()
@with_ledger
@store_option
@click.argument("session")
def reset(path: Path, session: str, store_text: str | None) -> None:
    r"""Have SESSION begin anew: its summary in programs that run and in tollspan top, its status line, its budgets.

    The calls stay in the ledger, and inspect shows them. Budgets are those kept for this session alone, by their period
    or by `per`.

    \b
    Example:
      tollspan reset chat-17
    """
    counters = reset_budgets(session, store_text)
    try:
        _reset_summary(path, session)
    except LedgerError as error:
        if not counters:
            raise
        click.echo(f"{error}; only its budgets begin anew", err=True)
    budgets = f" ({many(counters, 'budget')} too)" if counters else ""
    click.echo(f"session {session} begins anew{budgets}")


def _reset_summary(path: Path, session: str) -> None:
    with Ledger(path) as ledger:
        if ledger.figures(Where(session=session)).last_n is None:
            raise LedgerError(f"ledger {path}: no calls of session {session!r}", "unknown")
    reset_session(path, session)
