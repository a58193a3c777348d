"""The benchmarks that are programs of their own and print plain text: what they print is what is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.measuring.pairs import ROOT
from benchmarks.measuring.reports import Report
from tests.emitters.environments import environment

if TYPE_CHECKING:
    from benchmarks.measuring.reports import Options

ENGINES: Final = Path(__file__).parent / "environments" / "price-engines.txt"
_PRICES: Final = "What pricing one call takes"


def prices(options: Options) -> Report:
    """Run prices.py."""
    if options.quick:
        return Report(_PRICES, _printed("prices", "--quick"))
    options.tell("prices: environment of the other engines")
    python = environment(ENGINES)
    options.tell("prices")
    return Report(_PRICES, _printed("prices", python=python))


def ledger(options: Options) -> Report:
    """Run ledger.py, over a million rows."""
    options.tell("ledger: a million rows are written and asked about")
    asked = ["--quick"] if options.quick else ["--rows", "1000000"]
    return Report("What keeping a call costs, and asking about a million", _printed("ledger", *asked))


def estimates(options: Options) -> Report:
    """Run estimates.py, where there are recordings."""
    title = "How far estimates are off"
    if options.recordings is None:
        text = "Not measured: recordings of real traffic are not kept here. `--recordings FILE` names some.\n"
        return Report(title, text)
    options.tell("estimates")
    return Report(title, _printed("estimates", str(options.recordings.resolve())))


def _printed(name: str, *arguments: str, python: Path | None = None) -> str:
    done = subprocess.run(  # noqa: S603 - our own programs
        [python or sys.executable, "-m", f"benchmarks.{name}", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return f"```\n{done.stdout.rstrip()}\n```\n"
