"""A budget that expects is overshot by no more than the README states."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.budget.expected import CONCURRENCY, SEEDS, SPREADS, measure, rows

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_overshoot_is_bounded(concurrency: int, spread: str) -> None:
    """Past the limit is at most what the calls under way cost beyond what they had reserved: each its bound at most."""
    for seed in range(SEEDS):
        measured = measure(concurrency, spread, seed)
        assert measured.calls > concurrency
        assert measured.over <= measured.excess <= concurrency * measured.bound


def test_calls_that_cost_the_same_stay_within() -> None:
    """Where calls cost what was expected, nothing is overshot."""
    assert all(measure(concurrency, "all cost the same", 0).over == 0 for concurrency in CONCURRENCY)


def test_readme_shows_what_is_measured() -> None:
    """The README's table is what `python -m tests.budget.expected` prints."""
    assert "\n".join(rows()) in README.read_text("utf-8")
