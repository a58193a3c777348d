"""OpenAI's usage object is read by two ways, which agree."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from tollspan.model.records import Facts
from tollspan.wire.dialects.openai_tokens import read_plain_usage, read_stated_cost, read_usage

ODD: st.SearchStrategy[Any] = st.sampled_from([None, True, 5.0, 1.5, "7", "", False, 10**16, [], {}])
NUMBERS = st.integers(-1, 60) | ODD
DETAILS = st.dictionaries(
    st.sampled_from(
        ["cached_tokens", "audio_tokens", "reasoning_tokens", "accepted_prediction_tokens", "image_tokens"]
    ),
    NUMBERS,
)


@given(
    found=st.fixed_dictionaries(
        {},
        optional={
            "prompt_tokens": NUMBERS,
            "completion_tokens": NUMBERS,
            "total_tokens": NUMBERS | st.just(30),
            "prompt_tokens_details": DETAILS | NUMBERS,
            "completion_tokens_details": DETAILS | NUMBERS,
            "cost": NUMBERS,
        },
    )
)
@example(found={"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30})
@example(
    found={
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
)
def test_the_short_way_reads_what_the_long_way_reads(found: dict[str, Any]) -> None:
    """A usage object with OpenAI's own keys is read by a shorter function, which returns the same or None."""
    usage = read_plain_usage(found)
    assert usage is None or usage == read_usage(found)
    if usage is not None:
        facts = Facts()
        read_stated_cost(facts, found)
        assert facts.provider_cost is None
