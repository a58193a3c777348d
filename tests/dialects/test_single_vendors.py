"""Formats of one vendor each: Cloudflare, Deepgram, Black Forest Labs, Replicate. The recordings are made."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.dialects.recorded_reading import CUT, packed, read, sse, used
from tollspan.model.records import Usage

pytestmark = CUT

RUN = "/client/v4/accounts/a1/ai/run/@cf/meta/llama-3.2-3b-instruct"
USAGE = {"prompt_tokens": 19, "completion_tokens": 3, "total_tokens": 22}


def test_cloudflare(size: int) -> None:
    """Workers AI names the model in the path alone, and wraps its answer."""
    body = packed({"result": {"response": "Hello!", "usage": USAGE}, "success": True, "errors": []})
    facts = read("cloudflare_run", body, size, path=RUN)
    assert facts.request_model == "@cf/meta/llama-3.2-3b-instruct"
    assert used(facts) == Usage(input=19, output=3)


def test_cloudflare_stream(size: int) -> None:
    """In a stream `response` is the output, padding is none, and usage comes with the last piece."""
    padding = read("cloudflare_run", sse({"response": "", "p": "abcdef"}, done=False), size)
    assert not padding.output_seen
    facts = read("cloudflare_run", sse({"response": "Hello", "p": "abc"}, {"response": "", "usage": USAGE}), size)
    assert (facts.output_seen, facts.complete, used(facts).output) == (True, True, 3)


def test_cloudflare_embeddings_and_errors(size: int) -> None:
    """An embedding model's call is an embedding; what went wrong is named by its code."""
    path = "/client/v4/accounts/a1/ai/run/@cf/baai/bge-m3"
    failed = packed({"result": None, "success": False, "errors": [{"code": 7009, "message": "no"}]})
    facts = read("cloudflare_run", failed, size, path=path)
    assert (facts.operation, facts.error_type) == ("embeddings", "7009")


def test_deepgram_listens(size: int) -> None:
    """A transcription is billed by the duration of what was heard; the model stands in the query."""
    body = packed({"metadata": {"request_id": "r1", "duration": 3.6999376}, "results": {"channels": []}})
    facts = read("deepgram", body, size, path="/v1/listen?model=nova-3-general&smart_format=true")
    assert (facts.request_model, facts.response_id) == ("nova-3-general", "r1")
    assert used(facts) == Usage(units={"input_seconds": 3.6999376})


def test_deepgram_speaks(size: int) -> None:
    """Speech is billed by the characters that a header counts, at the price of the voice's model."""
    headers = {"dg-char-count": "64", "dg-model-name": "aura-2-thalia-en", "content-type": "audio/mpeg"}
    facts = read("deepgram", b"\xff\xf3", size, path="/v1/speak", headers=headers, content_type="audio/mpeg")
    assert (facts.response_model, facts.output_type) == ("aura-2", "speech")
    assert used(facts) == Usage(units={"input_characters": 64})


def test_black_forest_labs(size: int) -> None:
    """An image's cost is stated in credits of one cent."""
    body = packed({"id": "i1", "polling_url": "https://example.com/?id=i1", "cost": 7.000000000000001})
    facts = read("black_forest_labs", body, size, path="/v1/flux-2-max")
    assert (facts.request_model, facts.provider_cost) == ("flux-2-max", Decimal("0.07000000000000001"))
    assert used(facts) == Usage(units={"output_images": 1})
    refused = read("black_forest_labs", packed({"detail": "Not authenticated"}), size, path="/v1/flux-dev")
    assert refused.usage is None


@pytest.mark.parametrize(
    ("metrics", "usage"),
    [
        ({"input_token_count": 5, "output_token_count": 90, "predict_time": 2.5}, Usage(input=5, output=90)),
        ({"image_count": 1, "predict_time": 2.5}, Usage(units={"output_images": 1})),
        ({"predict_time": 2.5}, Usage(units={"output_seconds": 2.5})),
    ],
)
def test_replicate(size: int, metrics: dict[str, Any], usage: Usage) -> None:
    """A prediction that was waited for is billed by tokens, images or seconds, whichever its model counts."""
    body = packed(
        {"id": "p1", "model": "meta/llama-2-70b-chat", "status": "succeeded", "error": None, "metrics": metrics}
    )
    facts = read("replicate", body, size, path="/v1/models/meta/llama-2-70b-chat/predictions")
    assert (facts.request_model, facts.complete, facts.usage) == ("meta/llama-2-70b-chat", True, usage)


def test_replicate_failed(size: int) -> None:
    """A prediction that failed is an error, whether it says why or not."""
    body = packed({"id": "p1", "status": "failed", "error": None})
    assert read("replicate", body, size, path="/v1/predictions").error_type == "failed"


def test_replicate_started(size: int) -> None:
    """A prediction that was only started is not complete."""
    facts = read(
        "replicate",
        packed({"id": "p1", "status": "starting"}),
        size,
        path="/v1/predictions",
        request={"version": "5c7d"},
    )
    assert (facts.request_model, facts.complete, facts.usage) == ("5c7d", False, None)
