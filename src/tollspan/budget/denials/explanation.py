"""A refusal as text for people: `explained(refusal)` in rows, `refused_line(refused)` for several calls in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.budget.denials.denial import amount, noun, rounded_down, rounded_up, under_way
from tollspan.model.text import many

if TYPE_CHECKING:
    from tollspan.model.refusal import Refusal, RefusedCalls

_REASONS: Final = {
    "exhausted": "its limit is spent",
    "insufficient": "less is left than a call needs",
    "unpriced": "the model has no price",
    "unset": "the call lacks a value that the budget is kept by",
    "store": "its store could not be read",
    "settings": "the budgets could not be set up",
    "failure": "the check itself failed",
}


def refused_line(refused: RefusedCalls) -> str:
    """Return in one line which budget refused how many calls, why, and what to do."""
    refusal = refused.largest
    return f"{by(refusal)} refused {many(refused.count, 'call')}: {_why(refused)}. {refusal.remedy or ''}".rstrip()


def by(refusal: Refusal) -> str:
    """Return who refused a call: the budget's name, or tollspan if no budget was checked."""
    return refusal.budget or "tollspan"


def _why(refused: RefusedCalls) -> str:
    refusal = refused.largest
    if refusal.reason != "insufficient" or refusal.unit not in {"usd", "tokens"}:
        return _REASONS.get(refusal.reason, refusal.reason)
    verb = "cost" if refusal.unit == "usd" else "use"
    most = rounded_up(refusal.requested or 0, refusal.unit) + noun(refusal.unit)
    if refused.count == 1:
        return f"it may {verb} {most}"
    return f"each may {verb} {most}" if refused.alike else f"they may {verb} up to {most} each"


def explained(refusal: Refusal) -> list[tuple[str, str]]:
    """Return the facts of a refusal as pairs of a name and a text, without those that are not known."""
    unit = refusal.unit or ""
    needed = None if refusal.requested is None else rounded_up(refusal.requested, unit) + noun(unit)
    facts = (
        ("refused by", by(refusal)),
        ("reason", f"{refusal.reason}: {_REASONS[refusal.reason]}" if refusal.reason in _REASONS else refusal.reason),
        ("counter", refusal.counter),
        ("needed", needed),
        ("left", _left(refusal, unit)),
        ("do", refusal.remedy),
    )
    return [(name, text) for name, text in facts if text]


def _left(refusal: Refusal, unit: str) -> str | None:
    """Return what was left of the limit, and what of it calls under way held."""
    if refusal.left is None or refusal.limit is None:
        return None
    text = f"{rounded_down(refusal.left, unit)} of {amount(refusal.limit, unit, limit=True)}{noun(unit)}"
    return f"{text}, {rounded_up(refusal.held, unit)} of it held by {under_way(refusal)}" if refusal.held else text
