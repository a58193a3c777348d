"""The data of the page's charts: sums by time, of a range that ends now.

`charts()` takes sums by step, as `BoardReader.by_step()` returns them, and returns JSON values, one list entry for each
step of the range. `first_token()` returns percentiles over the whole range.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Final

from tollspan.cli.live.board import HOUR, MINUTE, SECOND, Span
from tollspan.ledger.conditions import DAY
from tollspan.ledger.totals import NOTHING, Figures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    FirstTokens = Mapping[int, list[float]]

SHOWN: Final = 7
"""Models with a series each; the others share one."""

SPANS: Final[dict[str, Span]] = {
    "1h": Span(MINUTE, 60),
    "24h": Span(30 * MINUTE, 48),
    "7d": Span(6 * HOUR, 28),
    "30d": Span(DAY, 30),
}
DEFAULT: Final = "24h"


def charts(span: Span, now: int, by_step: Mapping[tuple[str, ...], Figures], firsts: FirstTokens) -> dict[str, Any]:
    """Return the values of the charts; costs are numbers of US dollars, because they are only drawn.

    Args:
        span: The range.
        now: Unix nanoseconds.
        by_step: Sums by step, provider and model.
        firsts: The times to first token, in seconds, by step.
    """
    start = span.since(now) // span.step
    steps = range(start, start + span.steps)
    by_model: dict[tuple[str, str], dict[int, Figures]] = defaultdict(dict)
    totals: dict[int, Figures] = {}
    for (step, provider, model), figures in by_step.items():
        by_model[provider, model][int(step)] = figures
        totals[int(step)] = totals.get(int(step), NOTHING) + figures
    in_order = [totals.get(step, NOTHING) for step in steps]
    return {
        "start": start * span.step // SECOND,
        "step": span.step // SECOND,
        "steps": span.steps,
        "spend": _by_model(by_model, steps),
        "calls": [figures.calls for figures in in_order],
        "fresh": [max(figures.input - figures.cache_read, 0) for figures in in_order],
        "cached": [figures.cache_read for figures in in_order],
        "output": [figures.output for figures in in_order],
        "hits": [figures.cache_read / figures.input if figures.input else None for figures in in_order],
        "ttft": {name: [_percentile(firsts.get(step), rank) for step in steps] for name, rank in _PERCENTILES},
    }


def first_token(firsts: FirstTokens) -> dict[str, float | None]:
    """Return the percentiles of the time to first token over the whole range, in seconds."""
    values = [seconds for in_step in firsts.values() for seconds in in_step]
    return {name: _percentile(values, rank) for name, rank in _PERCENTILES}


_PERCENTILES: Final = (("p50", 50), ("p95", 95))


def _by_model(by_model: dict[tuple[str, str], dict[int, Figures]], steps: Sequence[int]) -> list[dict[str, Any]]:
    """Return one series for each of the most expensive models, and one for all others."""

    def spend(of: Callable[[int], int]) -> list[float]:
        return [of(step) / 10**18 for step in steps]

    ordered = sorted(by_model, key=lambda key: (-sum(figures.spend for figures in by_model[key].values()), key))
    series = [
        {
            "provider": provider,
            "model": model,
            "usd": spend(lambda step, sums=by_model[provider, model]: sums.get(step, NOTHING).spend),  # type: ignore[misc]
        }
        for provider, model in ordered[:SHOWN]
    ]
    if rest := ordered[SHOWN:]:
        usd = spend(lambda step: sum(by_model[key].get(step, NOTHING).spend for key in rest))
        series.append({"provider": "", "model": f"{len(rest)} others", "usd": usd})
    return series


def _percentile(values: list[float] | None, rank: int) -> float | None:
    """Return a percentile of values; None if there are none."""
    if not values:
        return None
    return values[0] if len(values) == 1 else quantiles(values, n=100, method="inclusive")[rank - 1]
