"""What the page's charts show: sums by time, of a range that ends now.

history = History(SPANS["24h"], session=None)
history.read(ledger, now)
history.data()
"""

from __future__ import annotations

from collections import defaultdict
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Final

from tollspan.cli.live.board import HOUR, MINUTE, SECOND, Span
from tollspan.ledger.queries import DAY
from tollspan.ledger.totals import NOTHING, Figures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    FirstTokens = Mapping[int, list[float]]

SHOWN: Final = 7
"""Models with a colour of their own; the others are one series."""

SPANS: Final[dict[str, Span]] = {
    "1h": Span(MINUTE, 60),
    "24h": Span(30 * MINUTE, 48),
    "7d": Span(6 * HOUR, 28),
    "30d": Span(DAY, 30),
}
DEFAULT: Final = "24h"


def charts(span: Span, now: int, by_step: Mapping[tuple[str, ...], Figures], firsts: FirstTokens) -> dict[str, Any]:
    """Return the charts' values; costs are US dollars as numbers, for drawing.

    Args:
        span: The range.
        now: Unix nanoseconds.
        by_step: Sums by step, provider and model.
        firsts: Seconds to the first token, by step.
    """
    start = span.since(now) // span.step
    steps = range(start, start + span.steps)
    by_model: dict[tuple[str, str], dict[int, Figures]] = defaultdict(dict)
    together: dict[int, Figures] = {}
    for (step, provider, model), figures in by_step.items():
        by_model[provider, model][int(step)] = figures
        together[int(step)] = together.get(int(step), NOTHING) + figures
    all_of = [together.get(step, NOTHING) for step in steps]
    return {
        "start": start * span.step // SECOND,
        "step": span.step // SECOND,
        "steps": span.steps,
        "spend": _by_model(by_model, steps),
        "calls": [figures.calls for figures in all_of],
        "fresh": [max(figures.input - figures.cache_read, 0) for figures in all_of],
        "cached": [figures.cache_read for figures in all_of],
        "output": [figures.output for figures in all_of],
        "hits": [figures.cache_read / figures.input if figures.input else None for figures in all_of],
        "ttft": {name: [_at(firsts.get(step), share) for step in steps] for name, share in _SHARES},
    }


def first_token(firsts: FirstTokens) -> dict[str, float | None]:
    """Return the percentiles of the time to the first token over the whole range, in seconds."""
    everything = [seconds for found in firsts.values() for seconds in found]
    return {name: _at(everything, share) for name, share in _SHARES}


_SHARES: Final = (("p50", 50), ("p95", 95))


def _by_model(by_model: dict[tuple[str, str], dict[int, Figures]], steps: Sequence[int]) -> list[dict[str, Any]]:
    """Return the dearest models and, as one, the others."""

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
    """Return a percentile; of one value, that value, and of none, nothing."""
    if not values:
        return None
    return values[0] if len(values) == 1 else quantiles(values, n=100, method="inclusive")[share - 1]
