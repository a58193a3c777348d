"""Totals over the rows of a ledger, read in pieces: the newest rows first, then the earlier ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.ledger.totals import NOTHING, Figures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tollspan.ledger.conditions import Where
    from tollspan.ledger.queries import Ledger

EVER: Final = 2**62
"""A step so long that it contains all calls."""

FIRST_PIECE: Final = 50_000
"""Rows that are read before a view is shown for the first time."""

PIECE: Final = 10_000
"""Earlier rows that each later look reads."""


class ReadWindow:
    """Tracks which rows have been read: new ones at once, earlier ones piece by piece, the newest first.

    So a view of a large ledger appears at once, and completes itself while it is shown.
    """

    def __init__(self) -> None:
        self._low = self._high = self._first = 0
        self._begun = False

    def windows(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return which of the rows `first` to `last` to read now: pairs (after this number, up to this number)."""
        result = []
        if not self._begun:
            self._low = self._high = last
        elif last > self._high:
            result.append((self._high, last))
        self._high = last
        self._first = first
        lowest = max(min(first - 1, last), 0)
        if self._low > lowest:
            low = max(self._low - (PIECE if self._begun else FIRST_PIECE), lowest)
            result.append((low, self._low))
            self._low = low
        self._begun = True
        return result

    @property
    def share(self) -> float:
        """Return the share of the rows that has been read, from 0 to 1."""
        left = self._low - self._first + 1
        return 1.0 if left <= 0 else 1 - left / (self._high - self._first + 1)


class GroupedTotals:
    """Sums over rows, by time and by several facets at once.

    Args:
        facets: The dimensions of each facet, by its name.
        step: Nanoseconds of a step of time; by default there is only step 0.
    """

    def __init__(self, facets: Mapping[str, Sequence[str]], step: int = EVER) -> None:
        self._facets = dict(facets)
        self._by = tuple(dict.fromkeys(name for names in self._facets.values() for name in names))
        self._step = step
        self.by_facet: dict[str, dict[tuple[str, ...], Figures]] = {name: {} for name in self._facets}

    def read(self, ledger: Ledger, where: Where, rows: tuple[int, int]) -> None:
        """Add the rows of a window."""
        for group in ledger.timeline(self._step, self._by, where, rows):
            values = dict(zip(self._by, group.key[1:], strict=True))
            for name, dimensions in self._facets.items():
                key = (group.key[0], *(values[dimension] for dimension in dimensions))
                sums = self.by_facet[name]
                sums[key] = sums.get(key, NOTHING) + group.figures

    def drop_before(self, step: int) -> None:
        """Drop the sums of all steps before this one."""
        for name, sums in self.by_facet.items():
            self.by_facet[name] = {key: figures for key, figures in sums.items() if int(key[0]) >= step}

    def by(self, facet: str) -> dict[tuple[str, ...], Figures]:
        """Return the sums of a facet over all steps."""
        result: dict[tuple[str, ...], Figures] = {}
        for key, figures in self.by_facet[facet].items():
            result[key[1:]] = result.get(key[1:], NOTHING) + figures
        return result
