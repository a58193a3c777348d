"""Prices of one's own: units, discounts, dates, and what is said to someone who mistypes one."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.prices.price_rows import TABLE, cost, dollars
from tollspan.model.errors import SettingsError
from tollspan.prices.overrides import parse


def own(*entries: dict[str, Any]) -> Any:
    """Lay entries over the made table."""
    return TABLE.with_overrides(parse(entries))


@pytest.mark.parametrize(
    ("unit", "amount"), [("per_token", 2.5e-06), ("per_1k", 0.0025), ("per_1m", 2.5), ("per_1m", "2.50")]
)
def test_units_of_token_prices(unit: str, amount: float | str) -> None:
    """The same price per token, per thousand and per million costs the same."""
    prices = own({"model": "acme-70b", "unit": unit, "input": amount, "output": amount})
    assert dollars(cost("acme-70b", "acme", input=1000, output=1000, prices=prices)) == Decimal("0.005")


def test_a_model_of_ones_own_needs_no_provider() -> None:
    """A self-hosted model has no price provider: an entry for the model alone prices it."""
    prices = own({"model": "acme-70b", "unit": "per_1m", "input": 1, "output": 2})
    priced = cost("acme-70b", "", input=1000, output=1000, prices=prices)
    assert (dollars(priced), priced.price_key, priced.rule) == (Decimal("0.003"), "acme-70b", "own")


def test_per_second_and_per_request() -> None:
    """12 seconds at 0.0002, and one request at 0.01, whatever the tokens."""
    prices = own(
        {"model": "acme-ear", "unit": "per_second", "input": 0.0002},
        {"model": "acme-flat", "unit": "per_request", "price": 0.01},
    )
    assert dollars(cost("acme-ear", "", units={"input_seconds": 12}, prices=prices)) == Decimal("0.0024")
    flat = cost("acme-flat", "", input=10, output=10, prices=prices)
    assert (dollars(flat), flat.missing, flat.quality) == (Decimal("0.01"), (), "measured")


def test_a_negotiated_price_replaces_what_it_names() -> None:
    """Input is set to 1; the output and the cache keep the list's prices."""
    prices = own({"model": "gpt-round", "provider": "openai", "unit": "per_1m", "input": 1.0})
    priced = cost("gpt-round", input=2000, cache_read=1000, output=1000, prices=prices)
    assert dollars(priced) == Decimal("0.0115")
    assert priced.rule == "exact+own"
    assert "+own." in str(priced.table_version)


def test_thresholds_and_tiers_of_ones_own() -> None:
    """A field may name the size and the tier that it is for."""
    prices = own({"model": "gpt-round", "unit": "per_1m", "input>272k": 3, "input/flex": 0.5})
    assert dollars(cost("gpt-round", input=300_000, prices=prices)) == Decimal("0.9")
    assert dollars(cost("gpt-round", input=1000, tier="flex", prices=prices)) == Decimal("0.0005")


def test_a_discount_by_provider_and_by_model() -> None:
    """15% off everything of a provider; a later entry for one model wins over it; others pay the list price."""
    prices = own({"provider": "openai", "multiplier": 0.85}, {"model": "gpt-ear", "multiplier": 0.5})
    assert dollars(cost("gpt-round", input=1000, prices=prices)) == Decimal("0.0017")
    assert dollars(cost("gpt-ear", input=1000, prices=prices)) == Decimal("0.0005")
    assert dollars(cost("gpt-round", "azure", input=1000, prices=prices)) == Decimal("0.003")
    searched = cost("gpt-round", input=0, output=0, units={"web_searches": 1}, prices=prices)
    assert dollars(searched) == Decimal("0.017")


def test_a_discount_reaches_dated_names_and_provider_families() -> None:
    """An entry for a model fits its dated names; one for vertex_ai fits the labels that go under it."""
    prices = own({"model": "gpt-round", "multiplier": 0.5}, {"provider": "vertex_ai", "multiplier": 0.5})
    assert dollars(cost("gpt-round-2026-01-02", input=1000, prices=prices)) == Decimal("0.001")
    assert dollars(cost("gpt-round-mini", input=1000, prices=prices)) == Decimal("0.0001")
    vertex = cost("claude-round-5", "vertex_ai-anthropic_models", input=1000, prices=prices)
    assert dollars(vertex) == Decimal("0.002")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2026, 6, 30, 23, 59, 59, tzinfo=UTC), "0.002"),
        (datetime(2026, 7, 1, tzinfo=UTC), "0.001"),
        (datetime(2026, 8, 31, 23, tzinfo=UTC), "0.001"),
        (datetime(2026, 9, 1, tzinfo=UTC), "0.002"),
    ],
)
def test_dates(at: datetime, expected: str) -> None:
    """An entry holds from its first day, to the day before `until`; a call is priced as of when it was made."""
    prices = own({"model": "gpt-round", "multiplier": 0.5, "from": date(2026, 7, 1), "until": "2026-09-01"})
    assert dollars(cost("gpt-round", input=1000, at=at, prices=prices)) == Decimal(expected)


def test_prices_in_other_units() -> None:
    """What is billed by neither tokens, seconds nor requests is priced per one of its unit."""
    prices = own({"model": "gpt-round", "per_unit": {"web_searches": 0.5}})
    assert dollars(cost("gpt-round", input=0, output=0, units={"web_searches": 1}, prices=prices)) == Decimal("0.5")


def test_without_entries_nothing_changes() -> None:
    """No entry, or one for something else, leaves the price as it was."""
    prices = own({"model": "other", "multiplier": 0.5})
    assert dollars(cost("gpt-round", input=1000, prices=prices)) == Decimal("0.002")
    assert cost("gpt-nobody", input=1000, prices=prices).amount is None


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"model": "m", "unit": "per_1m", "inputs": 1}, "unknown key 'inputs'; expected input, output"),
        (
            {"model": "m", "input": 1},
            "unknown key 'input'; expected a unit (per_token, per_1k, per_1m, per_second, per_request) for prices",
        ),
        (
            {"model": "m", "unit": "per_mile", "input": 1},
            "unit='per_mile' is not valid; expected per_token, per_1k, per_1m, per_second or per_request",
        ),
        ({"unit": "per_1m", "input": 1}, "names neither a model nor a provider"),
        ({"model": "m"}, "needs either prices, with their unit, or a multiplier"),
        ({"model": "m", "unit": "per_1m", "input": 1, "multiplier": 2}, "needs either prices"),
        (
            {"model": "m", "unit": "per_1m", "input": "cheap"},
            "input='cheap' is not valid; expected a price in US dollars (price 'cheap' is not a number)",
        ),
        (
            {"model": "m", "unit": "per_1m", "input": -1},
            "input=-1 is not valid; expected a price in US dollars (price '-1' is negative or not finite)",
        ),
        ({"model": "m", "unit": "per_1m", "input": float("nan")}, "is negative or not finite"),
        ({"model": "m", "unit": "per_1m", "input": True}, "input=True is not valid; expected a price in US dollars"),
        ({"model": "m", "multiplier": -0.5}, "multiplier=-0.5 is not valid; expected a number of zero or more"),
        ({"model": "m", "multiplier": "half"}, "multiplier='half' is not valid; expected a number"),
        ({"model": 5, "multiplier": 1}, "model=5 is not valid; expected a name"),
        (
            {"model": "m", "multiplier": 1, "from": "soon"},
            "from='soon' is not valid; expected a date such as 2026-07-01",
        ),
        ({"model": "m", "multiplier": 1, "from": 3}, "from=3 is not valid; expected a date"),
        ({"model": "m", "multiplier": 1, "from": "2026-07-01", "until": "2026-07-01"}, "is not before until"),
        (
            {"model": "m", "unit": "per_request", "input": 1},
            "unknown key 'input'; expected price with the unit per_request",
        ),
        (
            {"model": "m", "unit": "per_second", "price": 1},
            "unknown key 'price'; expected input, output with the unit per_second",
        ),
        ({"model": "m", "unit": "per_1m", "imput": 1}, "; did you mean 'input'?"),
        ({"model": "m", "unit": "per_1mm", "input": 1}, "; did you mean 'per_1m'?"),
        ({"modell": "m", "multiplier": 1}, "; did you mean 'model'?"),
        ({"model": "m", "per_unit": 5}, "per_unit=5 is not valid; expected a table of prices by unit: web_searches"),
        (
            {"model": "m", "per_unit": {"web_searches": "dear"}},
            "per_unit.web_searches='dear' is not valid; expected a price in US dollars",
        ),
        ({"model": "m", "per_unit": {"wishes": 1}}, "per_unit: unknown key 'wishes'; expected one of "),
    ],
)
def test_a_mistake_is_named_with_what_is_expected(entry: dict[str, Any], says: str) -> None:
    """The message names the entry, the key or value, and what would be right."""
    with pytest.raises(SettingsError) as told:
        parse([{"model": "fine", "multiplier": 1}, entry])
    assert str(told.value).startswith("[[prices]] number 2: ")
    assert says in str(told.value)
