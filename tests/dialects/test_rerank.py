"""Reranking. The recordings are made, after shapes that Voyage, llama.cpp, OpenRouter and Cohere send."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.dialects.recorded_reading import CUT, packed, read, used
from tollspan.model.records import Usage

pytestmark = CUT


@pytest.mark.parametrize(
    ("stated", "usage"),
    [
        ({"usage": {"total_tokens": 43}}, Usage(input=43)),
        ({"usage": {"prompt_tokens": 55, "total_tokens": 55}}, Usage(input=55)),
        ({"usage": {"search_units": 1, "cost": 0.002}}, Usage(units={"search_units": 1})),
        ({"meta": {"billed_units": {"search_units": 2}}}, Usage(units={"search_units": 2})),
    ],
)
def test_usage(size: int, stated: dict[str, Any], usage: Usage) -> None:
    """Reranking is billed by the tokens it reads, or by search units."""
    facts = read("rerank", packed({"model": "rerank-2", "results": [], **stated}), size, request={"model": "rerank-2"})
    assert used(facts) == usage
    assert facts.operation == "rerank"


def test_stated_cost(size: int) -> None:
    """A gateway that states the cost is believed."""
    body = packed({"id": "gen-1", "results": [], "usage": {"total_tokens": 17, "cost": 3.4e-7}})
    assert read("rerank", body, size).provider_cost == Decimal("3.4E-7")


def test_nothing_told(size: int) -> None:
    """A response that states no usage has none: it is not free."""
    assert read("rerank", packed({"results": []}), size).usage is None
