"""What a session, a run or a process has spent, whoever added it up: in memory (`live`) or out of the ledger."""

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

    `by_tag` has the tags by name and then by value; values that the settings name are there from the start, at zero.
    """

    figures: Figures = NOTHING
    by_provider: Mapping[str, Figures] = field(default_factory=dict)
    by_model: Mapping[str, Figures] = field(default_factory=dict)
    by_tag: Mapping[str, Mapping[str, Figures]] = field(default_factory=dict)

    @property
    def total(self) -> Decimal:
        """Return what was spent, in US dollars, exactly; calls without a known price are beside it, in `unpriced`."""
        return self.figures.cost

    @property
    def calls(self) -> int:
        """Return how many calls were answered."""
        return self.figures.calls

    @property
    def unpriced(self) -> int:
        """Return how many of them have no known price."""
        return self.figures.unpriced

    @property
    def pending(self) -> int:
        """Return how many responses and batches the provider is at work on: their cost is not known yet."""
        return self.figures.pending

    @property
    def tokens(self) -> int:
        """Return tokens in and out together."""
        return self.figures.tokens


def summed(
    models: Iterable[tuple[str, str, Figures]],
    tags: Iterable[tuple[str, str, Figures]],
    shown: Mapping[str, Iterable[str]],
) -> Summary:
    """Make a summary.

    Args:
        models: Provider, model and their figures.
        tags: Tag, value and their figures.
        shown: Values of tags that are there in any case.
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
