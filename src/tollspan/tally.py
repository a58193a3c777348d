"""What was spent, told when the process ends: a table on stderr, and a JSON file for programs."""

from __future__ import annotations

import atexit
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tollspan.usage import atto, usd

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.recorder import Recorder
    from tollspan.telemetry.accumulator import Totals

_HEAD: Final = ("provider", "model", "calls", "failed", "input", "cached", "output", "reasoning", "cost")
_LEAST: Final = atto("0.0001")
_WORDS: Final = 2  # columns that are words, aligned left


class Tally:
    """The sums of a recorder's counters, as text and as JSON."""

    def __init__(self, recorder: Recorder) -> None:
        """Read `recorder`'s counters whenever asked."""
        self._recorder = recorder

    def at_exit(self) -> None:
        """Tell the tally when this process ends."""
        atexit.register(self._tell)

    def _tell(self) -> None:
        recorder = self._recorder
        recorder.end_open_attempts()
        settings = recorder.settings
        if settings.summary and recorder.accumulator.calls:
            sys.stderr.write(self.text())
        if settings.summary_json:
            try:
                Path(settings.summary_json).write_text(json.dumps(self.data(), indent=1), "utf-8")
            except OSError as error:
                recorder.failed("summary", error)

    def data(self) -> dict[str, Any]:
        """Give the sums as JSON values; amounts are decimal strings in US dollars."""
        rows = self._rows()
        return {
            "calls": sum(totals.calls - totals.failed for _, _, totals in rows),
            "failed": sum(totals.failed for _, _, totals in rows),
            "unpriced": sum(totals.unpriced for _, _, totals in rows),
            "spend_usd": str(usd(sum(totals.spend for _, _, totals in rows))),
            "by": [
                {
                    "provider": provider,
                    "model": model,
                    "calls": totals.calls - totals.failed,
                    "failed": totals.failed,
                    "unpriced": totals.unpriced,
                    "input": totals.input,
                    "output": totals.output,
                    "cache_read": totals.cache_read,
                    "cache_write": totals.cache_write,
                    "reasoning": totals.reasoning,
                    "cost_usd": str(usd(totals.spend)),
                }
                for provider, model, totals in rows
            ],
        }

    def text(self) -> str:
        """Give the sums as a table for people, dearest first."""
        rows = [_HEAD]
        rows += [
            (
                provider,
                model,
                f"{totals.calls - totals.failed:,}",
                f"{totals.failed:,}",
                f"{totals.input:,}",
                f"{totals.cache_read:,}",
                f"{totals.output:,}",
                f"{totals.reasoning:,}",
                _amount(totals),
            )
            for provider, model, totals in self._rows()
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        pad: tuple[Callable[[str, int], str], Callable[[str, int], str]] = (str.ljust, str.rjust)
        lines = ["  ".join(pad[i >= _WORDS](cell, widths[i]) for i, cell in enumerate(row)) for row in rows]
        total = usd(self._recorder.accumulator.spend)
        return "\n".join(["", "tollspan: what this process spent on model calls", *lines, f"total ${total:.4f}", ""])

    def _rows(self) -> list[tuple[str, str, Totals]]:
        """Give provider, model and totals, operations joined, dearest first."""
        joined: dict[tuple[str, str], Totals] = {}
        for (provider, _, model), totals in self._recorder.accumulator.items():
            known = joined.get((provider, model))
            joined[provider, model] = totals if known is None else known + totals
        rows = [(provider, model, totals) for (provider, model), totals in joined.items()]
        return sorted(rows, key=lambda row: (-row[2].spend, row[0], row[1]))


def _amount(totals: Totals) -> str:
    priced = "<$0.0001" if 0 < totals.spend < _LEAST else f"${usd(totals.spend):.4f}"
    return f"{priced} + {totals.unpriced:,} unpriced" if totals.unpriced else priced
