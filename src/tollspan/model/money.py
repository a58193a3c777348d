"""Money: integers of atto-dollars (10**-18 USD) inside, a Decimal or a float at the edge."""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Final

ATTO: Final = 10**18
"""Atto-dollars in one dollar. The atto-dollar is the unit of every amount that is stored or added."""

Number = int | float | Decimal

_EXACT: Final = Context(prec=60)


def usd(atto: int) -> Decimal:
    """Return an amount of atto-dollars as US dollars, exactly."""
    return _EXACT.scaleb(Decimal(atto), -18)


def as_float(atto: int) -> float:
    """Return an amount of atto-dollars as US dollars, for an attribute or an instrument: the nearest float.

    The quotient of two integers is rounded correctly; a Decimal would take six times as long.
    """
    return atto / ATTO


def atto(dollars: Number | str) -> int:
    """Return US dollars as atto-dollars; digits beyond 10**-18 are rounded half-even.

    A float is read by its shortest decimal text: 0.1 is one tenth.
    """
    exact = dollars if isinstance(dollars, Decimal) else Decimal(str(dollars))
    return int(_EXACT.to_integral_value(_EXACT.scaleb(exact, 18)))
