"""A board as JSON values, for `tollspan top --json` and for the page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tollspan.budget.denials.explanation import refused_line
from tollspan.cli.live.board import SECOND
from tollspan.cli.reports.inspect import as_data
from tollspan.model.money import usd
from tollspan.model.records import DENIED
from tollspan.model.refusal import Refusal

if TYPE_CHECKING:
    from tollspan.budget.api import Status
    from tollspan.cli.live.board import Board
    from tollspan.ledger.queries import Kept


def data_of(board: Board) -> dict[str, Any]:
    """Return a board as JSON values; amounts are exact decimal strings in US dollars."""
    return {
        "at": datetime.fromtimestamp(board.at / SECOND, UTC).isoformat(timespec="milliseconds"),
        "scope": board.scope,
        "waiting": board.waiting,
        "read": round(board.read, 3),
        "total": as_data(board.total),
        "calls_per_minute": board.calls_per_minute,
        "usd_per_hour": f"{usd(board.spend_per_hour):f}",
        "models": [
            {"provider": group.key[0], "model": group.key[1], **as_data(group.figures)} for group in board.models
        ],
        "tiers": {
            name: [{"value": value, **as_data(figures)} for value, figures in by_value.items()]
            for name, by_value in board.tiers.items()
        },
        "budgets": [_budget(item) for item in board.budgets],
        "budgets_unknown": board.budgets_unknown,
        "refused": [{"calls": calls.count, "text": refused_line(calls)} for calls in board.refused],
        "calls": [_call(kept) for kept in board.calls],
    }


def _budget(item: Status) -> dict[str, Any]:
    amounts = ("limit", "spent", "uncertain", "reserved", "remaining")
    values = {name: None if getattr(item, name) is None else str(getattr(item, name)) for name in amounts}
    return {
        "budget": item.budget,
        "counter": item.counter,
        "unit": item.unit,
        "utilization": item.utilization,
        **values,
    }


def _call(kept: Kept) -> dict[str, Any]:
    call, usage = kept.call, kept.call.usage
    return {
        "number": kept.n,
        "at": datetime.fromtimestamp(call.started_at / SECOND, UTC).isoformat(timespec="milliseconds"),
        "provider": call.provider,
        "model": call.model,
        "operation": call.operation,
        "outcome": call.outcome,
        "error": call.error_type,
        "billable": call.billable,
        "pending": call.counted == "pending" and not kept.settled,
        "input": None if usage is None else usage.input,
        "output": None if usage is None else usage.output,
        "cache_read": None if usage is None else usage.cache_read,
        "cost_usd": None if call.cost.amount is None else f"{usd(call.cost.amount):f}",
        "quality": call.cost.quality,
        "first_token_seconds": call.time_to_first_token,
        "seconds": None if call.outcome == DENIED else call.duration,
        "refusal": None if call.refusal is None else dict.fromkeys(Refusal.__slots__) | call.refusal.as_data(),
    }
