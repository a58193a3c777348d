"""Run the benchmarks and keep their tables and charts under benchmarks/results/.

    make bench
    make bench BENCH='--only overhead --only peers --quick'

A full run takes about a quarter of an hour on an idle machine with two processors, and more on a busy one: run it where
nothing else runs. The first one builds an environment for each peer, for which it needs a package index. `--quick`
shows in a few minutes that everything runs, and its figures mean nothing: they go to build/bench/.

Without --only, the figures of README.md and docs/reference/overhead.md are written from the same run.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import budgets, limits, memory, overhead, peers, printed, startup, summary
from benchmarks.measuring.reports import ROOT, Options, Report, circumstances, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BENCHMARKS: Final[dict[str, Callable[[Options], Report]]] = {
    "overhead": overhead.measure,
    "peers": peers.measure,
    "startup": startup.measure,
    "memory": memory.measure,
    "budgets": budgets.measure,
    "limits": limits.measure,
    "prices": printed.prices,
    "ledger": printed.ledger,
    "estimates": printed.estimates,
}
RESULTS: Final = ROOT / "benchmarks" / "results"
QUICK: Final = ROOT / "build" / "bench"


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    made = argparse.ArgumentParser(
        prog="make bench, or python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--only", action="append", choices=list(BENCHMARKS), help="leave the others out; may be repeated")
    made.add_argument("--quick", action="store_true", help="only show that it runs")
    made.add_argument("--results", type=Path, help="the folder to write to")
    made.add_argument("--recordings", type=Path, help="recorded calls that estimates are compared with")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run those that are named, or all; stop at the first that fails."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    asked = parser().parse_args(words)
    folder: Path = asked.results or (QUICK if asked.quick else RESULTS)
    options = Options(quick=asked.quick, tell=progress, recordings=asked.recordings)
    figures = {}
    for name in asked.only or BENCHMARKS:
        report = BENCHMARKS[name](options)
        figures[name] = dict(report.figures)
        write(folder, name, report, _command(words))
    if not asked.only:
        text = summary.text(figures)
        (folder / "summary.md").write_text(f"# Figures\n\n{text}\n{circumstances(_command(words))}", "utf-8")
        if folder == RESULTS:
            summary.put_into_pages(figures)


def write(folder: Path, name: str, report: Report, command: str) -> None:
    """Write a report and its charts to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, chart in report.charts.items():
        (folder / file).write_text(chart, "utf-8")
    pictures = "".join(f"![{report.title}]({file})\n\n" for file in report.charts)
    text = f"# {report.title}\n\n{circumstances(command)}\n{pictures}{report.text}"
    (folder / f"{name}.md").write_text(text, "utf-8")
    print(text, flush=True)


def _command(words: Sequence[str]) -> str:
    # A folder or file of this machine says nothing to another.
    shown = [Path(word).name if "/" in word else word for word in words]
    return f"make bench BENCH={shlex.quote(shlex.join(shown))}" if shown else "make bench"


if __name__ == "__main__":
    main()
