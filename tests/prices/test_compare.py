"""Two tables side by side, and one against what is true of all price lists."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from tests.prices.price_rows import FILE, TABLE, table
from tollspan.prices.compare import Change, diff, verify


def entry(**prices: Any) -> dict[str, Any]:
    """Make an entry of a price file."""
    return {"litellm_provider": "openai", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, **prices}


def test_a_table_does_not_differ_from_itself() -> None:
    """Nothing added, removed or changed."""
    found = diff(TABLE, table())
    assert (found.added, found.removed, found.changed) == ((), (), ())


def test_what_is_new_gone_and_changed() -> None:
    """Rows by key, prices by field, with the factor between them."""
    later = table(
        **{"gpt-new": entry(), "gpt-round-mini": None, "gpt-ear": {**FILE["gpt-ear"], "input_cost_per_token": 3e-6}}
    )
    found = diff(TABLE, later)
    assert (found.added, found.removed) == (("gpt-new",), ("gpt-round-mini",))
    assert found.changed == (Change("gpt-ear", "input", 10**18, 3 * 10**18),)
    assert found.changed[0].factor == 3
    assert not found.changed[0].suspicious


@pytest.mark.parametrize(
    ("before", "after", "field", "suspicious"),
    [
        (100, 500, "input", False),
        (100, 501, "input", True),
        (100, 20, "input", False),
        (100, 19, "input", True),
        (100, 0, "cache_read", True),
        (0, 100, "input", False),
        (100, None, "output", True),
        (100, None, "cache_read", False),
        (0, None, "output", False),
        (None, 100, "input", False),
    ],
)
def test_which_changes_are_not_believed(before: int | None, after: int | None, field: str, *, suspicious: bool) -> None:
    """More than five times up or down, to zero, or a main price gone; what was free or unknown may get a price."""
    assert Change("m", field, before, after).suspicious is suspicious


def test_a_factor_needs_two_prices() -> None:
    """From nothing, or from zero, there is none."""
    assert Change("m", "input", None, 5).factor is None
    assert Change("m", "input", 0, 5).factor is None
    assert Change("m", "input", 4, 2).factor == Fraction(1, 2)


@pytest.mark.parametrize(
    ("prices", "what"),
    [
        ({"input_cost_per_token": 0.002}, "input costs more than 1,000 USD per million tokens"),
        ({"cache_read_input_token_cost": 2e-6}, "a cache read costs more than the input"),
        (
            {"cache_creation_input_token_cost_above_1hr": 6e-6},
            "a 1h cache write costs 6.00 times the input, not about twice",
        ),
        ({"input_cost_per_token_batches": 3e-6}, "input costs more in a batch than at once"),
        ({"output_cost_per_token_above_200k_tokens": 1e-6}, "output>200k costs less than output"),
    ],
)
def test_what_is_odd_about_a_row(prices: dict[str, float], what: str) -> None:
    """Each invariant that is broken is said in words."""
    findings = verify(table({"odd": entry(**prices)}))
    assert [(finding.key, finding.what) for finding in findings] == [("odd", what)]


def test_an_ordinary_table_has_no_findings() -> None:
    """A 1h write at twice the input, a cheaper cache, a dearer long context: all as it should be."""
    assert verify(TABLE) == ()
