"""Gemini's generateContent, its embeddings and Vertex AI's predict; every recording here is made."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.dialects.recorded_reading import SSE, Made, events, is_inference, packed, play
from tollspan.model.records import Usage

HOST = "https://generativelanguage.googleapis.com/v1beta"
VERTEX = "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5/publishers/google/models"
SIZES = [1, 7, 10**9]


def chunk(usage: dict[str, Any], *parts: dict[str, Any], **candidate: Any) -> dict[str, Any]:
    """Return a response, or one chunk of a stream."""
    return {
        "candidates": [{"content": {"parts": list(parts), "role": "model"}, "index": 0, **candidate}],
        "usageMetadata": usage,
        "modelVersion": "gemini-3.5-flash",
        "responseId": "r-1",
    }


STREAM = (
    chunk(
        {"promptTokenCount": 9, "totalTokenCount": 40, "thoughtsTokenCount": 31}, {"text": "", "thoughtSignature": "x"}
    ),
    chunk(
        {"promptTokenCount": 9, "candidatesTokenCount": 2, "totalTokenCount": 42, "thoughtsTokenCount": 31},
        {"text": "Hi"},
    ),
    chunk(
        {"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 45, "thoughtsTokenCount": 31},
        {"text": " there"},
        finishReason="STOP",
    ),
)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "answer",
    [
        events(*STREAM),
        events(*STREAM).replace(b"\n", b"\r\n"),
        json.dumps(STREAM, indent=2).encode(),
        b"[" + b"\n,\r\n".join(json.dumps(item, indent=1).encode() for item in STREAM) + b"\n]",
    ],
)
def test_a_stream_is_read_in_either_framing(answer: bytes, size: int) -> None:
    """The last chunk's usage counts, thoughts are output, whether the chunks come as events or as a growing array."""
    kind = SSE if answer.startswith(b"data") else "application/json"
    facts = play(
        Made(url=f"{HOST}/models/gemini-flash-latest:streamGenerateContent", answer=answer, content_type=kind), size
    )
    assert facts.usage == Usage(input=9, output=36, reasoning=31)
    assert (facts.request_model, facts.response_model, facts.response_id) == (
        "gemini-flash-latest",
        "gemini-3.5-flash",
        "r-1",
    )
    assert facts.stream
    assert facts.complete
    assert facts.output_seen
    assert facts.finish_reasons == ["STOP"]


def test_a_signature_alone_is_no_output() -> None:
    """A chunk that carries an empty text and a signature has shown nothing of the answer yet."""
    facts = play(Made(url=f"{HOST}/models/m:streamGenerateContent", answer=events(STREAM[0]), content_type=SSE))
    assert not facts.output_seen
    assert not facts.complete


@pytest.mark.parametrize(
    "part", [{"text": "x"}, {"functionCall": {"name": "f", "args": {}}}, {"inlineData": {"data": "AA=="}}]
)
def test_any_part_with_something_in_it_is_output(part: dict[str, Any]) -> None:
    """Text, a function call and an image are all output."""
    answer = events(chunk({"promptTokenCount": 1}, part))
    assert play(Made(url=f"{HOST}/models/m:streamGenerateContent", answer=answer, content_type=SSE)).output_seen


@pytest.mark.parametrize("size", SIZES)
def test_a_chunk_that_leaves_counts_out_does_not_undo_them(size: int) -> None:
    """While a server-side tool runs a chunk may state the prompt alone: what was counted before was used anyway."""
    answer = events(
        chunk(
            {"promptTokenCount": 20, "candidatesTokenCount": 21, "thoughtsTokenCount": 69, "totalTokenCount": 110},
            {"text": "a"},
        ),
        chunk({"promptTokenCount": 20, "totalTokenCount": 20}, {"text": "b"}),
    )
    facts = play(Made(url=f"{HOST}/models/m:streamGenerateContent", answer=answer, content_type=SSE), size)
    assert facts.usage is not None
    assert (facts.usage.input, facts.usage.output, facts.usage.reasoning) == (20, 90, 69)


def test_a_reason_in_the_middle_is_no_end() -> None:
    """While the server runs tools, a chunk may say STOP and the answer go on; usage alone after the end is no more."""
    stop = chunk({"promptTokenCount": 9}, {"executableCode": {"code": "1"}}, finishReason="STOP")
    more = chunk({"promptTokenCount": 9}, {"codeExecutionResult": {"output": "1"}})
    url = f"{HOST}/models/m:streamGenerateContent"
    assert not play(Made(url=url, answer=events(stop, more), content_type=SSE)).complete
    assert play(Made(url=url, answer=events(stop, more, stop), content_type=SSE)).complete
    assert play(Made(url=url, answer=events(stop, {"usageMetadata": {}}), content_type=SSE)).complete


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        # The usual: thoughts beside the candidates.
        (
            {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 3, "totalTokenCount": 18},
            (10, 8, 3),
        ),
        # The total shows that the candidates count them already.
        (
            {"promptTokenCount": 10, "candidatesTokenCount": 8, "thoughtsTokenCount": 3, "totalTokenCount": 18},
            (10, 8, 3),
        ),
        # Prompts of server-side tools are billed as input.
        (
            {"promptTokenCount": 10, "toolUsePromptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 22},
            (17, 5, None),
        ),
        # A zero is left out on this wire; a prompt that is left out is in the total.
        ({"thoughtsTokenCount": 94, "totalTokenCount": 390}, (296, 94, 94)),
        ({"candidatesTokenCount": 1, "thoughtsTokenCount": 9, "totalTokenCount": 10}, (None, 10, 9)),
        # A blocked prompt is counted, an answer there is none.
        ({"promptTokenCount": 4, "totalTokenCount": 4}, (4, None, None)),
        # The live API's name.
        ({"promptTokenCount": 4, "responseTokenCount": 2, "totalTokenCount": 6}, (4, 2, None)),
    ],
)
def test_the_counts_add_up_to_what_is_billed(stated: dict[str, int], expected: tuple[int | None, ...]) -> None:
    """Input is prompt and tool prompt, output is candidates and thoughts, and the total decides where it can."""
    usage = play(Made(url=f"{HOST}/models/m:generateContent", answer=packed(chunk(stated)))).usage
    assert usage is not None
    assert (usage.input, usage.output, usage.reasoning) == expected


def test_modalities_and_cache_lie_inside_the_input() -> None:
    """Details by modality of prompt and tool prompt are added up; cached tokens are part of the prompt's count."""
    stated = {
        "promptTokenCount": 100,
        "toolUsePromptTokenCount": 10,
        "candidatesTokenCount": 8,
        "cachedContentTokenCount": 60,
        "totalTokenCount": 118,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 20},
            {"modality": "AUDIO", "tokenCount": 50},
            {"modality": "VIDEO", "tokenCount": 20},
            {"modality": "DOCUMENT", "tokenCount": 10},
        ],
        "toolUsePromptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}],
        "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 3}, {"modality": "IMAGE", "tokenCount": 5}],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 40}, {"modality": "TEXT", "tokenCount": 20}],
    }
    usage = play(Made(url=f"{HOST}/models/m:generateContent", answer=packed(chunk(stated)))).usage
    assert usage == Usage(
        input=110,
        output=8,
        cache_read=60,
        input_text=30,
        input_audio=50,
        input_image=10,
        input_video=20,
        output_text=3,
        output_image=5,
        cache_read_audio=40,
    )


@pytest.mark.parametrize(
    ("stated", "headers", "tier"),
    [
        ({"serviceTier": "flex"}, {}, "flex"),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, {}, "PROVISIONED_THROUGHPUT"),
        ({"trafficType": 4}, {}, "ON_DEMAND_FLEX"),
        ({}, {"x-gemini-service-tier": "priority"}, "priority"),
        ({"serviceTier": "standard"}, {"x-gemini-service-tier": "priority"}, "standard"),
        ({}, {}, None),
    ],
)
def test_the_tier_is_the_one_that_was_served(stated: dict[str, Any], headers: dict[str, str], tier: str | None) -> None:
    """The usage's own word counts, else the header's; Google Cloud clients get the word as a number."""
    answer = packed(chunk({"promptTokenCount": 1, **stated}))
    assert play(Made(url=f"{HOST}/models/m:generateContent", answer=answer, headers=headers)).tier == tier


@pytest.mark.parametrize("size", SIZES)
def test_grounding_is_counted_once_a_query(size: int) -> None:
    """A query that several chunks repeat is one search; places on a map are one grounding, however many there are."""
    grounding = {
        "webSearchQueries": ["weather berlin", "weather paris"],
        "groundingChunks": [{"maps": {"uri": "u"}}, {"maps": {"uri": "v"}}],
    }
    answer = events(
        chunk({"promptTokenCount": 5, "totalTokenCount": 5}, {"text": "a"}, groundingMetadata=grounding),
        chunk({"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}, groundingMetadata=grounding),
    )
    usage = play(Made(url=f"{HOST}/models/m:streamGenerateContent", answer=answer, content_type=SSE), size).usage
    assert usage is not None
    assert usage.units == {"web_searches": 2, "maps_groundings": 1}


@pytest.mark.parametrize(("stated", "reason"), [("MAX_TOKENS", "MAX_TOKENS"), (1, "STOP"), (99, "99")])
def test_a_finish_reason_is_a_word_or_its_number(stated: object, reason: str) -> None:
    """Enumerations come as numbers if the client requested that; an unknown number stays a number."""
    answer = packed(chunk({"promptTokenCount": 1}, finishReason=stated))
    assert play(Made(url=f"{VERTEX}/gemini-2.5-pro:generateContent", answer=answer)).finish_reasons == [reason]


def test_a_blocked_prompt_says_why() -> None:
    """A prompt that was blocked has no candidates; the reason is the feedback's."""
    answer = packed({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 3}})
    facts = play(Made(url=f"{HOST}/models/m:generateContent", answer=answer))
    assert facts.finish_reasons == ["PROHIBITED_CONTENT"]
    assert facts.error_type is None


def test_an_error_inside_a_stream_is_seen() -> None:
    """An error that comes after the first chunk names itself, and what was used until then is kept."""
    answer = events(STREAM[0], {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}})
    facts = play(Made(url=f"{HOST}/models/m:streamGenerateContent", answer=answer, content_type=SSE))
    assert facts.error_type == "UNAVAILABLE"
    assert facts.usage is not None
    assert facts.usage.input == 9
    assert not facts.complete


def test_the_request_is_read_under_either_spelling() -> None:
    """The API takes JSON names and proto names alike."""
    camel = {
        "generationConfig": {
            "maxOutputTokens": 64,
            "candidateCount": 2,
            "responseMimeType": "application/json",
            "thinkingConfig": {"thinkingLevel": "low"},
        },
        "serviceTier": "flex",
    }
    snake = {
        "generation_config": {
            "max_output_tokens": 64,
            "candidate_count": 2,
            "response_mime_type": "application/json",
            "thinking_config": {"thinking_level": "low"},
        },
        "service_tier": "flex",
    }
    for request in (camel, snake):
        facts = play(Made(url=f"{HOST}/models/m:generateContent", request=request, answer=b"{}"))
        assert (facts.max_output, facts.choice_count, facts.output_type) == (64, 2, "json")
        assert (facts.reasoning_level, facts.request_tier) == ("low", "flex")


@pytest.mark.parametrize(("modality", "kind"), [("IMAGE", "image"), ("AUDIO", "speech"), ("TEXT", None)])
def test_the_request_says_what_kind_of_output_it_wants(modality: str, kind: str | None) -> None:
    """Images and speech are requested by modality."""
    request = {"generationConfig": {"responseModalities": [modality]}}
    assert play(Made(url=f"{HOST}/models/m:generateContent", request=request, answer=b"{}")).output_type == kind


@pytest.mark.parametrize(
    ("url", "model"),
    [
        (f"{HOST}/models/gemini-2.5-flash:generateContent?key=none", "gemini-2.5-flash"),
        (f"{HOST}/tunedModels/mine-123:generateContent", "mine-123"),
        (f"{HOST}/models/bad%20name:generateContent", "bad name"),
        (f"{VERTEX}/gemini-2.5-pro:streamGenerateContent?alt=sse", "gemini-2.5-pro"),
        (
            "https://aiplatform.googleapis.com/v1/publishers/google/models/gemini-2.5-pro%3AgenerateContent",
            "gemini-2.5-pro",
        ),
        ("http://localhost:3000/router/google/v1beta/models/gemini-2.5-flash:generateContent", "gemini-2.5-flash"),
    ],
)
def test_the_path_names_the_model(url: str, model: str) -> None:
    """The model is the last part of the path, on the Gemini API, on Vertex AI and behind a gateway."""
    assert play(Made(url=url, answer=b"{}")).request_model == model


@pytest.mark.parametrize(
    "url",
    [
        f"{HOST}/models/gemini-2.5-flash:countTokens",
        f"{HOST}/models/gemini-2.5-flash:batchGenerateContent",
        f"{HOST}/models",
        f"{HOST}/cachedContents",
        f"{HOST}/files",
        f"{HOST}/batches/b-1",
        "https://generativelanguage.googleapis.com/upload/v1beta/files",
        f"{VERTEX}/gemini-2.5-pro:countTokens",
        "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5/endpoints/12:predict",
        f"{VERTEX.replace('google/models', 'anthropic/models')}/count-tokens:rawPredict",
    ],
)
def test_control_calls_are_no_inference(url: str) -> None:
    """Counting tokens, listing models, files, caches and batches cost no tokens."""
    assert not is_inference(url)


def test_embeddings_are_read_with_and_without_usage() -> None:
    """The newer embedding models state what was read; gemini-embedding-001 states nothing, which is not zero."""
    stated = {"promptTokenCount": 8, "promptTokenDetails": [{"modality": "TEXT", "tokenCount": 8}]}
    facts = play(
        Made(
            url=f"{HOST}/models/gemini-embedding-2:batchEmbedContents",
            answer=packed({"embeddings": [{"values": [0.5]}], "usageMetadata": stated}),
        )
    )
    silent = play(
        Made(url=f"{HOST}/models/gemini-embedding-001:embedContent", answer=packed({"embedding": {"values": [1]}}))
    )
    assert facts.usage == Usage(input=8, input_text=8)
    assert (facts.operation, facts.request_model) == ("embeddings", "gemini-embedding-2")
    assert silent.usage is None


def test_predictions_count_tokens_and_characters() -> None:
    """Each embedding that Vertex AI predicts counts its own tokens; characters are counted together."""
    answer = packed(
        {
            "predictions": [{"embeddings": {"values": [1], "statistics": {"token_count": n}}} for n in (3, 4)],
            "metadata": {"billableCharacterCount": 30},
        }
    )
    facts = play(Made(url=f"{VERTEX}/text-embedding-005:predict", answer=answer))
    assert facts.usage == Usage(input=7, units={"input_characters": 30})
    assert (facts.operation, facts.request_model) == ("embeddings", "text-embedding-005")


def test_images_are_counted_each() -> None:
    """Imagen is billed by the image; an image that was filtered out is none."""
    answer = packed({"predictions": [{"bytesBase64Encoded": "AA=="}, {"raiFilteredReason": "person"}]})
    facts = play(Made(url=f"{HOST}/models/imagen-4.0-fast-generate-001:predict", answer=answer))
    assert facts.usage == Usage(units={"output_images": 1})
    assert facts.output_type == "image"
