"""Tables of single calls: of all sorts, and of those that budgets refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tollspan.budget.denials.denial import amount, noun, rounded_down, rounded_up
from tollspan.budget.denials.explanation import by
from tollspan.cli.tables import table, written
from tollspan.cli.times import shown
from tollspan.model.records import DENIED, UNCERTAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from tollspan.ledger.queries import Kept
    from tollspan.model.records import Call
    from tollspan.model.refusal import Refusal


def calls_table(out: Console, calls: Sequence[Kept]) -> None:
    """Print a table with one row for each call."""
    result = table(
        ("number", "when (UTC)", "provider", "model", "outcome", "input", "output", "first token", "s", "cost"), 5
    )
    for kept in calls:
        call, usage = kept.call, None if kept.call.counted == "pending" else kept.call.usage
        mark = "~" if call.usage_quality in UNCERTAIN else ""
        result.add_row(
            str(kept.n),
            shown(call.started_at),
            call.provider,
            call.model or "?",
            _outcome(call),
            "" if usage is None else f"{mark}{usage.input or 0:,}",
            "" if usage is None else f"{mark}{usage.output or 0:,}",
            "" if call.time_to_first_token is None else f"{call.time_to_first_token:.2f}",
            "" if call.outcome == DENIED else f"{call.duration:.2f}",
            _cost(kept),
        )
    out.print(result)


def _outcome(call: Call) -> str:
    if call.outcome == DENIED:
        return DENIED if call.refusal is None else f"{DENIED} by {by(call.refusal)}"
    return call.outcome if call.error_type is None else f"{call.outcome} {call.error_type}"


def _cost(kept: Kept) -> str:
    call, cost = kept.call, kept.call.cost
    if call.counted == "pending":
        requests = "" if call.usage is None else f"{call.usage.units.get('requests', 0):,} requests, "
        return f"{requests}{'settled' if kept.settled else 'pending'}"
    if call.outcome == DENIED:
        return "not sent"
    return "unpriced" if cost.amount is None else written(cost.amount, exact=cost.quality not in UNCERTAIN)


def refusals_table(out: Console, calls: Sequence[Kept]) -> None:
    """Print a table with one row for each call that a budget refused."""
    result = table(
        ("number", "when (UTC)", "provider", "model", "refused by", "reason", "needed", "left", "limit", "held"), 6
    )
    for kept in calls:
        call, refusal = kept.call, kept.call.refusal
        cells = ("not recorded", "", "", "", "", "") if refusal is None else _refusal_cells(refusal)
        result.add_row(str(kept.n), shown(call.started_at), call.provider, call.model or "?", *cells)
    out.print(result)


def _refusal_cells(refusal: Refusal) -> tuple[str, ...]:
    unit, limit = refusal.unit or "", refusal.limit
    return (
        by(refusal),
        refusal.reason,
        "" if refusal.requested is None else rounded_up(refusal.requested, unit),
        "" if refusal.left is None else rounded_down(refusal.left, unit),
        "" if limit is None else amount(limit, unit, limit=True) + noun(unit),
        rounded_up(refusal.held, unit) if refusal.held else "",
    )
