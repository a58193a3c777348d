"""Cohere's chat (v1 and v2), generate, embed and rerank; every recording here is made."""

from __future__ import annotations

from typing import Any

import pytest

from tests.dialects.recorded_reading import SSE, Made, is_inference, lines, named_events, packed, play
from tollspan.model.records import Usage

HOST = "https://api.cohere.com"
SIZES = [1, 7, 10**9]

USAGE = {
    "billed_units": {"input_tokens": 6.0, "output_tokens": 33},
    "tokens": {"input_tokens": 501, "output_tokens": 35},
}

STREAM_V2 = named_events(
    (
        "message-start",
        {"id": "c-1", "type": "message-start", "delta": {"message": {"role": "assistant", "content": []}}},
    ),
    ("content-start", {"type": "content-start", "delta": {"message": {"content": {"type": "text", "text": ""}}}}),
    ("content-delta", {"type": "content-delta", "delta": {"message": {"content": {"text": "Hi"}}}}),
    ("message-end", {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": USAGE}}),
)
STREAM_V1 = lines(
    {"is_finished": False, "event_type": "stream-start", "generation_id": "g"},
    {"is_finished": False, "event_type": "text-generation", "text": "Hi"},
    {
        "is_finished": True,
        "event_type": "stream-end",
        "finish_reason": "COMPLETE",
        "response": {"response_id": "c-1", "text": "Hi", "meta": USAGE},
    },
)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("path", "answer", "kind"),
    [
        ("/v2/chat", STREAM_V2, SSE),
        ("/v2/chat", STREAM_V2 + b"data: [DONE]\n\n", SSE),
        ("/v1/chat", STREAM_V1, "application/stream+json"),
    ],
)
def test_what_is_billed_counts(path: str, answer: bytes, kind: str, size: int) -> None:
    """Billed units count, not the tokens that include the template; both versions of the stream end with them."""
    request = {"model": "command-a-03-2025", "stream": True}
    facts = play(Made(url=HOST + path, request=request, answer=answer, content_type=kind), size)
    assert facts.usage == Usage(input=6, output=33)
    assert (facts.response_id, facts.request_model, facts.response_model) == ("c-1", "command-a-03-2025", None)
    assert facts.finish_reasons == ["COMPLETE"]
    assert facts.complete
    assert facts.output_seen


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # More cached than billed: the cache is counted among the unbilled tokens too.
        ({**USAGE, "cached_tokens": 448}, Usage(input=6, output=33)),
        ({**USAGE, "cached_tokens": 4}, Usage(input=6, output=33, cache_read=4)),
        (
            {"billed_units": {"input_tokens": 6, "output_tokens": 33}, "tokens": {"reasoning_tokens": 20}},
            Usage(input=6, output=33, reasoning=20),
        ),
        ({"tokens": {"input_tokens": 501, "output_tokens": 35}}, Usage(input=501, output=35)),
        ({}, None),
    ],
)
def test_parts_lie_inside_what_is_billed(usage: dict[str, Any], expected: Usage | None) -> None:
    """Cached and reasoning tokens are parts of the billed counts only where they fit into them."""
    answer = packed({"id": "c-1", "finish_reason": "COMPLETE", "usage": usage})
    assert play(Made(url=f"{HOST}/v2/chat", answer=answer)).usage == expected


@pytest.mark.parametrize("size", SIZES)
def test_a_stream_may_end_in_an_error(size: int) -> None:
    """A stream that ends with the reason ERROR failed, though its status was 200."""
    ending = {"finish_reason": "ERROR", "usage": {}, "error": "No valid response generated."}
    answer = named_events(("message-end", {"type": "message-end", "delta": ending}))
    facts = play(Made(url=f"{HOST}/v2/chat", request={"stream": True}, answer=answer, content_type=SSE), size)
    assert (facts.error_type, facts.usage) == ("ERROR", None)


@pytest.mark.parametrize(
    ("event", "seen"),
    [
        ({"type": "message-start", "delta": {"message": {"role": "assistant"}}}, False),
        ({"type": "content-start", "delta": {"message": {"content": {"type": "thinking", "thinking": ""}}}}, False),
        ({"type": "content-delta", "delta": {"message": {"content": {"thinking": "well"}}}}, True),
        ({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I"}}}, True),
        (
            {"type": "tool-call-start", "delta": {"message": {"tool_calls": {"id": "t", "function": {"name": "f"}}}}},
            True,
        ),
        ({"type": "citation-start", "delta": {"message": {"citations": {"start": 1}}}}, False),
    ],
)
def test_what_is_output(event: dict[str, Any], seen: bool) -> None:
    """Text, thoughts, plans and tool calls are output; roles, empty starts and citations are not."""
    answer = named_events((event["type"], event))
    assert play(Made(url=f"{HOST}/v2/chat", answer=answer, content_type=SSE)).output_seen is seen


@pytest.mark.parametrize(
    ("path", "billed", "operation", "usage"),
    [
        ("/v2/embed", {"input_tokens": 3, "image_tokens": 0}, "embeddings", Usage(input=3, input_image=0)),
        ("/v1/embed", {"images": 1}, "embeddings", Usage(units={"input_images": 1})),
        ("/v2/rerank", {"search_units": 2}, "rerank", Usage(units={"search_units": 2})),
        ("/v1/generate", {"input_tokens": 5, "output_tokens": 57}, "text_completion", Usage(input=5, output=57)),
    ],
)
def test_other_calls_bill_in_their_own_units(path: str, billed: dict[str, int], operation: str, usage: Usage) -> None:
    """Embedding counts tokens or images, reranking counts search units."""
    facts = play(Made(url=HOST + path, answer=packed({"id": "e-1", "meta": {"billed_units": billed}})))
    assert (facts.operation, facts.usage, facts.response_id) == (operation, usage, "e-1")


def test_control_calls_are_no_inference() -> None:
    """Tokenising and listing models cost nothing."""
    assert not is_inference(f"{HOST}/v1/tokenize")
    assert not is_inference(f"{HOST}/v1/models")
