"""Embeddings. The recordings are made, after shapes that OpenAI, Mistral, Voyage, OpenRouter and Cloudflare send."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tests.dialects.recorded_reading import CUT, packed, read, used
from tollspan.model.records import Usage
from tollspan.wire.reader import BULK

pytestmark = CUT

TOTAL = {"prompt_tokens": 8, "total_tokens": 8}
VECTORS = [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}]


def test_plain_answer(size: int) -> None:
    """Embeddings have an input and no output."""
    body = packed({"object": "list", "data": VECTORS, "model": "e-3", "usage": TOTAL})
    facts = read("openai_embeddings", body, size, request={"model": "e"})
    assert (facts.operation, facts.request_model, facts.response_model) == ("embeddings", "e", "e-3")
    assert used(facts) == Usage(input=8)
    assert facts.complete


def test_total_alone(size: int) -> None:
    """Where only the total is stated (Voyage), all of it is input."""
    body = packed({"data": VECTORS, "model": "voyage-3.5", "usage": {"total_tokens": 4}})
    assert used(read("openai_embeddings", body, size)) == Usage(input=4)


def test_stated_cost(size: int) -> None:
    """A gateway that states the cost is believed."""
    body = packed({"data": VECTORS, "id": "gen-1", "usage": {"prompt_tokens": 7, "total_tokens": 7, "cost": 1.4e-7}})
    facts = read("openai_embeddings", body, size)
    assert (facts.response_id, facts.provider_cost) == ("gen-1", Decimal("1.4E-7"))


def test_error(size: int) -> None:
    """An error with status 200 is an error, and has no usage."""
    facts = read("openai_embeddings", packed({"error": {"code": 400, "message": "no"}}), size)
    assert (facts.error_type, facts.usage) == ("400", None)


@pytest.mark.parametrize("indent", [None, 2])
def test_vectors_are_not_parsed(size: int, monkeypatch: pytest.MonkeyPatch, indent: int | None) -> None:
    """Of a long answer only what stands around its vectors is parsed, and the facts are those of a short one."""
    parsed: list[bytes] = []
    monkeypatch.setattr("tollspan.wire.reader.parsed", parsed.append)
    body = {"object": "list", "data": [{"index": 0, "embedding": [0.5] * BULK}], "model": "e-3", "usage": TOTAL}
    facts = read("openai_embeddings", json.dumps(body, indent=indent).encode(), max(size, 999))
    assert (used(facts), facts.response_model, parsed) == (Usage(input=8), "e-3", [])


def test_vectors_that_cannot_be_left_out(size: int) -> None:
    """Where the array is not where it is expected, the whole answer is parsed."""
    body = {"result": {"data": [[0.5] * BULK], "usage": TOTAL}}
    assert used(read("openai_embeddings", packed(body), max(size, 999))) == Usage(input=8)
