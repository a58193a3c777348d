"""How much memory streams take while they are open.

    python -m benchmarks.run --only memory [--quick]

That a million calls leave nothing behind is what `make soak` holds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.measuring.pairs import ROOT, worker_environment
from benchmarks.measuring.reports import Report, table
from benchmarks.overhead import BUDGET, LEDGER
from benchmarks.variants.setups import FLOOR, OURS, PLAIN

if TYPE_CHECKING:
    from benchmarks.measuring.reports import Options

STREAMS: Final = 10_000
MOST: Final = 4096
"""Bytes for each open stream, the span that any tracing keeps left out."""


def measure(options: Options) -> Report:
    """Measure and write it down."""
    count = 200 if options.quick else STREAMS
    ways = ["traced"]
    if Path("/proc/self/statm").exists() and not options.quick:
        ways.append("resident")
    taken = {
        (name, how): _each(options, name, count, how) for name in (PLAIN, FLOOR, OURS, LEDGER, BUDGET) for how in ways
    }
    rows = []
    for name in (PLAIN, FLOOR, OURS, LEDGER, BUDGET):
        cells = []
        for how in ways:
            value = taken[name, how]
            cells += [f"{value:,.0f}", *(f"{value - taken[other, how]:,.0f}" for other in (PLAIN, FLOOR))]
        rows.append([name, *cells])
    header = [""]
    for how in ("Python's objects", "resident")[: len(ways)]:
        header += [f"{how}: all", f"over {PLAIN}", "over a span by hand"]
    own = taken[OURS, "traced"] - taken[FLOOR, "traced"]
    text = (
        f"Bytes for each of {count:,} streams over httpx2 that are open at once, each read to its third piece.\n\n"
        f"{table(header, rows)}\n"
        f"Target: at most {MOST:,} bytes beyond the open span with 12 attributes that any tracing keeps; "
        f"{own:,.0f}, {'met' if own <= MOST else 'not met'}.\n"
    )
    return Report("What open streams take", text, figures={"bytes": f"{own:,.0f}"})


def _each(options: Options, name: str, count: int, how: str) -> float:
    options.tell(f"memory: {name}, {how}")
    words = [sys.executable, "-m", "benchmarks.variants.open_streams", name, str(count), how]
    done = subprocess.run(  # noqa: S603 - our own program
        words, env=worker_environment(name), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)
