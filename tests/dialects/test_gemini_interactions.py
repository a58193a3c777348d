"""Gemini interactions; every recording here is made."""

from __future__ import annotations

from typing import Any

import pytest

from tests.dialects.recorded_reading import SSE, Made, is_inference, named_events, packed, play
from tollspan.model.records import Usage

URL = "https://generativelanguage.googleapis.com/v1beta/interactions"
SIZES = [1, 7, 10**9]

USAGE = {
    "total_tokens": 360,
    "total_input_tokens": 100,
    "total_cached_tokens": 60,
    "total_output_tokens": 40,
    "total_thought_tokens": 20,
    "total_tool_use_tokens": 200,
    "input_tokens_by_modality": [{"modality": "text", "tokens": 90}, {"modality": "image", "tokens": 10}],
    "tool_use_tokens_by_modality": [{"modality": "text", "tokens": 200}],
    "cached_tokens_by_modality": [{"modality": "image", "tokens": 5}],
    "grounding_tool_count": [{"type": "google_search", "count": 3}, {"type": "somebody_elses", "count": 1}],
}
EXPECTED = Usage(
    input=300,
    output=60,
    cache_read=60,
    reasoning=20,
    input_text=290,
    input_image=10,
    cache_read_image=5,
    units={"web_searches": 3},
)


def interaction(**more: Any) -> dict[str, Any]:
    """Return an interaction object."""
    return {"id": "v1_x", "model": "gemini-2.5-flash", "object": "interaction", **more}


STREAM = named_events(
    ("interaction.created", {"event_type": "interaction.created", "interaction": interaction(status="in_progress")}),
    ("step.start", {"event_type": "step.start", "index": 0, "step": {"type": "thought"}}),
    ("step.delta", {"event_type": "step.delta", "index": 0, "delta": {"type": "thought_signature", "signature": "s"}}),
    ("step.delta", {"event_type": "step.delta", "index": 1, "delta": {"type": "text", "text": "Hi"}}),
    (
        "interaction.completed",
        {
            "event_type": "interaction.completed",
            "interaction": interaction(status="completed", usage=USAGE, service_tier="standard"),
        },
    ),
)


@pytest.mark.parametrize("size", SIZES)
def test_a_stream_ends_with_its_usage(size: int) -> None:
    """Tool prompts are input, thoughts are output, cached tokens are inside the input."""
    facts = play(Made(url=URL, request={"model": "m", "stream": True}, answer=STREAM, content_type=SSE), size)
    assert facts.usage == EXPECTED
    assert (facts.response_id, facts.response_model, facts.tier) == ("v1_x", "gemini-2.5-flash", "standard")
    assert facts.finish_reasons == ["completed"]
    assert facts.complete
    assert facts.output_seen


def test_a_plain_answer_is_the_same_object() -> None:
    """The plain answer is the object that ends a stream."""
    facts = play(Made(url=URL, answer=packed(interaction(status="incomplete", usage=USAGE))))
    assert facts.usage == EXPECTED
    assert facts.finish_reasons == ["incomplete"]


def test_a_signature_is_no_output() -> None:
    """Before the first text there is a signature, which shows the reader nothing."""
    event = {"event_type": "step.delta", "delta": {"type": "thought_signature", "signature": "s"}}
    assert not play(Made(url=URL, answer=named_events(("step.delta", event)), content_type=SSE)).output_seen


def test_usage_so_far_is_kept() -> None:
    """An event's metadata may count what was used until then: all that is known of a stream that breaks off."""
    event = {"event_type": "step.delta", "delta": {"text": "x"}, "metadata": {"usage": {"total_input_tokens": 11}}}
    facts = play(Made(url=URL, answer=named_events(("step.delta", event)), content_type=SSE))
    assert facts.usage == Usage(input=11)
    assert not facts.complete


def test_a_background_interaction_has_no_usage_yet() -> None:
    """What runs in the background is fetched later; the answer that starts it used nothing that is known."""
    request = {"agent": "deep-research", "background": True, "previous_interaction_id": "v1_w"}
    facts = play(Made(url=URL, request=request, answer=packed(interaction(status="in_progress"))))
    assert (facts.usage, facts.finish_reasons) == (None, [])
    assert (facts.request_model, facts.previous_response_id) == ("deep-research", "v1_w")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (named_events(("error", {"event_type": "error", "error": {"code": "gateway_timeout"}})), "gateway_timeout"),
        (named_events(("error", {"error": {"message": "?"}})), "error"),
    ],
)
def test_an_error_inside_a_stream_is_seen(answer: bytes, error: str) -> None:
    """An error event names itself, if it can."""
    assert play(Made(url=URL, answer=answer, content_type=SSE)).error_type == error


def test_fetching_and_cancelling_are_no_calls() -> None:
    """A stored interaction's address is no inference path."""
    assert not is_inference(f"{URL}/v1_x")
    assert not is_inference(f"{URL}/v1_x/cancel")


def test_an_interaction_that_failed_says_so() -> None:
    """A plain answer with the status `failed` is an error with the code that it names."""
    facts = play(Made(url=URL, answer=packed(interaction(status="failed", error={"code": "internal"}))))
    assert (facts.error_type, facts.finish_reasons) == ("internal", ["failed"])
    assert play(Made(url=URL, answer=packed({"error": {"message": "?"}}))).error_type == "error"


def test_the_request_is_read() -> None:
    """The request states length, effort, tier and JSON."""
    request = {
        "model": "m",
        "generation_config": {"max_output_tokens": 64, "thinking_level": "low"},
        "service_tier": "flex",
        "response_mime_type": "application/json",
    }
    facts = play(Made(url=URL, request=request, answer=b"{}"))
    assert (facts.max_output, facts.reasoning_level, facts.request_tier) == (64, "low", "flex")
    assert facts.output_type == "json"
