"""The lines of a call's invoice, from its record alone: kind, count and amount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tollspan.ledger.rows import TOKENS

if TYPE_CHECKING:
    from tollspan.model.money import Number
    from tollspan.model.records import Call, Usage

_INSIDE: Final[dict[str, tuple[str, ...]]] = {
    "input": ("cache_read", "cache_write", "input_audio", "input_image", "input_video"),
    "output": ("reasoning", "output_audio", "output_image", "output_video"),
    "cache_read": ("cache_read_audio", "cache_read_image"),
    "cache_write": ("cache_write_5m", "cache_write_30m", "cache_write_1h", "cache_write_12h"),
    "input_audio": ("cache_read_audio",),
    "input_image": ("cache_read_image",),
}
"""Counts inside another count, billed separately where they have a line of their own."""

_ALWAYS: Final = frozenset({"cache_read", "cache_write"})
"""Counts that are always billed separately from the input, whatever lines they have."""


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line: `count` is None if the record does not say how many were charged; `amount` is in atto-dollars."""

    kind: str
    count: Number | None
    amount: int

    @property
    def unit(self) -> str:
        """Return the unit of the count: tokens, or the kind itself."""
        return "tokens" if self.kind in TOKENS else self.kind


def lines_of(call: Call) -> list[InvoiceLine]:
    """Return the lines of a call's invoice; they sum to its computed cost. Without a price there are none."""
    breakdown = call.cost.breakdown
    usage = None if call.parts else call.usage  # iterations with their own prices: the counts of each are in `parts`
    return [
        InvoiceLine(kind, None if usage is None else _count(kind, usage, set(breakdown)), breakdown[kind])
        for kind in breakdown
    ]


def _count(kind: str, usage: Usage, kinds: set[str]) -> Number | None:
    """Return the count that a line charges, without the counts that have lines of their own."""
    if kind not in TOKENS:
        name = "search_units" if kind == "queries" and kind not in usage.units else kind
        return usage.units.get(name)
    total: int | None = getattr(usage, kind)
    if total is None:
        return None
    inside = (part for part in _INSIDE.get(kind, ()) if part in kinds or (kind == "input" and part in _ALWAYS))
    return max(total - sum(getattr(usage, part) or 0 for part in inside), 0)
