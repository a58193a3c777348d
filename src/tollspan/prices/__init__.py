"""Prices: what a call costs, exactly, and from what.

    from tollspan.prices import bundled, price

    cost = price(billable, bundled(), at=datetime.now(UTC))

`price` is pure. `bundled()` is the table that comes with the package, opened once; `PriceTable.parse` opens another,
and `EMPTY` prices nothing. Which table is in force, from a path or a URL, is the loader's business.
"""

from __future__ import annotations

from tollspan.prices.engine import price
from tollspan.prices.lookup import Match
from tollspan.prices.snapshot import bundled
from tollspan.prices.table import EMPTY, PriceTable

__all__ = ["EMPTY", "Match", "PriceTable", "bundled", "price"]
