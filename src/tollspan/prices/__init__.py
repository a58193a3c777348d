"""Prices: the exact cost of a call, with its breakdown.

    from tollspan.prices import bundled, price

    cost = price(billable, bundled(), at=datetime.now(UTC))

`price` is pure. `bundled()` is the table that comes with the package; `PriceTable.parse` opens another one, and
`EMPTY` prices nothing. `loader` selects the active table: bundled, a path's or a URL's.
"""

from __future__ import annotations

from tollspan.prices.engine import price
from tollspan.prices.lookup import Match
from tollspan.prices.snapshot import bundled
from tollspan.prices.table import EMPTY, PriceTable

__all__ = ["EMPTY", "Match", "PriceTable", "bundled", "price"]
