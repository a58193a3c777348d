"""Summaries: what a session, a run or a process has spent, counted in memory or read from the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tollspan.ledger.totals import NOTHING, Figures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a session, a run or a process has spent. Every entry has `calls`, `tokens` and `cost` (see `Figures`).

    `by_tag` maps tag names to values to figures. Values that the setting `tags` names are present from the start, at
    zero.
    """

    figures: Figures = NOTHING
    by_provider: Mapping[str, Figures] = field(default_factory=dict)
    by_model: Mapping[str, Figures] = field(default_factory=dict)
    by_tag: Mapping[str, Mapping[str, Figures]] = field(default_factory=dict)

    @property
    def total(self) -> Decimal:
        """Return the spend in US dollars, exactly; calls without a known price are counted in `unpriced`."""
        return self.figures.cost

    @property
    def calls(self) -> int:
        """Return the number of calls that got a response."""
        return self.figures.calls

    @property
    def unpriced(self) -> int:
        """Return the number of calls that have no known price."""
        return self.figures.unpriced

    @property
    def pending(self) -> int:
        """Return the number of responses and batches in progress at the provider: their cost is not known yet."""
        return self.figures.pending

    @property
    def tokens(self) -> int:
        """Return the sum of input and output tokens."""
        return self.figures.tokens


def summed(
    models: Iterable[tuple[str, str, Figures]],
    tags: Iterable[tuple[str, str, Figures]],
    shown: Mapping[str, Iterable[str]],
) -> Summary:
    """Return a summary.

    Args:
        models: Provider, model and their figures.
        tags: Tag, value and their figures.
        shown: Values of tags that are always present.
    """
    total, by_provider, by_model = NOTHING, dict[str, Figures](), dict[str, Figures]()
    for provider, model, figures in models:
        total += figures
        by_provider[provider] = by_provider.get(provider, NOTHING) + figures
        by_model[model] = by_model.get(model, NOTHING) + figures
    by_tag = {name: dict.fromkeys(values, NOTHING) for name, values in shown.items()}
    for name, value, figures in tags:
        by_tag.setdefault(name, {})[value] = by_tag.get(name, {}).get(value, NOTHING) + figures
    return Summary(figures=total, by_provider=by_provider, by_model=by_model, by_tag=by_tag)
