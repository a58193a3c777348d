"""The cost of an operation that took several attempts: `combined(one, other)`.

Pure: two records of cost go in, one comes out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tollspan.model.records import Cost

_BEST_TO_WORST: Final = ("measured", "provider", "estimated", "floor", "unpriced")


def combined(one: Cost, other: Cost) -> Cost:
    """Return the cost of two attempts of one operation.

    Amounts add up. The quality is the worse of the two; it is `floor` if only one of them has a price. The price key,
    rule and table of `other` are kept: attempts of one operation use one model.
    """
    if one.amount is None or other.amount is None:
        priced = one if other.amount is None else other
        return priced if priced.amount is None else replace(priced, quality="floor")
    kinds = dict.fromkeys([*one.breakdown, *other.breakdown])
    return replace(
        other,
        amount=one.amount + other.amount,
        source="provider" if one.source == other.source == "provider" else "local",
        quality=max(one.quality, other.quality, key=_BEST_TO_WORST.index),
        breakdown={kind: one.breakdown.get(kind, 0) + other.breakdown.get(kind, 0) for kind in kinds},
        computed=None if one.computed is None or other.computed is None else one.computed + other.computed,
        savings=one.savings + other.savings,
        low=_sum(one, other, "low"),
        high=_sum(one, other, "high"),
        missing=tuple(dict.fromkeys((*one.missing, *other.missing))),
        note=other.note or one.note,
    )


def _sum(one: Cost, other: Cost, field: str) -> int | None:
    """Return the sum of a bound of two costs; a cost without that bound counts with its amount."""
    bounds = [getattr(cost, field) for cost in (one, other)]
    if bounds == [None, None]:
        return None
    return sum(cost.amount or 0 if bound is None else bound for cost, bound in zip((one, other), bounds, strict=True))
