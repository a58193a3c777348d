"""The lines of an invoice say what was counted at which rate, and sum to the cost."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.prices.price_rows import NOON, TABLE
from tollspan.model.records import Billable, Part, Usage
from tollspan.prices.invoice import Item, invoice


def call(model: str, label: str, usage: Usage, parts: tuple[Part, ...] = ()) -> Billable:
    """Make what is priced."""
    return Billable(model=model, price_providers=(label,), usage=usage, parts=parts)


def test_lines_of_a_long_call() -> None:
    """5,000 fresh and 295,000 cached tokens above 272k, 1,000 out, a search: each with its count, rate and place."""
    usage = Usage(input=300_000, cache_read=295_000, output=1000, units={"web_searches": 1})
    made = invoice(call("gpt-round", "openai", usage), TABLE, NOON)
    assert set(made.items) == {
        Item("input", 5_000, 4 * 10**18, 2 * 10**16, "gpt-round", 272_000),
        Item("cache_read", 295_000, 10**18, 295 * 10**15, "gpt-round", 272_000),
        Item("output", 1_000, 15 * 10**18, 15 * 10**15, "gpt-round", 272_000),
        Item("web_searches", 1, 2 * 10**22, 2 * 10**16, "gpt-round"),
    }


def test_lines_of_passes_name_their_pass_and_model() -> None:
    """Each pass stands under its own model's key."""
    parts = (
        Part(kind="message", model=None, usage=Usage(input=10)),
        Part(kind="advisor_message", model="claude-grand-5", usage=Usage(output=20)),
        Part(kind="advisor_message", model="claude-nobody", usage=Usage(output=20)),
    )
    made = invoice(call("claude-round-5", "anthropic", Usage(input=10), parts), TABLE, NOON)
    assert [(item.part, item.key) for item in made.items] == [
        ("message", "claude-round-5"),
        ("advisor_message", "claude-grand-5"),
    ]
    assert made.cost.quality == "floor"


def test_a_model_without_a_price_has_no_lines() -> None:
    """Nothing to show, and the cost says unpriced."""
    made = invoice(call("gpt-nobody", "openai", Usage(input=10)), TABLE, NOON)
    assert (made.items, made.cost.quality) == ((), "unpriced")


_count = st.none() | st.integers(min_value=0, max_value=10**6)
_usages = st.builds(
    Usage,
    **{name: _count for name in Usage.__slots__ if name != "units"},
    units=st.dictionaries(st.sampled_from(["web_searches", "input_seconds", "pages", "queries"]), st.integers(0, 9)),
)


@given(
    _usages,
    st.sampled_from(
        [("gpt-round", "openai"), ("gpt-ear", "openai"), ("scribe-1", "openai"), ("claude-round-5", "anthropic")]
    ),
    st.sampled_from([None, "flex", "batch"]),
)
def test_lines_sum_to_the_cost(usage: Usage, model: tuple[str, str], tier: str | None) -> None:
    """However the call is made up, invoice and price agree to the last atto-dollar, kind by kind."""
    made = invoice(replace(call(*model, usage), tier=tier), TABLE, NOON)
    by_kind: dict[str, int] = {}
    for item in made.items:
        by_kind[item.kind] = by_kind.get(item.kind, 0) + item.amount
    if made.cost.computed is None:
        assert not any(by_kind.values())
    else:
        assert {kind: amount for kind, amount in by_kind.items() if amount} == {
            kind: amount for kind, amount in made.cost.breakdown.items() if amount
        }
