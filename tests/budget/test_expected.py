"""A budget that expects is overshot by no more than the documentation states."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.budget.expected import CONCURRENCY, SEEDS, SPREADS, measure, rows

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "budgets-guarantees.md"


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("concurrency", CONCURRENCY)
def test_overshoot_is_bounded(concurrency: int, spread: str) -> None:
    """Past the limit is at most what the calls under way cost beyond what they had reserved: each its bound at most."""
    for seed in range(SEEDS):
        measured = measure(concurrency, spread, seed)
        assert measured.calls > concurrency
        assert measured.over <= measured.excess <= concurrency * measured.bound


@pytest.mark.parametrize("spread", SPREADS)
def test_one_at_a_time_passes_by_less_than_one_call(spread: str) -> None:
    """With one call at a time the limit is passed by less than the last call cost."""
    for seed in range(SEEDS):
        measured = measure(1, spread, seed)
        assert measured.over < measured.last


def test_calls_that_cost_the_same_pass_by_less_than_one() -> None:
    """Where calls cost what was expected, the limit is passed by less than one call, however many are under way."""
    for concurrency in CONCURRENCY:
        measured = measure(concurrency, "all cost the same", 0)
        assert measured.over < measured.last


def test_documentation_shows_what_is_measured() -> None:
    """The table in docs/explanation/budgets-guarantees.md is what `python -m tests.budget.expected` prints."""
    assert "\n".join(rows()) in PAGE.read_text("utf-8")
