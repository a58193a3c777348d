"""What the page's charts show: sums by time, of a range that ends now.

history = History(SPANS["24h"], session=None)
history.read(ledger, now)
history.data()
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Final

from tollspan.apps.board import HOUR, MINUTE, SECOND, Sums
from tollspan.ledger.queries import DAY, Where
from tollspan.ledger.totals import NOTHING, Figures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tollspan.ledger.queries import Ledger

SHOWN: Final = 7
"""Models with a colour of their own; the others are one series."""

MOST_FIRST_TOKENS: Final = 20_000
"""Times to the first token that percentiles are taken of: those of the newest calls."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of the page: `steps` steps of `step` nanoseconds each."""

    step: int
    steps: int

    def since(self, now: int) -> int:
        """Give where the range begins that `now` lies in the last step of."""
        return (now // self.step - self.steps + 1) * self.step


SPANS: Final[dict[str, Span]] = {
    "1h": Span(MINUTE, 60),
    "24h": Span(30 * MINUTE, 48),
    "7d": Span(6 * HOUR, 28),
    "30d": Span(DAY, 30),
}
DEFAULT: Final = "24h"


class History:
    """Sums over a range, step by step; it grows by the ledger's new rows alone.

    Args:
        span: The range.
        session: Only the calls of this session.
    """

    def __init__(self, span: Span, session: str | None = None) -> None:
        self.span = span
        self._session = session
        self._sums = Sums(("provider", "model"), span.step)
        self._firsts: dict[int, list[float]] = defaultdict(list)
        self._after: int | None = None
        self._reset: int | None = None
        self._start = 0

    def read(self, ledger: Ledger, now: int) -> None:
        """Read what is new."""
        since = self.span.since(now)
        where = ledger.since_reset(Where(session=self._session, since=since))
        last = ledger.last_n
        self._start = since // self.span.step
        if self.span.step == DAY and where.after is None:
            self._sums = Sums(("provider", "model"), DAY)  # the totals have it: nothing to keep
        self._sums.read(ledger, where, last)
        if self._after is None or where.after != self._reset:
            self._firsts.clear()
            self._after = where.after
        self._reset = where.after
        asked = where if self._after is None else Where(session=self._session, since=since, after=self._after)
        for step, seconds in ledger.first_tokens(self.span.step, asked, MOST_FIRST_TOKENS):
            self._firsts[step].append(seconds)
        self._after = last
        for step in [step for step in self._firsts if step < self._start]:
            del self._firsts[step]

    def data(self) -> dict[str, Any]:
        """Give the charts' values; costs are US dollars as numbers, for drawing."""
        steps = range(self._start, self._start + self.span.steps)
        by_model: dict[tuple[str, str], dict[int, Figures]] = defaultdict(dict)
        by_step: dict[int, Figures] = {}
        for (step, provider, model), figures in self._sums.found.items():
            by_model[provider, model][int(step)] = figures
            by_step[int(step)] = by_step.get(int(step), NOTHING) + figures
        all_of = [by_step.get(step, NOTHING) for step in steps]
        return {
            "start": self._start * self.span.step // SECOND,
            "step": self.span.step // SECOND,
            "steps": self.span.steps,
            "spend": _by_model(by_model, steps),
            "calls": [figures.calls for figures in all_of],
            "fresh": [max(figures.input - figures.cache_read, 0) for figures in all_of],
            "cached": [figures.cache_read for figures in all_of],
            "output": [figures.output for figures in all_of],
            "hits": [figures.cache_read / figures.input if figures.input else None for figures in all_of],
            "ttft": {name: [_at(self._firsts.get(step), share) for step in steps] for name, share in _SHARES},
        }

    def first_tokens(self) -> dict[str, float | None]:
        """Give the percentiles of the time to the first token over the whole range, in seconds."""
        everything = [seconds for found in self._firsts.values() for seconds in found]
        return {name: _at(everything, share) for name, share in _SHARES}


_SHARES: Final = (("p50", 50), ("p95", 95))


def _by_model(by_model: dict[tuple[str, str], dict[int, Figures]], steps: Sequence[int]) -> list[dict[str, Any]]:
    """Give the dearest models and, as one, the others."""

    def spend(of: Callable[[int], int]) -> list[float]:
        return [of(step) / 10**18 for step in steps]

    ordered = sorted(by_model, key=lambda key: (-sum(figures.spend for figures in by_model[key].values()), key))
    series = [
        {
            "provider": provider,
            "model": model,
            "usd": spend(lambda step, found=by_model[provider, model]: found.get(step, NOTHING).spend),  # type: ignore[misc]
        }
        for provider, model in ordered[:SHOWN]
    ]
    if rest := ordered[SHOWN:]:
        usd = spend(lambda step: sum(by_model[key].get(step, NOTHING).spend for key in rest))
        series.append({"provider": "", "model": f"{len(rest)} others", "usd": usd})
    return series


def _at(values: list[float] | None, share: int) -> float | None:
    """Give a percentile; of one value, that value, and of none, nothing."""
    if not values:
        return None
    return values[0] if len(values) == 1 else quantiles(values, n=100, method="inclusive")[share - 1]
