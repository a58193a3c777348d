"""OpenAI images. The recordings are made, after shapes that OpenAI and xAI send."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tests.dialects.recorded_reading import CUT, packed, read, sse, used
from tollspan.model.records import Usage

pytestmark = CUT

USAGE: dict[str, Any] = {
    "input_tokens": 76,
    "input_tokens_details": {"image_tokens": 64, "text_tokens": 12},
    "output_tokens": 120,
    "total_tokens": 196,
}


def test_tokens_by_kind(size: int) -> None:
    """Image models that count tokens separate text and images: each has its price."""
    details = {"image_tokens": 120, "text_tokens": 0}
    body = packed({"data": [{"b64_json": "aGk="}], "usage": {**USAGE, "output_tokens_details": details}})
    facts = read("openai_images", body, size, request={"model": "gpt-image-2", "n": 1})
    expected = Usage(input=76, output=120, input_text=12, input_image=64, output_text=0, output_image=120)
    assert used(facts) == expected
    assert facts.output_type == "image"


def test_images_by_the_piece(size: int) -> None:
    """Where no tokens are stated, the images that came are what is billed."""
    body = packed({"created": 1, "data": [{"url": "https://example.com/1"}, {"url": "https://example.com/2"}]})
    assert used(read("openai_images", body, size)) == Usage(units={"output_images": 2})


def test_stated_cost(size: int) -> None:
    """A cost is taken where it is all that the usage states (xAI)."""
    facts = read("openai_images", packed({"data": [{}], "usage": {"cost_in_usd_ticks": 200_000_000}}), size)
    assert facts.provider_cost == Decimal("0.02")


def test_vectors_are_another_models_work(size: int) -> None:
    """Vectors that another model drew are a part of their own."""
    drawn = {"model": "gpt-5.5", "input_tokens": 9, "output_tokens": 300, "reasoning_tokens": 50}
    body = packed({"data": [{}], "usage": USAGE, "svg_usage": drawn})
    facts = read("openai_images", body, size, request={"model": "gpt-image-2"})
    assert [(part.model, part.usage.input, part.usage.output) for part in facts.parts] == [
        ("gpt-image-2", 76, 120),
        ("gpt-5.5", 9, 300),
    ]


def test_stream(size: int) -> None:
    """In a stream partial images are output, and the last event holds the usage."""
    partial = {"type": "image_generation.partial_image", "b64_json": "aGk="}
    facts = read("openai_images", sse(partial, done=False), size)
    assert facts.output_seen
    assert not facts.complete
    last = {"type": "image_generation.completed", "b64_json": "aGk=", "usage": USAGE}
    facts = read("openai_images", sse(partial, last, done=False), size)
    assert (used(facts).output, facts.complete) == (120, True)
    assert used(facts).output_image == 120  # no kinds are stated: a stream has images only


def test_error(size: int) -> None:
    """An error with status 200 is an error, and no image is billed."""
    facts = read("openai_images", packed({"error": {"type": "image_generation_user_error"}}), size)
    assert (facts.error_type, facts.usage) == ("image_generation_user_error", None)
