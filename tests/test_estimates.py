"""Estimates of tokens: pure, bounded in time and memory, near what tokenizers count, and exact if one is available."""

from __future__ import annotations

import hashlib
import json
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.capture.billed_usage import EndState, billed_usage
from tollspan.model.records import Facts
from tollspan.settings import tiktoken_folder
from tollspan.tokens.estimates import MAX_TEXT, Received, input_tokens, output_tokens, response_text, sizes, unescaped
from tollspan.tokens.model_families import SAMPLE, SAMPLES, family_of, measure
from tollspan.tokens.prompting import Prompting
from tollspan.tokens.tiktoken_counts import TABLES, TiktokenCounter
from tollspan.wire.dialects import load
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.reader import Reader
from tollspan.wire.skimmer import string_end

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GPT, CLAUDE = family_of("gpt-4o-mini"), family_of("claude-haiku-4-5")
ENGLISH = "The quick brown fox jumps over the lazy dog, and nobody in the village was surprised by it at all."


def received(text: str) -> Received:
    """Return a text as the reader keeps it."""
    found = Received()
    found.raw = [json.dumps(text)[1:-1].encode()]
    return found


# Text


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # Counted with the o200k encoding, by hand from its published splits: words with their space are one token each.
        (ENGLISH, 21),
        ("1234567890", 4),
        ("", 0),
    ],
)
def test_plain_text_is_near(text: str, tokens: int) -> None:
    """Everyday text comes out within a tenth or two tokens of what a tokenizer counts."""
    assert GPT.tokens(measure(text)) == pytest.approx(tokens, rel=0.15, abs=2)


def test_scripts_count_differently() -> None:
    """A Chinese character counts for most of a token, a letter of a word for a fraction of one, an emoji for two."""
    assert measure("天地玄黄") == {"words": 0, "accents": 0, "numbers": 0, "wide": 4, "foreign": 0, "symbols": 0} | {
        "lines": 0,
        "marks": 0,
    }
    assert measure("Привет")["foreign"] == 6
    assert measure("🙂🙂")["symbols"] == 2
    assert measure("é")["accents"] == 1


@given(st.text(max_size=400))
def test_any_text_can_be_measured(text: str) -> None:
    """Nothing is raised, no count is negative, and more text is never fewer pieces of a kind by more than one."""
    pieces = measure(text)
    assert all(number >= 0 for number in pieces.values())
    assert CLAUDE.tokens(pieces) >= 0


def test_long_texts_are_sampled() -> None:
    """A text of megabytes is measured by samples, and comes out as its like."""
    text = (ENGLISH + "\n") * 40_000
    assert len(text) > SAMPLES * SAMPLE
    short = GPT.tokens(measure(ENGLISH + "\n")) * 40_000
    assert GPT.tokens(measure(text)) == pytest.approx(short, rel=0.02)


def test_families_are_told_by_name() -> None:
    """The model's name decides its tokenizer, at any provider; an unknown name gets the common one."""
    assert family_of("us.anthropic.claude-sonnet-4-5-20250929-v1:0") is CLAUDE
    assert family_of(None, "openai/gpt-4.1") is GPT
    assert family_of("o3-mini") is GPT
    assert family_of("openai/gpt-oss-120b") is not GPT
    assert family_of("my-deployment") is family_of(None)
    assert family_of("my-deployment", "gpt-4o") is GPT


@pytest.mark.parametrize(
    ("model", "auto", "forced"),
    [
        # As https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview lists them.
        ("claude-3-haiku-20240307", 264, 340),
        ("anthropic.claude-3-sonnet-20240229-v1:0", 159, 235),
        ("claude-3-opus-20240229", 530, 281),
        ("claude-3-5-haiku-20241022", 264, 340),
        ("anthropic/claude-3.7-sonnet", 346, 313),
        ("claude-sonnet-4-20250514", 313, 315),
        ("claude-opus-4-1-20250805", 313, 315),
        ("claude-sonnet-4-5-20250929", 496, 588),
        ("anthropic/claude-4.5-haiku-20251001", 496, 588),
        ("claude-opus-4-7", 675, 804),
        ("claude-opus-4-8", 290, 410),
        ("claude-sonnet-5", 354, 474),
    ],
)
def test_instructions_for_claudes_tools(model: str, auto: int, forced: int) -> None:
    """Each model's instructions for tools count as documented, and others where a tool must be used."""
    family = family_of(model)
    assert (family.tools, family.forced) == (auto, forced)
    body = {"messages": [SAID], "tools": [{"name": "weather", "input_schema": {"type": "object"}}]}
    free = input_tokens(body, family)
    bound = input_tokens({**body, "tool_choice": {"type": "any"}}, family)
    assert free is not None
    assert bound is not None
    assert bound.value - free.value == forced - auto


# Requests


def bounds(body: dict[str, Any], model: str = "gpt-4o-mini", **options: Any) -> tuple[int, int, int]:
    """Estimate a request."""
    found = input_tokens(body, family_of(model), **options)
    assert found is not None
    return found


SAID = {"role": "user", "content": ENGLISH}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Tell it.", "parameters": {"type": "object"}},
}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [SAID]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ENGLISH}]}]},
        {"input": [SAID]},
        {"contents": [{"role": "user", "parts": [{"text": ENGLISH}]}]},
        {"messages": [{"role": "user", "content": [{"text": ENGLISH}]}]},
    ],
    ids=["chat", "blocks", "responses", "gemini", "converse"],
)
def test_formats_come_out_alike(body: dict[str, Any]) -> None:
    """The same words count the same in any format."""
    low, value, high = bounds(body)
    assert value == bounds({"messages": [SAID]})[1]
    assert 0 < low <= value <= high


def test_settings_are_no_content() -> None:
    """Names, identifiers and settings count for nothing."""
    plain = bounds({"messages": [SAID]})
    busy = {
        "model": "gpt-4o-mini" * 20,
        "metadata": {"note": ENGLISH},
        "user": ENGLISH,
        "messages": [{**SAID, "name": "x", "cache_control": {"type": "ephemeral"}}],
    }
    assert bounds(busy) == plain


def test_tools_files_and_schemas_count() -> None:
    """Tools, schemas and pictures add to the input; with its tools Claude is given a page of instructions."""
    plain = bounds({"messages": [SAID]})
    form = {"type": "json_schema", "json_schema": {"schema": {"properties": {"city": {"type": "string"}}}}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}
    for more in (
        {"tools": [TOOL]},
        {"response_format": form},
        {"messages": [SAID, {"role": "user", "content": [picture]}]},
    ):
        assert bounds({"messages": [SAID], **more})[1] > plain[1]
    assert sizes({"messages": [{"role": "user", "content": [picture]}]}).media == ["image"]
    tool = {"name": "weather", "input_schema": {"type": "object"}}
    claude = "claude-haiku-4-5"
    assert bounds({"messages": [SAID], "tools": [tool]}, claude)[1] > bounds({"messages": [SAID]}, claude)[1] + 300


def test_tools_that_may_not_be_used() -> None:
    """Templates of open models omit tools if none may be used; Claude reads them all the same."""
    body = {"messages": [SAID], "tools": [TOOL]}
    barred = {**body, "tool_choice": "none"}
    assert bounds(barred, "qwen3-32b") == bounds({"messages": [SAID]}, "qwen3-32b")
    assert bounds(barred, "claude-haiku-4-5") == bounds(body, "claude-haiku-4-5")


@pytest.mark.parametrize(
    "more",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {"outputConfig": {"textFormat": {"structure": {"jsonSchema": {"schema": '{"type":"object"}'}}}}},
        {"text": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
    ],
    ids=["chat", "messages", "converse", "responses"],
)
def test_schemas_of_all_formats(more: dict[str, Any]) -> None:
    """The schema of an answer counts wherever its format keeps it; Claude is given instructions for it."""
    claude = "claude-haiku-4-5"
    assert bounds({"messages": [SAID], **more}, claude)[1] > bounds({"messages": [SAID]}, claude)[1] + CLAUDE.json


def test_json_without_a_schema() -> None:
    """Some models read a line of instructions if the response has to be JSON, without a schema."""
    body = {"messages": [SAID]}
    request = {**body, "response_format": {"type": "json_object"}}
    assert bounds(request, "deepseek-chat")[1] == bounds(body, "deepseek-chat")[1] + family_of("deepseek-chat").json
    assert bounds(request) == bounds(body)


def test_thoughts_are_read_again_within_a_turn() -> None:
    """An encrypted thought counts until the user says something else; its summary never does."""
    think = {"type": "thinking", "thinking": ENGLISH * 50, "signature": "A" * 800}
    use = {"type": "tool_use", "id": "x", "name": "weather", "input": {"city": "Paris"}}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "sunny"}]}

    def of(*blocks: Any, after: Any) -> int:
        return bounds({"messages": [SAID, {"role": "assistant", "content": [*blocks]}, after]}, "claude-haiku-4-5")[1]

    assert of(think, use, after=result) == of(use, after=result) + 800 // CLAUDE.thoughts
    assert of(think, after=SAID) == of(after=SAID)


def test_calls_count_in_requests() -> None:
    """A tool call that is sent back has a cost besides its arguments."""
    call = {"id": "x", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    said = {"role": "assistant", "content": None}
    calling = {**said, "tool_calls": [call]}
    assert bounds({"messages": [SAID, calling]})[1] >= bounds({"messages": [SAID, said]})[1] + GPT.called


def test_bare_prompts_have_no_template() -> None:
    """A completion's prompt is read as it is; a response's text stands for a message."""
    prompt, message = bounds({"prompt": ENGLISH})[1], bounds({"input": ENGLISH})[1]
    assert prompt == round(GPT.tokens(measure(ENGLISH)))
    assert message == bounds({"messages": [SAID]})[1]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("data:application/pdf;base64,", "document"),
        ("data:image/png;base64,", "image"),
        ("data:audio/wav;base64,", "audio"),
    ],
)
def test_files_in_data_urls_are_media(url: str, kind: str) -> None:
    """A file that is sent as a data URL is a file, under any key."""
    found = sizes({"messages": [{"role": "user", "content": [{"type": "x", "some_url": url + "A" * 9000}]}]})
    assert (found.media, found.text) == ([kind], "")


def test_what_providers_add() -> None:
    """Where a provider is known to add a prompt of its own, or to count half of the tools, estimates do too."""
    body = {"messages": [SAID], "tools": [TOOL]}
    assert bounds(body, by=Prompting(unseen=950))[1] == bounds(body)[1] + 950
    assert bounds({"messages": [SAID]})[1] < bounds(body, by=Prompting(tools=0.5))[1] < bounds(body)[1]
    assert bounds({"prompt": ENGLISH}, by=Prompting(unseen=950)) == bounds({"prompt": ENGLISH})


def test_token_arrays_are_exact() -> None:
    """A text that is sent as tokens has as many."""
    assert bounds({"input": [[1, 2, 3], [4, 5]]}, "text-embedding-3-small", chat=False) == (5, 5, 5)


@pytest.mark.parametrize("body", [{}, {"model": "x"}, {"messages": []}, {"messages": None}, {"input": {}}], ids=str)
def test_nothing_to_count_is_no_estimate(body: dict[str, Any]) -> None:
    """A request that shows nothing of what it holds is not estimated."""
    assert input_tokens(body, GPT) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["role", "type", "content", "text", "image_url", "source", "tools", "input", "args"]),
                inner,
            )
        ),
    )
)
def test_any_request_can_be_estimated(value: Any) -> None:
    """Whatever stands in a request, nothing is raised, and the value lies between its bounds."""
    for key in ("messages", "input", "tools", "response_format"):
        found = input_tokens({"prompt": "x", key: value}, CLAUDE)
        assert found is not None
        assert 0 <= found.low <= found.value <= found.high


def test_deep_requests_are_no_trouble() -> None:
    """A body that nests thousands of times is counted like any other."""
    value: Any = "word"
    for _ in range(5000):
        value = [value]
    assert input_tokens({"messages": value}, GPT) is not None


# Answers


def test_answers_in_all_formats() -> None:
    """A plain answer's text is found wherever its format keeps it; thoughts sent twice count once."""
    message = {"role": "assistant", "content": ENGLISH}
    texts = [
        response_text(body).text()
        for body in (
            {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]},
            {"content": [{"type": "text", "text": ENGLISH}]},
            {"output": [{"type": "message", "content": [{"type": "output_text", "text": ENGLISH, "annotations": []}]}]},
            {"candidates": [{"content": {"parts": [{"text": ENGLISH}], "role": "model"}, "finishReason": "STOP"}]},
            {"message": message},
        )
    ]
    assert texts == [ENGLISH] * 5
    thinking = {**message, "reasoning": "So.", "reasoning_content": "So."}
    assert response_text({"choices": [{"message": thinking}]}).text() in {f"So.{ENGLISH}", f"{ENGLISH}So."}


def test_tool_calls_count() -> None:
    """A tool call has a cost besides its arguments."""
    call = {"type": "tool_use", "id": "x", "name": "weather", "input": {"city": "Paris"}}
    found = response_text({"content": [call]})
    assert found.calls == 1
    assert output_tokens(found, CLAUDE).value > 30


def test_what_a_providers_tool_gave_back_is_no_output() -> None:
    """Search results stand among an answer's blocks, and the model did not write them."""
    result = {"type": "web_search_tool_result", "content": [{"type": "web_search_result", "title": ENGLISH}]}
    assert not response_text({"content": [result]})


def test_escapes_are_undone() -> None:
    """Text is counted as it reads, not as JSON writes it; a cut escape is no trouble."""
    assert unescaped(b"caf\\u00e9\\n\\u5929") == "café\n天"
    assert unescaped(b"cut \\u00") == "cut \\u00"


def test_little_is_kept_of_long_answers() -> None:
    """However long an answer, what is held of it stays bounded, and the count goes on."""
    found = Received()
    for _ in range(2000):
        found.raw.append(ENGLISH.encode())
        found.settle()
        assert sum(map(len, found.raw)) <= MAX_TEXT + len(ENGLISH)
    assert found.text() is None
    assert GPT.tokens(found.pieces()) == pytest.approx(GPT.tokens(measure(ENGLISH)) * 2000, rel=0.05)


# What the reader keeps


def chunk(text: str, **more: Any) -> bytes:
    """Return a chunk of a chat completion."""
    data = {"id": "made", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def read(events: list[bytes], size: int, dialect: str = "openai_chat", kind: type[Reader] = Reader) -> Reader:
    """Read a stream in pieces of a size."""
    reader = kind(load(dialect), Facts(), "text/event-stream")
    text = b"".join(events)
    for at in range(0, len(text), size):
        reader.feed(text[at : at + size])
    reader.close()
    return reader


WORDS = ["Say ", '"hi" ', "", "back\\slash ", "line\n", "天地 ", '\\"', "end"]


@pytest.mark.parametrize("size", [1, 7, 100, 10**9])
@pytest.mark.parametrize("padding", [False, True], ids=["plain", "padded"])
def test_text_is_kept_whole(size: int, padding: bool) -> None:
    """However a stream is cut, its text is kept: with quotes, escapes, other scripts, and OpenAI's padding."""
    words = WORDS * 30
    events = [chunk(word, **({"obfuscation": "x" * (at % 9)} if padding else {})) for at, word in enumerate(words)]
    assert read(events, size).text.text() == "".join(words)


def responses(text: str, number: Any, order: int) -> bytes:
    """Return an event of OpenAI's Responses, which is numbered and padded: behind its text, before it, or dated."""
    event: dict[str, Any] = {"type": "response.output_text.delta", "item_id": "msg_made", "delta": text}
    padding = {"logprobs": [], "obfuscation": "x" * (len(text) * 7 % 11)}
    numbered = {"sequence_number": number}
    event = [{**event, **padding, **numbered}, {**numbered, **event, **padding}, {**event, "created": number}][order]
    return b"event: response.output_text.delta\ndata: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


@pytest.mark.parametrize("size", [1, 7, 100, 10**9])
@pytest.mark.parametrize("order", [0, 1, 2], ids=["behind", "before", "dated"])
def test_numbered_events_are_read(size: int, order: int) -> None:
    """Events that count, date and pad themselves keep their text, and what stands between them is heard."""
    words = WORDS * 30
    results = {"type": "response.completed", "sequence_number": 70, "response": {"usage": {"input_tokens": 3}}}
    usage = [b"event: response.completed\ndata: " + json.dumps(results, separators=(",", ":")).encode() + b"\n\n"]
    events = [responses(word, number, order) for number, word in enumerate(words)]
    facts = Facts()
    reader = Reader(load("openai_responses"), facts, "text/event-stream")
    text = b"".join(events[:70] + usage + events[70:])
    for at in range(0, len(text), size):
        reader.feed(text[at : at + size])
    reader.close()
    assert reader.text.text() == "".join(words)
    assert facts.usage is not None
    assert facts.usage.input == 3
    assert facts.output_events == len(events) + 1


@pytest.mark.parametrize("hidden", [{"usage": {"input_tokens": 3}}, '5,"usage":{"input_tokens":3}', [1], None, "7"])
def test_nothing_hides_where_a_number_should_be(hidden: Any) -> None:
    """Where something else than a number counts an event, it is looked at like any other."""
    words = ["one ", "two ", "three ", "four ", "five ", "six "]
    for order in range(3):
        events = [responses(word, hidden if at == 4 else at, order) for at, word in enumerate(words)]
        reader = read(events, 10**9, "openai_responses")
        assert reader.text.text() == "".join(words)


def test_dated_lines_are_read() -> None:
    """Lines that say when they were written, as Ollama's do, keep their text."""
    words = WORDS * 30
    made = [
        {"model": "made", "created_at": f"2026-11-22T12:00:00.{at:03}Z", "message": {"content": word}, "done": False}
        for at, word in enumerate(words)
    ]
    reader = Reader(load("ollama"), Facts(), "application/x-ndjson")
    for line in made:
        reader.feed(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    reader.close()
    assert reader.text.text() == "".join(words)


def test_two_texts_of_one_event_are_kept() -> None:
    """Of choices that come in one event the texts of all are kept, however often the event comes again."""
    choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
    both = b"data: " + json.dumps({"id": "made", "choices": [choice, choice]}, separators=(",", ":")).encode() + b"\n\n"
    assert read([chunk("word "), *[both] * 20], 100).text.text() == "word " * 41


class ByBlock(Reader):
    """Reads every block by itself."""

    __slots__ = ()

    def _skip(self, text: bytes, at: int) -> int:  # noqa: ARG002 - as its base class has it
        return at


class Counting(Reader):
    """Counts the blocks that it reads by themselves."""

    __slots__ = ("looked_at",)

    def _read_other(self, block: bytes) -> None:
        self.looked_at = getattr(self, "looked_at", 0) + 1
        super()._read_other(block)


PIECES = ["Say", " so", ' \\"hi\\"', "\\\\", " {", "\\n", " }}", "天", ' {\\"a\\":', "\\u00e9"]
"""Texts as they stand in JSON."""

SHAPES = {
    "anthropic, padded with spaces": (
        "anthropic",
        (
            'event: content_block_delta\ndata: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta",'
            '"text":"%(text)s"}%(spaces)s}'
        ),
    ),
    "anthropic, a tool's arguments": (
        "anthropic",
        (
            'event: content_block_delta\ndata: {"type":"content_block_delta","index":1,"delta":'
            '{"type":"input_json_delta","partial_json":"%(text)s"}%(spaces)s}'
        ),
    ),
    "openai, padded": (
        "openai_chat",
        'data: {"choices":[{"index":0,"delta":{"content":"%(text)s"}}],"obfuscation":"%(padding)s"}',
    ),
    "openai, two choices": (
        "openai_chat",
        'data: {"id":"c","created":7,"choices":[{"index":%(turn)s,"delta":{"content":"%(text)s"}}]}',
    ),
    "openai, arguments": (
        "openai_chat",
        'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"%(text)s"}}]}}]}',
    ),
    "openrouter, reasoning sent twice": (
        "openai_chat",
        (
            'data: {"created":7,"choices":[{"index":0,"delta":{"content":"","reasoning":"%(text)s","reasoning_details":'
            '[{"type":"reasoning.text","text":"%(text)s","format":"unknown","index":0}]}}]}'
        ),
    ),
    "a text sent before, and its token": (
        "openai_chat",
        (
            'data: {"created":7,"choices":[{"index":0,"text":"%(text)s","delta":{"token_id":%(number)s,'
            '"content":"%(text)s"}}]}'
        ),
    ),
    "responses, whose items change their names": (
        "openai_responses",
        (
            "event: response.output_text.delta\ndata: "
            '{"content_index":0,"delta":"%(text)s","item_id":"item-%(number)s","obfuscation":"%(padding)s",'
            '"output_index":1,"sequence_number":%(number)s,"type":"response.output_text.delta"}'
        ),
    ),
}
"""Made after what servers send: events of a format that differ in their texts, and in other ways."""


@pytest.mark.parametrize("size", [1, 100, 4096, 10**9])
@pytest.mark.parametrize("shape", SHAPES)
def test_events_are_compared_where_they_stand(shape: str, size: int) -> None:
    """Nearly none of a stream's events is taken apart, and the result is that of reading each."""
    dialect, event = SHAPES[shape]
    body = "".join(
        event
        % {
            "text": PIECES[number % len(PIECES)],
            "spaces": " " * (number * 7 % 16),
            "padding": "a" * (number * 5 % 9 + 1),
            "turn": number % 2,
            "number": number,
        }
        + "\n\n"
        for number in range(300)
    ).encode()
    results = []
    for kind in (ByBlock, Counting):
        reader = read([body], size, dialect, kind)
        text, events = reader.text, reader._facts.output_events
        results.append((text.text(), text.size, text.calls, sorted(text.pieces().items()), events))
    assert results[0] == results[1]
    assert results[0][-1] == 300
    assert isinstance(reader, Counting)
    assert reader.looked_at <= 8


def test_events_that_end_in_the_middle_of_a_string() -> None:
    """Where every event breaks off in its padding, which is no JSON, each is still one event."""
    events = [chunk("ab", padding="a" * (number % 5 + 1))[:-4] + b"\n\n" for number in range(40)]
    assert all(event.endswith(b"a\n\n") for event in events)
    for size in (1, 100, 10**9):
        reader = read([chunk("first"), *events], size)
        assert (reader.text.text(), reader._facts.output_events) == ("first" + "ab" * 40, 41)


def test_what_keeps_a_connection_alive_is_no_output() -> None:
    """Comments and blank lines between the events of a stream are none of them, after any events."""
    events = [chunk(word) for word in WORDS * 3]
    alive = [part for event in events for part in (event, b": keep-alive\n\n", b"\n\n", b":\n\n")]
    for size in (1, 7, 100, 10**9):
        assert read(alive, size)._facts.output_events == len(events)


@pytest.mark.parametrize("apart", [b"\n", b"\n\n", b"\r\r\n", b"\n\n" * 3000])
@pytest.mark.parametrize("where", [b'"content":"a', b'"padding":"a'])
def test_line_ends_inside_of_strings(apart: bytes, where: bytes) -> None:
    """Where a server writes line ends into strings, which is no JSON, an answer is still read as it is, however cut."""
    events = [chunk("ab", padding="a" * (number % 5 + 1)) for number in range(40)]
    events[20] = events[20].replace(where, where + apart)
    results = [
        (reader.text.text(), reader._facts.output_events) for reader in (read(events, n) for n in (1, 99, 10**9))
    ]
    assert results[0] == results[1] == results[2]
    assert (results[0][0] or "").count("ab") >= 39


@pytest.mark.parametrize("ending", ["", "\\", '\\"', "\\\\"])
def test_where_a_string_ends(ending: str) -> None:
    """A string ends at the first quote that no odd number of backslashes stands before, or where its event is cut."""
    for text in ('say \\"x\\"', r"\\", r"\\\"", "plain", "", r"\u005c"):
        assert string_end(f'{{"a":"{text}"}}'.encode(), 6) == 6 + len(text)
        cut = f'{{"a":"{text}{ending}'.encode()
        assert string_end(cut, 6) == len(cut)


def test_arguments_with_many_quotes_are_read_in_one_go() -> None:
    """JSON inside of JSON is escaped at every name; to find its end each byte is looked at a few times at most."""
    arguments = json.dumps({"rows": [{"name": "one", "value": "two"}] * 100_000})
    call = {"index": 0, "function": {"name": "store", "arguments": arguments}}
    data = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}
    event = b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"
    assert read([chunk("Well. "), event], 10**9).text.calls == 1


def test_calls_that_open_alike_are_counted() -> None:
    """Calls of one tool whose events differ by nothing but arguments are as many as there are."""
    call = {"index": 0, "function": {"name": "look", "arguments": "{}"}}
    data = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}
    event = b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"
    assert read([chunk("Well. "), *[event] * 5], 10**9).text.calls == 5


@pytest.mark.parametrize("size", [1, 100, 10**9])
def test_texts_that_look_like_chunks_are_kept(size: int) -> None:
    """A text that quotes a chunk's own bytes does not end it."""
    words = ["a", "b", '"},"finish_reason":null}]}', '"}}]}', '","usage":{"prompt_tokens":9}', "c"] * 20
    reader = read([chunk(word) for word in words], size)
    assert reader.text.text() == "".join(words)


def test_events_that_differ_are_still_read() -> None:
    """Facts that come between texts, or beside one, are not passed over."""
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    facts = Facts()
    reader = Reader(load("openai_chat"), facts, "text/event-stream")
    for event in [*[chunk("word ")] * 50, chunk("last ", usage=usage), *[chunk("word ")] * 50]:
        reader.feed(event)
    reader.close()
    assert facts.usage is not None
    assert (facts.usage.input, facts.usage.output) == (3, 4)
    assert facts.output_events == 101


def test_tool_calls_of_a_stream_are_counted() -> None:
    """A name opens a call, however often its arguments come empty."""

    def called(arguments: str, **name: str) -> bytes:
        call = {"index": 0, "function": {**name, "arguments": arguments}}
        data = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}
        return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"

    reader = read(
        [
            chunk("Well. "),
            called("", name="look"),
            called(""),
            called('{"a"'),
            called(":1}"),
            called("{}", name="go"),
        ],
        50,
    )
    assert reader.text.calls == 2
    assert reader.text.text() == 'Well. {"a":1}{}'


def test_a_document_that_was_cut_off_keeps_its_text() -> None:
    """Half a JSON body still has the text that had come."""
    reader = Reader(load("openai_chat"), Facts(), "application/json")
    reader.feed(b'{"id":"made","choices":[{"index":0,"message":{"role":"assistant","content":"Half an ans')
    reader.close()
    assert reader.text.text() == "Half an ans"


CUSTOM = Dialect(name="custom", text_in=(b'"say":"',), document_text_in=(b'"aside":"',))
"""A format that keeps its text under keys of its own."""


@pytest.mark.parametrize("colon", [b":", b": "])
@pytest.mark.parametrize("end", [b"", b'"}}', b"\\"], ids=["cut off", "complete", "cut in an escape"])
def test_a_custom_dialect_has_its_documents_estimated(colon: bytes, end: bytes) -> None:
    """The keys of a dialect of any origin say what its text is in documents without usage, cut off or complete."""
    body = b'{"id"CUT"made","note"CUT"not ours","reply"CUT{"aside"CUT"So. ","say"CUT"' + ENGLISH.encode() + end
    reader = Reader(CUSTOM, Facts(), "application/json")
    for piece in (body.replace(b"CUT", colon)[:40], body.replace(b"CUT", colon)[40:]):
        reader.feed(piece)
    reader.close()
    assert (reader.text.text() or "").rstrip("\\") == f"So. {ENGLISH}"
    expected = output_tokens(received(f"So. {ENGLISH}"), GPT).value
    assert abs(output_tokens(reader.text, GPT).value - expected) <= 1


def test_a_call_in_a_custom_dialect_that_is_cut_off_is_estimated() -> None:
    """The usage of a document in a custom format that broke off is estimated from its text, and not at zero."""
    facts = Facts()
    reader = Reader(CUSTOM, facts, "application/json")
    reader.feed(b'{"reply":{"say":"' + ENGLISH.encode())
    reader.close()
    billed = billed_usage(
        EndState(
            facts=facts,
            answered=True,
            seconds=1.0,
            textual=bool(CUSTOM.text_in),
            received=reader.text,
            body=lambda: {"prompt": ENGLISH},
            limit=lambda: None,
            tokenizer=lambda: None,
            prompting=Prompting,
        )
    )
    assert billed.quality == "estimated"
    assert billed.usage is not None
    assert (billed.usage.output or 0) >= len(ENGLISH.split())


# tiktoken


@pytest.fixture
def tiktoken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[bytes], TiktokenCounter]:
    """Stand in for tiktoken: an encoding of one token a character, and a folder with a table of that content."""
    package, model = ModuleType("tiktoken"), ModuleType("tiktoken.model")
    package.__spec__ = model.__spec__ = sys.__spec__
    opened: list[str] = []

    class Encoding:
        def encode_ordinary(self, text: str) -> list[int]:
            return [0] * len(text)

    def get_encoding(name: str) -> Encoding:
        opened.append(name)
        return Encoding()

    def encoding_name_for_model(name: str) -> str:
        return {"gpt-4o-mini": "o200k_base", "davinci": "r50k_base"}[name]

    package.get_encoding = get_encoding  # type: ignore[attr-defined]
    package.opened = opened  # type: ignore[attr-defined]
    model.encoding_name_for_model = encoding_name_for_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tiktoken", package)
    monkeypatch.setitem(sys.modules, "tiktoken.model", model)
    monkeypatch.setattr("tollspan.tokens.tiktoken_counts.find_spec", lambda _: sys.__spec__)
    address = TABLES["o200k_base"][0]
    monkeypatch.setitem(TABLES, "o200k_base", (address, hashlib.sha256(b"made table").hexdigest()))

    def with_table(content: bytes) -> TiktokenCounter:
        file = tmp_path / hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()
        if content:
            file.write_bytes(content)
        return TiktokenCounter(tmp_path, _fail)

    return with_table


def _fail(kind: str, error: BaseException) -> None:
    raise AssertionError(kind) from error


def loaded(pairs: TiktokenCounter, model: str) -> Any:
    """Ask, wait for the thread that loads, and ask again."""
    assert pairs.count_for(model) is None
    assert pairs.loading is not None
    pairs.loading.join()
    return pairs.count_for(model)


def test_tiktoken_counts_where_its_data_is_at_hand(tiktoken: Callable[[bytes], TiktokenCounter]) -> None:
    """With the package and its table there, text is counted exactly, from the second estimate on."""
    count = loaded(tiktoken(b"made table"), "gpt-4o-mini")
    assert count(ENGLISH) == len(ENGLISH)
    found = input_tokens({"input": ENGLISH}, GPT, chat=False, count=count)
    assert found == (len(ENGLISH),) * 3
    assert output_tokens(received(ENGLISH), GPT, count=count)[:2] == (len(ENGLISH), len(ENGLISH) + GPT.answer)


@pytest.mark.parametrize(("content", "model"), [(b"", "gpt-4o-mini"), (b"other", "gpt-4o-mini"), (b"x", "davinci")])
def test_tiktoken_is_never_let_to_download(
    tiktoken: Callable[[bytes], TiktokenCounter], content: bytes, model: str
) -> None:
    """Without the table, or with one whose checksum differs, tiktoken is not called: it would fetch it."""
    assert loaded(tiktoken(content), model) is None
    assert sys.modules["tiktoken"].opened == []


def test_models_without_a_public_tokenizer(tiktoken: Callable[[bytes], TiktokenCounter]) -> None:
    """A model that tiktoken does not know is estimated, and nothing fails."""
    assert loaded(tiktoken(b"made table"), "claude-haiku-4-5") is None


def test_without_tiktoken_nothing_is_started() -> None:
    """Where there is no such package or folder, no thread is."""
    pairs = TiktokenCounter(None, _fail)
    assert pairs.count_for("gpt-4o-mini") is None
    assert pairs.loading is None


def test_tiktokens_folder(tmp_path: Path) -> None:
    """The folder is where tiktoken's own variables say; empty means that it keeps nothing."""
    assert tiktoken_folder({"TIKTOKEN_CACHE_DIR": str(tmp_path), "DATA_GYM_CACHE_DIR": "x"}) == tmp_path
    assert tiktoken_folder({"DATA_GYM_CACHE_DIR": str(tmp_path)}) == tmp_path
    assert tiktoken_folder({"TIKTOKEN_CACHE_DIR": ""}) is None
    found = tiktoken_folder({})
    assert found is not None
    assert found.name == "data-gym-cache"
