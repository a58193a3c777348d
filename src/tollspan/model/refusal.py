"""Why a budget refused a call: one record, which is kept with the call and shown wherever the call is.

`Refusal` is the record of one refused call, `RefusedCalls` of several that one budget refused for one reason, and
`RefusedTally` counts them. Amounts are integers in the budget's unit: atto-dollars, tokens or calls.

This module imports the standard library only and does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.money import atto, usd

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a budget refused a call. What is not known is None.

    Attributes:
        budget: the budget's name; empty if the call was refused before any budget was checked.
        reason: exhausted (nothing is left), insufficient (less is left than the call may use), unpriced, unset, store,
            settings or failure.
        counter: the counter of the budget, as its store names it.
        unit: usd, tokens, calls or identical.
        requested: what the call had to reserve.
        left: what of the limit was not spent, reserved or not.
        limit: the limit.
        held: what calls under way had reserved of it.
        holders: how many calls these were.
        waited: seconds that the call waited for them.
        remedy: what to do, as text.
    """

    budget: str
    reason: str
    counter: str | None = None
    unit: str | None = None
    requested: int | None = None
    left: int | None = None
    limit: int | None = None
    held: int | None = None
    holders: int | None = None
    waited: float | None = None
    remedy: str | None = None

    def as_data(self) -> dict[str, str | int | float]:
        """Return what is known, as JSON values: amounts are exact decimal strings, of US dollars if that is the unit.

        `Refusal.of` reads it.
        """
        data: dict[str, str | int | float] = {}
        for name in _NAMES:
            value = getattr(self, name)
            if value is not None:
                data[name] = _text(value, self.unit) if name in _AMOUNTS else value
        return data

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Refusal:
        """Return the record that `as_data` wrote; unknown names are left out, because a newer tollspan may write them.

        Raises:
            ValueError: the data has no such record (KeyError, TypeError or ArithmeticError for a part of it).
        """
        known = {name: data[name] for name in _NAMES if name in data}
        known |= {name: _amount(known[name], known.get("unit")) for name in _AMOUNTS if name in known}
        return cls(**known)


_NAMES: Final = tuple(item.name for item in fields(Refusal))
_AMOUNTS: Final = ("requested", "left", "limit", "held")


def _text(amount: int, unit: str | None) -> str:
    return f"{usd(amount).normalize():f}" if unit == "usd" else str(amount)


def _amount(text: str, unit: str | None) -> int:
    return atto(Decimal(text)) if unit == "usd" else int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedCalls:
    """Calls that one budget refused for one reason.

    Attributes:
        count: how many.
        alike: whether all of them had to reserve the same amount.
        largest: the refusal of one that had to reserve the most.
    """

    count: int
    alike: bool
    largest: Refusal

    @classmethod
    def one(cls, refusal: Refusal) -> RefusedCalls:
        """Return a single call."""
        return cls(count=1, alike=True, largest=refusal)

    def __add__(self, other: RefusedCalls) -> RefusedCalls:
        """Return both: calls that the same budget refused for the same reason."""
        mine, theirs = self.largest.requested, other.largest.requested
        return RefusedCalls(
            count=self.count + other.count,
            alike=self.alike and other.alike and mine == theirs,
            largest=other.largest if (theirs or 0) > (mine or 0) else self.largest,
        )


MOST: Final = 1000
"""Budgets and reasons that a tally counts; a program may name budgets as it runs. Further ones are not counted."""


class RefusedTally:
    """Counts refusals by budget and reason."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], RefusedCalls] = {}

    def add(self, refused: RefusedCalls) -> None:
        """Count refused calls."""
        key = refused.largest.budget, refused.largest.reason
        known = self._known.get(key)
        if known is not None:
            self._known[key] = known + refused
        elif len(self._known) < MOST:
            self._known[key] = refused

    @property
    def calls(self) -> list[RefusedCalls]:
        """Return the calls of each budget and reason, the most often refused first."""
        return sorted(self._known.values(), key=lambda refused: -refused.count)
