"""What is kept of a run of the benchmarks: a table for each, and the figures that the documentation quotes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks import summary
from benchmarks.measuring.reports import ROOT
from benchmarks.run import BENCHMARKS, RESULTS

if TYPE_CHECKING:
    from pathlib import Path


GUARANTEES: Final = ROOT / "docs" / "explanation" / "budgets-guarantees.md"


@pytest.mark.parametrize("page", [summary.README, summary.OVERHEAD], ids=lambda page: page.name)
def test_pages_quote_the_results(page: Path) -> None:
    """The figures in the documentation are those of the run that is kept, all of one run."""
    kept = (RESULTS / "summary.md").read_text("utf-8")
    quoted = page.read_text("utf-8").partition(summary.BEGIN)[2].partition(summary.END)[0]
    assert quoted
    assert quoted in kept


def test_every_benchmark_has_its_results() -> None:
    """A kept run has a table for each benchmark, with what it depends on: command, date, commit, machine, versions."""
    for name in BENCHMARKS:
        text = (RESULTS / f"{name}.md").read_text("utf-8")
        for word in ("command", "date", "commit", "machine", "packages"):
            assert f"\n- {word}: " in text, (name, word)


def test_the_page_on_budgets_quotes_the_results() -> None:
    """How far limits are used is shown as it was measured."""
    kept = (RESULTS / "limits.md").read_text("utf-8")
    rows = [line for line in GUARANTEES.read_text("utf-8").splitlines() if re.match(r"\| \S+ \(\w+\): ", line)]
    assert len(rows) > 3
    assert all(row in kept for row in rows)
