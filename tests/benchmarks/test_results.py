"""What is kept of a run of the benchmarks: a table for each, and the figures that the README quotes."""

from __future__ import annotations

from pathlib import Path

from benchmarks import summary
from benchmarks.run import BENCHMARKS, RESULTS

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def test_readme_quotes_the_results() -> None:
    """The figures in the README are those of the run that is kept, all of one run."""
    kept = (RESULTS / "summary.md").read_text("utf-8")
    quoted = README.partition(summary.BEGIN)[2].partition(summary.END)[0]
    assert quoted
    assert quoted in kept


def test_every_benchmark_has_its_results() -> None:
    """A kept run has a table for each benchmark, with what it depends on: command, date, commit, machine, versions."""
    for name in BENCHMARKS:
        text = (RESULTS / f"{name}.md").read_text("utf-8")
        for word in ("command", "date", "commit", "machine", "packages"):
            assert f"\n- {word}: " in text, (name, word)
