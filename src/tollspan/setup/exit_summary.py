"""What was spent, reported at the end of the process: a table on stderr, and a JSON file for programs.

`format_table(spent, ...)` and `as_json(spent)` format sums by provider and model. `Tally` reports the sums of one
process when it ends. `tollspan run` reports those of all processes of a run, from the ledger.
"""

from __future__ import annotations

import atexit
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.denials.explanation import refused_line
from tollspan.ledger.totals import NOTHING, Figures
from tollspan.model.money import atto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tollspan.capture.recorder import Recorder

Spent = tuple[str, str, Figures]
"""Provider, model, and the sums of their calls."""

_COLUMNS: Final = {
    "calls": "calls",
    "failed": "failed",
    "denied": "denied",
    "input": "input",
    "cached": "cache_read",
    "output": "output",
    "reasoning": "reasoning",
}
"""The columns between names and cost: head -> figure. Calls that budgets denied have one if there are any."""
_JSON: Final = ("calls", "failed", "denied", "pending", "unpriced", "uncertain")
_LEAST: Final = atto("0.0001")
_tallies: Final[dict[Recorder, Tally]] = {}
_WORDS: Final = 2  # columns that are words, aligned left


def as_json(spent: Sequence[Spent]) -> dict[str, Any]:
    """Return sums as JSON values; amounts are decimal strings in US dollars."""
    total = sum((figures for _, _, figures in spent), NOTHING)
    return {
        **_counts(total),
        "spend_usd": f"{total.cost:f}",
        "by": [
            {
                "provider": provider,
                "model": model,
                **_counts(figures),
                "input": figures.input,
                "output": figures.output,
                "cache_read": figures.cache_read,
                "cache_write": figures.cache_write,
                "reasoning": figures.reasoning,
                "cost_usd": f"{figures.cost:f}",
            }
            for provider, model, figures in spent
        ],
    }


def format_table(spent: Sequence[Spent], what: str) -> str:
    """Return sums as a table for people, under a line that says what spent them ("run", "process")."""
    total = sum((figures for _, _, figures in spent), NOTHING)
    heads = [head for head in _COLUMNS if head != "denied" or total.denied]
    rows = [("provider", "model", *heads, "cost")]
    rows += [
        (provider, model, *(f"{getattr(figures, _COLUMNS[head]):,}" for head in heads), amount(figures))
        for provider, model, figures in spent
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    pad: tuple[Callable[[str, int], str], Callable[[str, int], str]] = (str.ljust, str.rjust)
    lines = ["  ".join(pad[i >= _WORDS](cell, widths[i]) for i, cell in enumerate(row)) for row in rows]
    return "\n".join(["", f"tollspan: what this {what} spent on model calls", *lines, f"total {amount(total)}", ""])


def _counts(figures: Figures) -> dict[str, int]:
    return {name: getattr(figures, name) for name in _JSON}


def amount(figures: Figures) -> str:
    """Return the spend with 4 decimals, and the numbers of unpriced and pending calls beside it.

    A "~" before it says that part of it is an estimate or a lower bound.
    """
    priced = "<$0.0001" if 0 < figures.spend < _LEAST else f"${figures.cost:,.4f}"
    parts = [f"{'~' if figures.uncertain else ''}{priced}"]
    parts += [
        f"{count:,} {word}" for count, word in ((figures.unpriced, "unpriced"), (figures.pending, "pending")) if count
    ]
    return " + ".join(parts)


def most_expensive_first(spent: Iterable[Spent]) -> list[Spent]:
    """Return sums in the order of reports: the most expensive first, then by provider and model."""
    return sorted(spent, key=lambda row: (-row[2].spend, row[0], row[1]))


def start(recorder: Recorder) -> None:
    """Report the sums of this process when it ends."""
    _tallies[recorder] = Tally(recorder)
    atexit.register(_tallies[recorder].report)


def stop(recorder: Recorder) -> None:
    """Report nothing when this process ends."""
    if (tally := _tallies.pop(recorder, None)) is not None:
        atexit.unregister(tally.report)


class Tally:
    """The sums of a recorder's counters."""

    def __init__(self, recorder: Recorder) -> None:
        """Read the counters of `recorder` at each report."""
        self._recorder = recorder

    def report(self) -> None:
        """Write the sums to stderr and to the file, as the settings ask."""
        recorder = self._recorder
        recorder.end_open_attempts()
        settings = recorder.settings
        spent = self.spent()
        if settings.summary and spent:
            sys.stderr.write(format_table(spent, "process"))
        if settings.summary:
            sys.stderr.writelines(f"tollspan: {refused_line(calls)}\n" for calls in recorder.refusals.calls)
        if settings.summary_json:
            try:
                Path(settings.summary_json).write_text(json.dumps(as_json(spent), indent=1), "utf-8")
            except OSError as error:
                recorder.failed("summary", error)

    def spent(self) -> list[Spent]:
        """Return the sums by provider and model, of all operations, the most expensive first."""
        joined: dict[tuple[str, str], Figures] = {}
        for (provider, _, model), totals in self._recorder.accumulator.items():
            figures = Figures(
                calls=totals.calls - totals.failed,
                failed=totals.failed,
                denied=totals.denied,
                pending=totals.pending,
                unpriced=totals.unpriced,
                uncertain=totals.uncertain,
                input=totals.input,
                output=totals.output,
                cache_read=totals.cache_read,
                cache_write=totals.cache_write,
                reasoning=totals.reasoning,
                spend=totals.spend,
                savings=totals.savings,
            )
            joined[provider, model] = joined.get((provider, model), NOTHING) + figures
        return most_expensive_first((provider, model, figures) for (provider, model), figures in joined.items())
