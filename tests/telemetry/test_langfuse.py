"""Langfuse's usage is read in both of its ways of counting, and whatever else stands there is no usage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.model.records import Usage
from tollspan.telemetry.foreign_spans.langfuse import usage_in


@pytest.mark.parametrize(
    ("details", "usage"),
    [
        (
            {
                "input_tokens": 50,
                "output_tokens": 9,
                "total_tokens": 59,
                "input_tokens_details": {"cached_tokens": 20},
                "output_tokens_details": {"reasoning_tokens": 4},
            },
            Usage(input=50, output=9, cache_read=20, reasoning=4),
        ),
        ({"input": 12}, Usage(input=12)),
        (
            {"input_tokens": 5, "output_tokens": 9, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 30},
            Usage(input=55, output=9, cache_read=20, cache_write=30),
        ),
        (
            {
                "input": 5,
                "output": 9,
                "input_cache_creation": 0,
                "input_ephemeral_5m_input_tokens": 7,
                "input_ephemeral_1h_input_tokens": 8,
            },
            Usage(input=20, output=9, cache_write=15, cache_write_5m=7, cache_write_1h=8),
        ),
    ],
)
def test_both_ways_of_counting(details: dict[str, Any], usage: Usage) -> None:
    """OpenAI's object counts its parts in, buckets stand beside each other; ours counts in."""
    assert usage_in(json.dumps(details)) == usage


@pytest.mark.parametrize(
    "details", [None, 7, "", "[1]", "{", '{"total": 5}', '{"input": "5"}', '{"input": -5}', "[" * 9999]
)
def test_no_usage(details: object) -> None:
    """What is no object with counts is no usage, and no error."""
    assert usage_in(details) is None


@given(
    st.dictionaries(
        st.sampled_from(["input", "output", "prompt_tokens", "input_tokens_details"]),
        st.none() | st.integers() | st.text() | st.dictionaries(st.text(), st.integers()),
    )
)
def test_anything_is_read_or_not(details: dict[str, Any]) -> None:
    """Whatever an application reports, counts are never negative."""
    found = usage_in(json.dumps(details))
    assert found is None or (found.input or 0) >= 0
