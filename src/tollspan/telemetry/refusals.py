"""A refusal on a span and in the event of its call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.model.money import as_float
from tollspan.telemetry import names

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from tollspan.model.refusal import Refusal

_TEXTS: Final = (
    ("budget", names.BUDGET),
    ("reason", names.BUDGET_REASON),
    ("counter", names.BUDGET_COUNTER),
    ("unit", names.BUDGET_UNIT),
    ("holders", names.BUDGET_HOLDERS),
    ("waited", names.BUDGET_WAIT),
    ("remedy", names.BUDGET_REMEDY),
)
# As for a warning, amounts have the names of the metrics.
_AMOUNTS: Final = (
    ("requested", names.BUDGET_REQUESTED),
    ("left", names.BUDGET_REMAINING),
    ("limit", names.BUDGET_LIMIT),
    ("held", names.BUDGET_RESERVED),
)


def refusal_attributes(refusal: Refusal) -> dict[str, AttributeValue]:
    """Return the attributes of a refusal: what is known of it, amounts in the budget's unit."""
    attributes: dict[str, AttributeValue] = {}
    for field, name in _TEXTS:
        if (value := getattr(refusal, field)) is not None:
            attributes[name] = value
    for field, name in _AMOUNTS:
        if (amount := getattr(refusal, field)) is not None:
            attributes[name] = as_float(amount) if refusal.unit == "usd" else float(amount)
    return attributes
