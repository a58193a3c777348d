"""The calls that budgets refused, for live views: each row of the ledger is read once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tollspan.model.refusal import RefusedTally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tollspan.ledger.conditions import Where
    from tollspan.ledger.queries import Ledger
    from tollspan.model.refusal import RefusedCalls


class RefusalReader:
    """Counts refused calls under one condition, and reads only the rows that are new since it last did."""

    def __init__(self) -> None:
        self._where: Where | None = None
        self._last = 0
        self._tally = RefusedTally()

    def read(self, ledger: Ledger, where: Where) -> Sequence[RefusedCalls]:
        """Return the calls that budgets refused, by budget and reason, the most often refused first.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        if where != self._where:
            self._where, self._last, self._tally = where, where.after or 0, RefusedTally()
        last = ledger.last_n
        if last > self._last:
            for refused in ledger.refused(replace(where, after=self._last)):
                self._tally.add(refused)
            self._last = last
        return self._tally.calls
