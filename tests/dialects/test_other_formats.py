"""Cloudflare's run, Black Forest Labs, text generation inference, Claude on Vertex; every recording here is made."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.dialects.recorded_reading import SSE, Made, events, is_inference, named_events, packed, play
from tollspan.model.records import Usage

SIZES = [1, 7, 10**9]
CLOUDFLARE = "https://api.cloudflare.com/client/v4/accounts/a/ai/run/@cf/meta/llama-3.2-3b-instruct"
VERTEX = "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5/publishers/anthropic/models"


@pytest.mark.parametrize("size", SIZES)
def test_cloudflare_streams_usage_with_the_last_event(size: int) -> None:
    """The model is in the path, the usage in the last event, in OpenAI's names."""
    answer = events(
        {"response": "Hi", "p": "abc"}, {"response": "", "usage": {"prompt_tokens": 19, "completion_tokens": 3}}
    )
    facts = play(
        Made(url=CLOUDFLARE, request={"stream": True}, answer=answer + b"data: [DONE]\n\n", content_type=SSE), size
    )
    assert facts.usage == Usage(input=19, output=3)
    assert facts.request_model == "@cf/meta/llama-3.2-3b-instruct"
    assert facts.complete
    assert facts.output_seen


def test_cloudflare_wraps_its_answer() -> None:
    """A plain answer is in `result`; one that failed names the error's code."""
    usage = {"prompt_tokens": 204, "completion_tokens": 23, "prompt_tokens_details": {"cached_tokens": 4}}
    facts = play(Made(url=CLOUDFLARE, answer=packed({"result": {"response": "Hi", "usage": usage}, "success": True})))
    failed = play(Made(url=CLOUDFLARE, answer=packed({"errors": [{"code": 5025}], "success": False, "result": {}})))
    assert facts.usage == Usage(input=204, output=23, cache_read=4)
    assert (failed.error_type, failed.usage) == ("5025", None)


def test_an_image_says_what_it_costs() -> None:
    """Black Forest Labs bills in credits of one cent, and says how many at once."""
    answer = packed({"id": "i-1", "polling_url": "https://api.eu2.bfl.ai/v1/get_result?id=i-1", "cost": 3.5})
    facts = play(Made(url="https://api.bfl.ai/v1/flux-2-pro", answer=answer))
    assert facts.provider_cost == Decimal("0.035")
    assert (facts.request_model, facts.usage) == ("flux-2-pro", Usage(units={"output_images": 1}))
    assert not is_inference("https://api.eu2.bfl.ai/v1/get_result?id=i-1")


@pytest.mark.parametrize("size", SIZES)
def test_text_generation_inference_counts_in_its_details(size: int) -> None:
    """The last event has the whole text and the counts."""
    answer = events(
        {"index": 1, "token": {"id": 1, "text": "Hi", "special": False}, "generated_text": None, "details": None},
        {
            "index": 2,
            "token": {"id": 2, "text": "", "special": True},
            "generated_text": "Hi",
            "details": {"finish_reason": "eos_token", "generated_tokens": 2, "input_length": 9},
        },
    )
    url = "https://abc.us-east-1.aws.endpoints.huggingface.cloud/generate_stream"
    facts = play(Made(url=url, request={"stream": True}, answer=answer, content_type=SSE), size)
    assert facts.usage == Usage(input=9, output=2)
    assert facts.finish_reasons == ["eos_token"]
    assert facts.complete
    assert facts.output_seen


def test_text_generation_inference_counts_in_its_headers() -> None:
    """Without details the headers count."""
    headers = {"x-prompt-tokens": "9", "x-generated-tokens": "2"}
    url = "https://api-inference.huggingface.co/models/org/name"
    facts = play(Made(url=url, answer=packed([{"generated_text": "Hi"}]), headers=headers))
    assert (facts.request_model, facts.usage) == ("org/name", Usage(input=9, output=2))


@pytest.mark.parametrize("size", SIZES)
def test_claude_on_vertex_names_its_model_in_the_path(size: int) -> None:
    """The body is Anthropic's, without a model; the path has it."""
    message = {
        "id": "msg_vrtx_1",
        "model": "claude-3-7-sonnet-20250219",
        "usage": {"input_tokens": 5, "output_tokens": 1},
    }
    answer = named_events(
        ("message_start", {"type": "message_start", "message": message}),
        ("content_block_delta", {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}),
        (
            "message_delta",
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        ),
        ("message_stop", {"type": "message_stop"}),
    )
    made = Made(
        url=f"{VERTEX}/claude-3-7-sonnet@20250219:streamRawPredict",
        request={"anthropic_version": "vertex-2023-10-16", "stream": True},
        answer=answer,
        content_type=SSE,
    )
    facts = play(made, size)
    assert facts.usage == Usage(input=5, output=9)
    assert (facts.request_model, facts.response_model) == ("claude-3-7-sonnet@20250219", "claude-3-7-sonnet-20250219")
    assert facts.stream
    assert facts.complete


def test_text_generation_inference_may_list_the_prompt() -> None:
    """If the prompt's tokens were requested they are counted; an error names its type."""
    url = "https://api-inference.huggingface.co/models/org/name"
    details = {"finish_reason": "length", "generated_tokens": 2, "prefill": [{"id": 1}, {"id": 2}, {"id": 3}]}
    assert play(Made(url=url, answer=packed({"generated_text": "Hi", "details": details}))).usage == Usage(
        input=3, output=2
    )
    failed = play(Made(url=url, answer=packed({"error": "too long", "error_type": "validation"})))
    assert (failed.error_type, failed.usage) == ("validation", None)


def test_feature_extraction_is_an_embedding() -> None:
    """The answer is a list of numbers, which says nothing of usage."""
    url = "https://api-inference.huggingface.co/pipeline/feature-extraction/org/name"
    facts = play(Made(url=url, answer=b"[0.5, 0.25]"))
    assert (facts.operation, facts.request_model, facts.usage) == ("embeddings", "org/name", None)
