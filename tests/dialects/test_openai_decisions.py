"""OpenAI's decisions. The recordings are made, after the types of OpenAI's SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.capture.mock_wires import LIBRARIES, Wire, post
from tests.dialects.recorded_reading import CUT, packed, read, used
from tollspan.model.money import atto
from tollspan.model.records import Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tests.conftest import Metered
    from tollspan.model.records import Call

URL = "https://api.openai.com/v1/decisions"
REQUEST = {
    "model": "gpt-6-luna",
    "input": "buy now",
    "questions": [{"type": "predicate", "name": "spam", "question": "Is this an advertisement?"}],
}
ANSWER = {
    "answers": [{"type": "predicate", "name": "spam", "probability": 0.9}],
    "model": "gpt-6-luna",
    "usage": {
        "input_tokens": 250_000,
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 50_000},
        "output_tokens": 40,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 250_040,
    },
}


@CUT
def test_usage(size: int) -> None:
    """A decision states its usage as a response does."""
    facts = read("openai_decisions", packed(ANSWER), size, request=REQUEST)
    assert used(facts) == Usage(input=250_000, cache_read=50_000, cache_write=0, output=40, reasoning=0)
    assert (facts.operation, facts.response_model, facts.complete) == ("decisions", "gpt-6-luna", True)


@CUT
def test_error(size: int) -> None:
    """An error is one, and has no usage."""
    facts = read("openai_decisions", packed({"error": {"code": "invalid_model", "message": "no"}}), size)
    assert (facts.error_type, facts.usage) == ("invalid_model", None)


@pytest.mark.parametrize("lib", LIBRARIES)
def test_cost(calls: list[Call], lib: ModuleType) -> None:
    """Only input is billed, at the price of decisions: 0.10 USD per million tokens, 0.01 from the cache."""
    post(Wire(pieces=[packed(ANSWER)]), lib, URL, REQUEST)
    (call,) = calls
    assert (call.cost.amount, call.cost.quality, call.tier) == (atto("0.0205"), "measured", "decisions")


@pytest.mark.parametrize("lib", LIBRARIES)
def test_budget(instrumented: Callable[..., Metered], lib: ModuleType) -> None:
    """What a decision may cost is its input: a small one fits into a budget that no output of the model would."""
    instrumented(budget="0.0005 USD", budget_hard=True)
    small = post(Wire(pieces=[packed({**ANSWER, "usage": {"input_tokens": 40}})]), lib, URL, REQUEST)
    assert small.status_code == 200
    large = post(Wire(pieces=[packed(ANSWER)]), lib, URL, {**REQUEST, "input": "buy now " * 2000})
    assert large.status_code == 402
    assert large.json()["error"]["type"] == "insufficient_quota"  # the words of OpenAI's own format
