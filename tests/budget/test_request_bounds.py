"""The upper bounds of requests: attachments by what they are, stored context by what is known, sound by its units."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.budget import media_bytes as made
from tollspan.budget.bounds import (
    CONTEXT,
    IMAGE_OUTPUT,
    MESSAGE,
    STORED,
    STREAMED,
    Bound,
    Bounds,
    RequestShape,
    is_plain_text,
)
from tollspan.budget.request_parts import (
    FILE_BY_URL,
    FILE_TOKENS,
    IMAGE_BY_URL,
    MOST_PARTS,
    TOO_MANY,
    Attachment,
    read_parts,
)
from tollspan.budget.server_tools import TOOL_INPUT, TOOL_USES
from tollspan.budget.sound_bounds import LONGEST, SPEECH_TOKENS, WORDS
from tollspan.model.records import Call, Facts, Usage
from tollspan.prices import bundled
from tollspan.tokens.media.attachments import PAGE_SIZE, PAGE_TEXT
from tollspan.tokens.media.image_tokens import GEMINI_ULTRA, image_tokens
from tollspan.tokens.media.source import Plain
from tollspan.wire.dialects import load

NOON = 1_795_348_800.0  # 2026-11-22 12:00 UTC
DOLLAR = 10**18
GPT, CLAUDE, GEMINI = "gpt-5.5", "claude-opus-4-8", "gemini-2.5-pro"
LABELS = {GPT: ("openai",), CLAUDE: ("anthropic",), GEMINI: ("gemini",)}
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
IMAGE = made.png(1024, 1024, padded=1_000_000)


def b64(data: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(data).decode()


def url(data: bytes, media_type: str = "image/png") -> str:
    """Return bytes as a data URL."""
    return f"data:{media_type};base64,{b64(data)}"


def shape_of(dialect: str, body: dict[str, Any], model: str = GPT, path: str = "", **more: Any) -> RequestShape:
    """Return a request as the guard gets it."""
    format_ = load(dialect)
    facts = Facts(format_.operation)
    format_.read_path(facts, path)
    format_.read_request(facts, body)
    content = json.dumps(body).encode()
    values: dict[str, Any] = {"body": body, "content": content, "size": len(content), **more}
    return RequestShape(facts=facts, prices=LABELS.get(model, ("openai",)), dialect=dialect, **values)


def chat(*parts: Any, **more: Any) -> RequestShape:
    """Return a chat completion with these parts."""
    return shape_of("openai_chat", {"model": GPT, "messages": [{"role": "user", "content": list(parts)}], **more})


def responses(*parts: Any, **more: Any) -> RequestShape:
    """Return a request for a response with these parts."""
    return shape_of("openai_responses", {"model": GPT, "input": [{"role": "user", "content": list(parts)}], **more})


def claude(*parts: Any, **more: Any) -> RequestShape:
    """Return a request for a message with these parts."""
    body = {"model": CLAUDE, "max_tokens": 9, "messages": [{"role": "user", "content": list(parts)}], **more}
    return shape_of("anthropic", body, CLAUDE)


def gemini(*parts: Any, **more: Any) -> RequestShape:
    """Return a request to generate content with these parts."""
    path = f"/v1beta/models/{GEMINI}:generateContent"
    return shape_of("gemini", {"contents": [{"role": "user", "parts": list(parts)}], **more}, GEMINI, path)


def bound_of(shape: RequestShape) -> Bound:
    """Return the bound of a request."""
    return Bounds(bundled).strict(shape, NOON)


def around(shape: RequestShape, *encoded: str) -> int:
    """Return the tokens of a request without what is encoded in it."""
    assert shape.size is not None
    return shape.size + MESSAGE - sum(map(len, encoded))


# fmt: off
NAMES = (
    "type", "content", "image_url", "source", "data", "url", "file_id", "tools", "audio", "id", "n", "input",
    "messages", "inlineData", "prompt", "conversation", "image", "ttl", "level", "x",
)
# fmt: on
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=80)
JSON = st.recursive(
    LEAVES | st.sampled_from([url(IMAGE)[:200], "https://example.com"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=25,
)


IMAGES: dict[str, tuple[RequestShape, str, str]] = {
    "chat": (chat({"type": "image_url", "image_url": {"url": url(IMAGE)}}), GPT, url(IMAGE)),
    "chat with a string": (chat({"type": "image_url", "image_url": url(IMAGE)}), GPT, url(IMAGE)),
    "responses": (responses({"type": "input_image", "image_url": url(IMAGE)}), GPT, url(IMAGE)),
    "responses, of a tool": (
        shape_of(
            "openai_responses",
            {
                "model": GPT,
                "input": [
                    {
                        "type": "computer_call_output",
                        "call_id": "c",
                        "output": {"type": "computer_screenshot", "image_url": url(IMAGE)},
                    }
                ],
            },
        ),
        GPT,
        url(IMAGE),
    ),
    "responses, generated before": (
        shape_of(
            "openai_responses", {"model": GPT, "input": [{"type": "image_generation_call", "result": b64(IMAGE)}]}
        ),
        GPT,
        b64(IMAGE),
    ),
    "anthropic": (
        claude({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(IMAGE)}}),
        CLAUDE,
        b64(IMAGE),
    ),
    "anthropic, of a tool": (
        claude(
            {
                "type": "tool_result",
                "tool_use_id": "t",
                "content": [{"type": "image", "source": {"type": "base64", "data": b64(IMAGE)}}],
            }
        ),
        CLAUDE,
        b64(IMAGE),
    ),
    "gemini": (gemini({"inlineData": {"mimeType": "image/png", "data": b64(IMAGE)}}), GEMINI, b64(IMAGE)),
    "gemini, by its SDK": (
        gemini({"inline_data": {"mime_type": "image/png", "data": base64.urlsafe_b64encode(IMAGE).decode()}}),
        GEMINI,
        b64(IMAGE),
    ),
    "bedrock": (
        shape_of(
            "bedrock_converse",
            {"messages": [{"content": [{"image": {"format": "png", "source": {"bytes": b64(IMAGE)}}}]}]},
            path="/model/us.anthropic.claude-opus-4-8/converse",
        ),
        CLAUDE,
        b64(IMAGE),
    ),
    "ollama": (
        shape_of("ollama", {"model": "llava", "messages": [{"role": "user", "content": "?", "images": [b64(IMAGE)]}]}),
        "llava",
        b64(IMAGE),
    ),
    "cohere embed": (shape_of("cohere", {"model": "embed-v4.0", "images": [url(IMAGE)]}), "embed-v4.0", url(IMAGE)),
    "replicate": (shape_of("replicate", {"input": {"prompt": "a", "start": url(IMAGE)}}), "", url(IMAGE)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_inline_images(name: str) -> None:
    """An image in base64 counts by its size in every format, and none of its characters count as text."""
    shape, model, encoded = IMAGES[name]
    bound = bound_of(shape)
    assert bound.input == around(shape, encoded) + image_tokens(model, (1024, 1024))
    assert bound.unbounded is None
    assert not bound.is_text


def test_a_megabyte_costs_cents() -> None:
    """One image of a megabyte reserves what it may cost: a few thousand tokens, not a million."""
    for shape in (
        chat({"type": "image_url", "image_url": {"url": url(IMAGE)}}, max_completion_tokens=1000),
        claude({"type": "image", "source": {"type": "base64", "data": b64(IMAGE)}}, max_tokens=1000),
    ):
        assert 0 < (bound_of(shape).cost or 0) < DOLLAR // 20


def test_details_of_images() -> None:
    """Low detail and the highest resolution count as they are billed."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": []}]}
    part = {"type": "image_url", "image_url": {"url": url(IMAGE), "detail": "low"}}
    shape = shape_of("openai_chat", {**body, "messages": [{"role": "user", "content": [part]}]})
    assert bound_of(shape).input == around(shape, url(IMAGE)) + 85
    part = {"inlineData": {"data": b64(IMAGE)}, "mediaResolution": {"level": "MEDIA_RESOLUTION_ULTRA_HIGH"}}
    shape = gemini(part)
    assert bound_of(shape).input == around(shape, b64(IMAGE)) + image_tokens(GEMINI, (1024, 1024)) + GEMINI_ULTRA


def test_documents_and_sounds() -> None:
    """Documents count by their pages, sounds by their seconds, texts by their bytes."""
    pdf, wav, text = made.pdf(3), made.wav(30), b"name,amount\n" * 9
    page = PAGE_TEXT + image_tokens(GPT, PAGE_SIZE)
    for shape in (
        chat({"type": "file", "file": {"filename": "a.pdf", "file_data": url(pdf, "application/pdf")}}),
        responses({"type": "input_file", "filename": "a.pdf", "file_data": url(pdf, "application/pdf")}),
    ):
        assert bound_of(shape).input == around(shape, url(pdf, "application/pdf")) + 3 * page
    source = {"type": "base64", "media_type": "application/pdf", "data": b64(pdf)}
    shape = claude({"type": "document", "source": source})
    assert bound_of(shape).input == around(shape, b64(pdf)) + 3 * (PAGE_TEXT + image_tokens(CLAUDE, PAGE_SIZE))
    shape = gemini({"inlineData": {"mimeType": "audio/wav", "data": b64(wav)}})
    assert bound_of(shape).input == around(shape, b64(wav)) + 30 * 32
    shape = shape_of("openai_chat", {"model": "gpt-audio", "messages": [{"role": "user", "content": [
        {"type": "input_audio", "input_audio": {"data": b64(wav), "format": "wav"}}
    ]}]})  # fmt: skip
    assert bound_of(shape).input == around(shape, b64(wav)) + 30 * 10
    shape = chat({"type": "file", "file": {"file_data": url(text, "text/csv")}})
    assert bound_of(shape).input == around(shape, url(text, "text/csv")) + len(text)


def test_sound_is_charged_at_its_own_rates() -> None:
    """A sound, and a cache for an hour, are bounded at their rates, in short requests and in long ones."""
    for seconds in (1, 30):
        wav = b64(made.wav(seconds))
        part = {"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}}
        body = {"model": "gpt-audio", "max_tokens": 1, "messages": [{"role": "user", "content": [part]}]}
        bound = bound_of(shape_of("openai_chat", body))
        assert bound.rates is not None
        assert bound.rates.levels[0][1] == 32 * DOLLAR // 10**6  # dollars per million, of sound
    cached = {"type": "text", "text": "x" * 100_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    five, hour = bound_of(claude({**cached, "cache_control": {"type": "ephemeral"}})), bound_of(claude(cached))
    assert five.rates is not None
    assert hour.rates is not None
    assert (five.rates.levels[-1][1], hour.rates.levels[-1][1]) == (625 * 10**10, 10**13)


def test_base64_in_text_is_text() -> None:
    """A model reads base64 that is written into a message as text, so it is billed as text."""
    part = url(IMAGE)[:2000]
    for shape in (
        chat({"type": "text", "text": part}),
        shape_of("openai_chat", {"model": GPT, "messages": [{"role": "user", "content": part}]}),
        claude({"type": "tool_use", "id": "t", "name": "see", "input": {"image": part}}),
        gemini({"functionResponse": {"name": "f", "response": {"image": part}}}),
        claude({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": part}}),
    ):
        assert bound_of(shape).input == around(shape)
        assert bound_of(shape).unbounded is None


BY_URL = [
    chat({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}),
    chat({"type": "image_url", "image_url": "https://example.com/a.png"}),
    responses({"type": "input_image", "image_url": "https://example.com/a.png"}),
    claude({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}),
    shape_of("black_forest_labs", {"prompt": "a", "input_image": "https://example.com/a.png"}),
]


@pytest.mark.parametrize("shape", BY_URL, ids=range(len(BY_URL)))
def test_images_by_url(shape: RequestShape) -> None:
    """An image by URL counts as the largest that its model reads, and is said to have no bound."""
    bound = bound_of(shape)
    assert bound.unbounded == IMAGE_BY_URL
    assert bound.input == around(shape) + image_tokens(shape.facts.request_model, None)


def test_files_by_url() -> None:
    """A file by URL counts by an allowance, and is said to have no bound; links in citations are text."""
    for shape in (
        responses({"type": "input_file", "file_url": "https://example.com/a.pdf"}),
        claude({"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}),
    ):
        assert bound_of(shape)[0] == around(shape) + FILE_TOKENS
        assert bound_of(shape).unbounded == FILE_BY_URL
    cited = [{"type": "url_citation", "url": "https://example.com"}, {"type": "file_citation", "file_id": "file-1"}]
    shape = responses({"type": "output_text", "text": "It says so.", "annotations": cited})
    assert bound_of(shape) == bound_of(shape)._replace(input=around(shape), unbounded=None, stored=())


NAMED = [
    ("resp_1", responses(previous_response_id="resp_1")),
    ("conv_1", responses(conversation="conv_1")),
    ("conv_1", responses(conversation={"id": "conv_1"})),
    ("pmpt_1", responses(prompt={"id": "pmpt_1", "version": "2"})),
    ("file-1", responses({"type": "input_file", "file_id": "file-1"})),
    ("file-1", responses({"type": "input_image", "file_id": "file-1"})),
    ("file-1", chat({"type": "file", "file": {"file_id": "file-1"}})),
    (
        "audio_1",
        shape_of("openai_chat", {"model": GPT, "messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}),
    ),
    ("file_1", claude({"type": "document", "source": {"type": "file", "file_id": "file_1"}})),
    ("file_1", claude({"type": "container_upload", "file_id": "file_1"})),
    ("cachedContents/1", gemini({"text": "?"}, cachedContent="cachedContents/1")),
    ("files/1", gemini({"fileData": {"mimeType": "image/png", "fileUri": "files/1"}})),
]


@pytest.mark.parametrize(("name", "shape"), NAMED, ids=[f"{name} {at}" for at, (name, _) in enumerate(NAMED)])
def test_stored_context(name: str, shape: RequestShape) -> None:
    """What a provider stores counts as the model's context, until a call has shown its size."""
    bounds = Bounds(bundled)
    rates = bounds.strict(shape, NOON).rates
    assert rates is not None
    before = bounds.strict(shape, NOON)
    assert before.stored == (name,)
    assert before.input == around(shape) + (rates.max_input or 0)
    assert before.unbounded is None
    bounds.learn(call("resp_2", Usage(input=5000, output=300)), before.stored)
    after = bounds.strict(shape, NOON)
    assert after.input == around(shape) + 5300


def call(response: str, usage: Usage, **more: Any) -> Call:
    """Return the record of a call that has ended."""
    values: dict[str, Any] = {"id": "1", "operation_id": "1", "started_at": 0, "duration": 1.0, **more}
    return Call(provider="openai", operation="chat", response_id=response, usage=usage, **values)


def test_conversations_are_known_by_their_responses() -> None:
    """A response's conversation has all that it has read and written; a response of a broken call shows nothing."""
    bounds = Bounds(bundled)
    bounds.learn(call("resp_1", Usage(input=700, output=50)))
    bounds.learn(call("resp_3", Usage(input=1, output=1), usage_quality="estimated"))
    shape = responses(previous_response_id="resp_1")
    assert bounds.strict(shape, NOON).input == around(shape) + 750
    shape = responses(previous_response_id="resp_3")
    assert bounds.strict(shape, NOON).input > around(shape) + 100_000


def test_context_of_a_model_without_a_table() -> None:
    """Stored context of a model whose context is not in the price table is an allowance, and said to have no bound."""
    shape = shape_of("openai_responses", {"model": "private", "input": "?", "previous_response_id": "resp_1"})
    bound = bound_of(shape)
    assert bound.unbounded == STORED
    assert bound.input == around(shape) + CONTEXT


@pytest.mark.parametrize(
    ("shape", "uses", "remedy"),
    [
        (responses(tools=[{"type": "web_search"}]), TOOL_USES, "Set max_tool_calls"),
        (responses(tools=[{"type": "web_search"}], max_tool_calls=3), 3, None),
        (claude(tools=[{"type": "web_search_20250305", "name": "web_search"}]), TOOL_USES, "Set max_uses"),
        (claude(tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]), 2, None),
        (claude(tools=[{"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 2}]), 2, None),
        (gemini(tools=[{"google_search": {}}]), TOOL_USES, "Remove the tool"),
        (claude(tools=[{"type": "code_execution_20250825", "name": "code_execution"}]), TOOL_USES, "Remove the tool"),
        (responses(tools=[{"type": "image_generation"}], max_tool_calls=2), 2, "Remove the tool"),
        (gemini(tools=[{"functionDeclarations": [{"name": "web_search"}]}]), 0, None),
        (chat(tools=[{"type": "function", "function": {"name": "web_search"}}]), 0, None),
        (chat(web_search_options={}), 1, None),
    ],
)
def test_tools_of_the_provider(shape: RequestShape, uses: int, remedy: str | None) -> None:
    """A tool that runs at the provider is bounded by the limit of its uses; without one it is said to have no bound."""
    bound = bound_of(shape)
    assert bound.input == around(shape) + uses * TOOL_INPUT
    assert (bound.unbounded.remedy if bound.unbounded else None) == remedy


def test_speech_is_bounded_by_its_characters() -> None:
    """Speech has no output in text: models by the character cost exactly that, others a few tokens for each."""
    text = "Good morning. " * 20
    bound = bound_of(shape_of("openai_speech", {"model": "tts-1", "voice": "alloy", "input": text}))
    assert (bound.input, bound.output) == (0, 0)
    assert bound.cost == len(text) * 15 * DOLLAR // 10**6
    shape = shape_of("openai_speech", {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": text})
    bound = bound_of(shape)
    assert bound.output == min(len(text) * SPEECH_TOKENS, 2000)
    assert (bound.cost or 0) < DOLLAR // 20


def test_transcription_is_bounded_by_its_seconds() -> None:
    """A transcription costs the length of its sound, in seconds or in tokens, whatever the size of its file."""
    for model, media_type in (("whisper-1", "audio/wav"), ("whisper-1", "video/mp4"), ("gpt-4o-transcribe", "")):
        files = (Attachment(Plain(made.wav(30)), media_type),)
        shape = shape_of("openai_transcription", {"model": model, "file": ""}, files=files, content=None, size=480_400)
        bound = bound_of(shape)
        assert bound.unbounded is None
        if model == "whisper-1":
            assert (bound.input, bound.output) == (0, 0)
            assert bound.cost == 30 * DOLLAR // 10_000  # 0.006 dollars per minute
        else:
            assert bound.output == 31 * WORDS
            assert bound.input < 1000
    shape = shape_of("openai_transcription", {"model": "whisper-1"}, content=None, size=None)
    assert bound_of(shape).unbounded == STREAMED
    assert bound_of(shape).cost == int(LONGEST) * DOLLAR // 10_000


def test_sound_as_the_whole_body() -> None:
    """A sound that is sent as the body itself is bounded by its length; one by URL is said to have no bound."""
    wav = made.wav(30)
    path = "/v1/listen?model=nova-3"
    shape = shape_of("deepgram", {}, path=path, content=wav, size=len(wav))
    shape = RequestShape(
        facts=shape.facts, prices=("deepgram",), body={}, content=wav, size=len(wav), dialect="deepgram"
    )
    bound = bound_of(shape)
    assert bound.unbounded is None
    assert 0 < (bound.cost or 0) < DOLLAR // 100
    shape = shape_of("deepgram", {"url": "https://example.com/a.wav"}, path=path)
    assert bound_of(shape).unbounded == FILE_BY_URL


def test_embeddings_have_no_output() -> None:
    """Embeddings cost their input only, also of texts that are sent as arrays of tokens."""
    for texts in ("one", ["one", "two"], [[1, 2, 3]], [1, 2, 3]):
        shape = shape_of("openai_embeddings", {"model": "text-embedding-3-small", "input": texts})
        assert bound_of(shape)[:2] == (around(shape), 0)


def test_drawn_images_count_each() -> None:
    """Images that are drawn count an allowance each; those that are edited count by their size, out of a form, too."""
    shape = shape_of("openai_images", {"model": "gpt-image-1", "prompt": "a", "n": 2})
    assert bound_of(shape).output == 2 * IMAGE_OUTPUT
    files = (Attachment(Plain(IMAGE), "image/png"),)
    form = {"model": "gpt-image-1", "prompt": "a", "n": "3", "image": ""}
    shape = shape_of("openai_images", form, files=files, content=None, size=1_000_500)
    bound = bound_of(shape)
    assert bound.output == 3 * IMAGE_OUTPUT
    assert bound.input == 1_000_500 + MESSAGE - len(IMAGE) + image_tokens("gpt-image-1", (1024, 1024))


def test_conversations_of_tools_are_text() -> None:
    """Calls of the application's tools and their results are text, in each format; a screenshot among them is not."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    messages = [*HELLO, asked, {"role": "tool", "tool_call_id": "c", "content": "3"}]
    assert is_plain_text({"model": GPT, "messages": messages})
    used = {"type": "tool_use", "id": "c", "name": "f", "input": {"image": "a.png"}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "3"}]}
    blocks = [{"role": "assistant", "content": [used]}, {"role": "user", "content": [result]}]
    assert is_plain_text({"model": CLAUDE, "messages": blocks})
    calls = [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]
    items: list[dict[str, Any]] = [*calls, {"type": "function_call_output", "call_id": "c", "output": "3"}]
    assert is_plain_text({"model": GPT, "input": items})
    seen = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "image", "source": {}}]}
    assert not is_plain_text({"model": CLAUDE, "messages": [{"role": "user", "content": [seen]}]})
    items[1]["output"] = [{"type": "input_image", "image_url": url(IMAGE)}]
    assert not is_plain_text({"model": GPT, "input": items})
    assert not is_plain_text({"model": "llava", "messages": [{**HELLO[0], "images": [b64(IMAGE)]}]})
    assert not is_plain_text({"model": GPT, "messages": HELLO, "x": url(IMAGE)[:200]})


@given(st.dictionaries(st.sampled_from(["messages", "input", "contents", "system", "x"]), JSON))
def test_text_has_no_other_parts(body: dict[str, Any]) -> None:
    """A request that is taken for text, and is not looked at, has nothing that looking at it would find."""
    if is_plain_text(body):
        assert read_parts(body, (), GPT).is_text


def test_body_that_streams() -> None:
    """A body of unknown length counts as the largest context, and is said to have no bound."""
    shape = shape_of("openai_chat", {}, content=None, size=None)
    assert bound_of(shape)[0] == CONTEXT + MESSAGE
    assert bound_of(shape).unbounded == STREAMED


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [[]] * (MOST_PARTS + 1)},
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}] * MOST_PARTS},
    ],
)
def test_requests_with_too_many_parts(body: dict[str, Any]) -> None:
    """What is behind a great many parts counts as text, and is said to have no bound."""
    assert read_parts(body, (), GPT).unbounded == TOO_MANY


def test_ten_megabytes_take_no_time() -> None:
    """Ten megabytes of images are bounded in a tenth of the time that it takes to read their JSON."""
    parts = [{"type": "image_url", "image_url": {"url": url(IMAGE)}}] * 8
    shape = chat(*parts)
    assert shape.content is not None

    def fastest(function: Any) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return min(times)

    bounds, content = Bounds(bundled), shape.content
    assert fastest(lambda: bounds.strict(shape, NOON)) < fastest(lambda: json.loads(content)) / 10


@given(st.dictionaries(st.sampled_from(["messages", "input", "contents", "tools", "image", "prompt", "n"]), JSON))
def test_any_body_has_a_bound(body: dict[str, Any]) -> None:
    """No body raises, in any format, and its input is never below nothing."""
    for dialect in ("openai_chat", "openai_speech", "openai_transcription", "openai_images", "anthropic"):
        assert bound_of(shape_of(dialect, body)).input >= 0
