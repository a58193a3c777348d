"""The fake provider's books: every attempt in exactly one column, kept where the answers are made.

attempts = calls + failed + unreported + partial, where

- `calls`: answered in full, with their usage on the wire. Their rows are `by`, and `spend_usd` is their sum.
- `unreported`: answered in full and billed, but the wire never said how much (an OpenAI stream without include_usage).
- `partial`: the stream broke off (we cut it, or the client left). Billed for the input and the output sent so far:
  a made rule, as providers do not publish theirs.
- `failed`: an error status or no answer at all. Costs nothing.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from examples.fake_provider.prices import cost

if TYPE_CHECKING:
    from examples.fake_provider.prices import Bill

Column = Literal["calls", "unreported", "partial", "failed"]
COUNTS: Final = ("input", "output", "cache_read", "cache_write", "cache_write_5m", "cache_write_1h", "reasoning")
NOTE: Final = "Figures of a fake provider: no model ran, no money was spent."


@dataclass(slots=True)
class _Row:
    """The sums of one model in one column."""

    calls: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    cost: Decimal | None = Decimal(0)
    asked_as: set[str] = field(default_factory=set)

    def add(self, bill: Bill) -> None:
        """Add one call's bill; a call without a price leaves the row without a cost."""
        self.calls += 1
        self.asked_as.add(bill.asked)
        for name in COUNTS:
            self.counts[name] += getattr(bill, name)
        amount = cost(bill)
        self.cost = None if amount is None or self.cost is None else self.cost + amount

    def view(self, provider: str, model: str) -> dict[str, Any]:
        """Return the row as plain data."""
        return {
            "provider": provider,
            "model": model,
            "asked_as": sorted(self.asked_as),
            "calls": self.calls,
            **{name: self.counts[name] for name in COUNTS},
            "cost_usd": None if self.cost is None else format(self.cost, "f"),
        }


class Tally:
    """Books that many threads may read while the server writes."""

    def __init__(self) -> None:
        """Open empty books."""
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Start again from nothing."""
        with self._lock:
            self._columns: dict[str, defaultdict[tuple[str, str], _Row]] = {
                column: defaultdict(_Row) for column in ("calls", "unreported", "partial", "failed")
            }
            self._statuses: Counter[str] = Counter()
            self._control: Counter[str] = Counter()

    def record(self, column: Column, bill: Bill, status: int | None) -> None:
        """Enter one attempt: its column, its bill, the HTTP status that it was answered with (None: no answer)."""
        with self._lock:
            self._columns[column][bill.provider, bill.model].add(bill)
            self._statuses[str(status or "none")] += 1

    def control(self, path: str) -> None:
        """Count a request that is never billed: a list of models, a count of tokens, a look at a stored response."""
        with self._lock:
            self._control[path] += 1

    def view(self) -> dict[str, Any]:
        """Return the books as plain data; amounts are exact decimal text in US dollars."""
        with self._lock:
            rows = {
                column: [row.view(*key) for key, row in sorted(table.items())]
                for column, table in self._columns.items()
            }
            statuses, control = dict(self._statuses), dict(self._control)
        numbers = {column: sum(row["calls"] for row in table) for column, table in rows.items()}
        failed = [{name: row[name] for name in ("provider", "model", "asked_as", "calls")} for row in rows["failed"]]
        return {
            "fake": NOTE,
            "attempts": sum(numbers.values()),
            **numbers,
            "spend_usd": _spend(rows["calls"]),
            "unreported_usd": _spend(rows["unreported"]),
            "partial_usd": _spend(rows["partial"]),
            "by": rows["calls"],
            "unreported_by": rows["unreported"],
            "partial_by": rows["partial"],
            "failed_by": failed,
            "statuses": statuses,
            "control": control,
        }


def _spend(rows: list[dict[str, Any]]) -> str:
    """Return the sum of the rows that have a price."""
    return format(sum((Decimal(row["cost_usd"]) for row in rows if row["cost_usd"] is not None), Decimal(0)), "f")
