"""Amounts convert exactly in both directions, and the facts cannot be changed once they are made."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.model.money import ATTO, atto, usd
from tollspan.model.records import UNITS, UNPRICED, Billable, Call, Cost, Facts, Part, Usage, billable_of, text_usage
from tollspan.model.text import as_text

FACTS = (Usage(), Part(kind="message", model=None, usage=Usage()), Billable(usage=Usage()), Cost())
CALL = Call(id="1", operation_id="op", provider="openai", operation="chat", started_at=0, duration=0.5)


@given(st.integers(min_value=-(10**40), max_value=10**40))
def test_atto_survives_the_way_through_dollars(amount: int) -> None:
    """No amount changes on its way to dollars and back, however large: sums shown are sums kept."""
    assert atto(usd(amount)) == amount


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=18))
def test_dollars_survive_the_way_through_atto(dollars: Decimal) -> None:
    """Dollars with up to 18 decimals are kept to the last digit."""
    assert usd(atto(dollars)) == dollars


@given(st.lists(st.decimals(min_value=0, max_value=10, places=12), max_size=50))
def test_sums_do_not_depend_on_where_they_are_added(prices: list[Decimal]) -> None:
    """The sum of atto-dollars equals that of the dollars, so a total never drifts from its parts."""
    assert usd(sum(atto(price) for price in prices)) == sum(prices, Decimal(0))


@given(st.integers(min_value=0, max_value=10**12), st.integers(min_value=0, max_value=18))
def test_a_float_is_read_as_it_is_written(digits: int, places: int) -> None:
    """A float counts as its shortest text says, never as its binary expansion."""
    written = float(f"{digits}e-{places}")
    assert atto(written) == atto(str(written))


@pytest.mark.parametrize(
    ("dollars", "expected"),
    [
        (0, 0),
        (1, ATTO),
        (-2, -2 * ATTO),
        (0.1, ATTO // 10),
        (3e-7, 3 * 10**11),
        ("0.000001", 10**12),
        (Decimal("1e-18"), 1),
    ],
)
def test_atto_reads_every_kind_of_number(dollars: float | Decimal | str, expected: int) -> None:
    """Whole numbers, floats, text and decimals of the same amount make the same atto-dollars."""
    assert atto(dollars) == expected


@pytest.mark.parametrize(("dollars", "expected"), [("0.5e-18", 0), ("1.5e-18", 2), ("2.5e-18", 2), ("-0.5e-18", 0)])
def test_what_atto_cannot_hold_is_rounded_half_even(dollars: str, expected: int) -> None:
    """Halves of an atto-dollar go to the even neighbour, so that rounding leans neither way."""
    assert atto(dollars) == expected


@pytest.mark.parametrize("fact", [*FACTS, CALL])
def test_facts_are_frozen_and_closed(fact: Usage | Part | Billable | Cost | Call) -> None:
    """A record cannot change under its readers, and accepts no undeclared field."""
    with pytest.raises(FrozenInstanceError):
        setattr(fact, fields(fact)[0].name, None)
    assert not hasattr(fact, "__dict__")


def test_usage_starts_as_not_reported() -> None:
    """Every count that was not reported is None, never zero, and there are no other units."""
    empty = Usage()
    assert {getattr(empty, field.name) for field in fields(Usage) if field.name != "units"} == {None}
    assert empty.units == {}


def test_two_usages_share_no_units() -> None:
    """The default of `units` belongs to its owner alone."""
    assert Usage().units is not Usage().units


def test_a_cost_is_unpriced_until_it_is_priced() -> None:
    """Without a price there is no amount: unpriced is None and says so, and is not 0.00."""
    assert Cost() == UNPRICED
    assert (UNPRICED.amount, UNPRICED.quality, UNPRICED.source, UNPRICED.breakdown) == (None, "unpriced", None, {})


def test_facts_start_as_not_said() -> None:
    """A new attempt knows nothing but its operation; what has not been said is None, empty or false."""
    facts = Facts("embeddings")
    values = {name: getattr(facts, name) for name in Facts.__slots__}
    assert values.pop("operation") == "embeddings"
    assert not any(values.values())


def test_two_attempts_share_no_finish_reasons() -> None:
    """Facts that are filled for one attempt do not show up in another."""
    first, second = Facts(), Facts()
    first.finish_reasons.append("stop")
    assert second.finish_reasons == []


@pytest.mark.parametrize(
    ("request_model", "response_model", "expected"),
    [("gpt-4o", "gpt-4o-2024-08-06", "gpt-4o-2024-08-06"), ("gpt-4o", None, "gpt-4o"), (None, None, None)],
)
def test_the_served_model_comes_before_the_one_asked_for(
    request_model: str | None, response_model: str | None, expected: str | None
) -> None:
    """A call is named after the model that served it, where the provider said which."""
    assert replace(CALL, request_model=request_model, response_model=response_model).model == expected


def test_units_are_plain_names() -> None:
    """Names of units are lower-case words joined by underscores: they become parts of attribute names."""
    assert [name for name in UNITS if not name.replace("_", "").isalpha() or name != name.lower()] == []


def test_records_filled_slot_by_slot_are_the_records() -> None:
    """What every call makes is filled field by field, for speed: equal to one made the usual way, and frozen."""
    usage = text_usage(tokens_in=9, tokens_out=8, cache_read=7, reasoning=6, audio_in=5, audio_out=None)
    billable = billable_of(Facts("chat"), ("openai",), usage)
    assert usage == Usage(input=9, output=8, cache_read=7, reasoning=6, input_audio=5)
    assert billable == Billable(usage=usage, price_providers=("openai",), operation="chat")
    for made in (usage, billable):
        with pytest.raises(FrozenInstanceError):
            setattr(made, fields(made)[0].name, None)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("gpt-4o", "gpt-4o"),
        ("日本 é \u200d 👩\u200d💻", "日本 é \u200d 👩\u200d💻"),
        ("half \ud83d", "half ?"),
        ("\x1b]0;title\x07\x1b[31mred", "?]0;title??[31mred"),
        ("two\nlines\t\x7f\x9b", "two?lines???"),
        ("safe\u202egnp.exe\u2066 \u2028end", "safe?gnp.exe? ?end"),
    ],
)
def test_texts_that_everybody_takes(given: str, text: str) -> None:
    """What is no Unicode and what steers a terminal is a question mark; letters of any kind stay as they are."""
    assert as_text(given) == text
