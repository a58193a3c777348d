"""Truths about every format: no input breaks it, and how a body is cut makes no difference. The recordings are made."""

from __future__ import annotations

import contextlib
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dialects.recorded_reading import SSE, packed, spaced, sse
from tollspan.model.errors import WireError
from tollspan.model.records import Facts
from tollspan.wire.dialects import ROUTES, load
from tollspan.wire.providers import bundled
from tollspan.wire.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterable

DIALECTS = sorted({route.dialect for provider in bundled().values() for route in (*provider.routes, *ROUTES)})

TYPES = st.sampled_from(
    [SSE, "application/json", "application/x-ndjson", "application/vnd.amazon.eventstream", "audio/mpeg", ""]
)

# Every key that some format reads, so that values of every type meet every reader.
# fmt: off
KEYS = st.sampled_from([
    "action", "b64_json", "billed_units", "cache_creation", "candidates", "choices", "code", "completion_tokens",
    "container_id", "content", "content_block", "cost", "cost_details", "data", "delta", "duration", "error",
    "event", "finish_reason", "gateway", "id", "image_gen", "incomplete_details", "index", "input",
    "input_tokens", "is_byok", "item", "iterations", "message", "meta", "metadata", "metrics", "model", "models",
    "n", "num_requests", "output", "output_tokens", "part", "prompt_n", "prompt_tokens", "prompt_tokens_details",
    "provider_metadata", "reason", "response", "result", "search_units", "seconds", "server_tool_use",
    "service_tier", "status", "stop_reason", "stream", "svg_usage", "text", "timings", "tool_usage", "tools",
    "total_tokens", "type", "usage", "usageMetadata", "usage_breakdown", "web_search", "x_groq",
])
# fmt: on
NUMBERS = st.integers(-1, 2**70) | st.floats()
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | NUMBERS
    | st.text(max_size=3)
    | st.sampled_from(["completed", "message_start", "error"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=8)


def fed(dialect: str, pieces: Iterable[bytes], content_type: str) -> Facts:
    """Return the facts after these pieces."""
    facts = Facts(load(dialect).operation)
    reader = Reader(load(dialect), facts, content_type)
    for piece in pieces:
        reader.feed(piece)
    reader.close()
    return facts


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    """Return the body in pieces that begin at these places."""
    marks = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(marks)]


def fields_of(facts: Facts) -> dict[str, Any]:
    """Return all that the facts say."""
    return {name: getattr(facts, name) for name in Facts.__slots__}


CUTS = st.lists(st.integers(0, 10_000), max_size=40)


@given(dialect=st.sampled_from(DIALECTS), body=st.binary(max_size=400), cuts=CUTS, content_type=TYPES)
def test_any_bytes(dialect: str, body: bytes, cuts: list[int], content_type: str) -> None:
    """Whatever bytes come, however cut and labelled: a reader raises WireError or nothing."""
    with contextlib.suppress(WireError):
        fed(dialect, cut(body, cuts), content_type)


@given(
    dialect=st.sampled_from(DIALECTS),
    values=st.lists(OBJECTS, max_size=4),
    style=st.sampled_from([packed, spaced]),
    content_type=TYPES,
)
def test_any_json(dialect: str, values: list[dict[str, Any]], style: Any, content_type: str) -> None:
    """Known keys may hold values of any type, in plain answers and in events."""
    with contextlib.suppress(WireError):
        fed(dialect, [style(values[0]) if values else b"{}"], content_type)
        fed(dialect, [sse(*values, style=style)], content_type)


@given(
    dialect=st.sampled_from(DIALECTS),
    body=OBJECTS,
    path=st.text(max_size=60),
    headers=st.dictionaries(st.text(max_size=9), st.text(max_size=9)),
)
def test_any_request(dialect: str, body: dict[str, Any], path: str, headers: dict[str, str]) -> None:
    """No request and no header breaks a format."""
    chosen, facts = load(dialect), Facts()
    chosen.read_path(facts, path)
    chosen.read_request(facts, body)
    chosen.read_headers(facts, headers)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_deep_json(dialect: str) -> None:
    """JSON may nest as deep as it likes, deeper than the stack too."""
    for depth in (900, 50_000):
        nested = b'{"a":[' * depth + b'"x"' + b"]}" * depth
        deep = b'{"choices":[{"delta":' + nested + b'}],"delta":' + nested + b',"content":' + nested + b"}"
        for body in (deep, b"data: " + deep + b"\n\n"):
            fed(dialect, [body], "")


CHAT_USAGE = {"prompt_tokens": 20, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}
CHAT_END: dict[str, Any] = {"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None}
CHAT = [
    {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}], "usage": None},
    *({"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}]} for text in "Grüße, 世界!"),
    CHAT_END,
    {"id": "c1", "model": "m", "choices": [], "usage": CHAT_USAGE},
]
MESSAGE = [
    {"type": "message_start", "message": {"id": "m1", "usage": {"input_tokens": 3, "cache_read_input_tokens": 5}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in "Grüße, 世界!"),
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
]
RESPONSE = [
    {"type": "response.created", "response": {"id": "r1", "status": "in_progress", "usage": None}},
    *({"type": "response.output_text.delta", "delta": text} for text in "Grüße, 世界!"),
    {
        "type": "response.completed",
        "response": {"id": "r1", "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 9}},
    },
]
RECORDINGS = [
    ("openai_chat", sse(*CHAT)),
    ("openai_chat", sse(*CHAT, style=spaced).replace(b"\n", b"\r\n")),
    ("openai_chat", b": keep-alive\n\n" + sse(*CHAT[:5]) + b'event: error\ndata: {"type":"overloaded"}\n\n'),
    ("openai_chat", b"\n   \n" + packed({**CHAT_END, "usage": CHAT_USAGE})),
    ("openai_chat", b" \r\n\t " + sse(*CHAT)),
    ("openai_chat", b"\xef\xbb\xbf" + sse(*CHAT)),
    ("anthropic", sse(*MESSAGE, done=False, names=True)),
    ("anthropic", sse(*MESSAGE[:6], done=False, style=spaced)),
    ("openai_responses", sse(*RESPONSE, done=False, names=True)),
]


@pytest.mark.parametrize(("dialect", "body"), RECORDINGS)
@given(cuts=CUTS)
def test_cutting_makes_no_difference(dialect: str, body: bytes, cuts: list[int]) -> None:
    """The facts of a body are the same however it was cut."""
    whole = fields_of(fed(dialect, [body], SSE))
    assert fields_of(fed(dialect, cut(body, cuts), SSE)) == whole


@given(blank=st.text(" \t\r\n", max_size=9), cuts=CUTS)
@pytest.mark.parametrize(("dialect", "body"), RECORDINGS)
def test_blanks_before_a_body_make_no_difference(dialect: str, body: bytes, blank: str, cuts: list[int]) -> None:
    """White space before a body keeps the connection alive, and is no part of the first event, however it is cut."""
    assert fields_of(fed(dialect, cut(blank.encode() + body, cuts), SSE)) == fields_of(fed(dialect, [body], SSE))


def test_every_format_is_reached() -> None:
    """Each format belongs to a path: a module that no route names would be dead."""
    named = set(DIALECTS)
    modules = {
        entry.name.removesuffix(".py")
        for entry in files("tollspan.wire.dialects").iterdir()
        if entry.name.endswith(".py")
    }
    offered = {name for name in modules if name != "__init__" and _is_dialect(name)}
    assert offered == named


def _is_dialect(name: str) -> bool:
    try:
        return load(name).name == name
    except LookupError:
        return False  # what several formats share
