"""Anthropic messages. The recordings are made, after shapes that the API and its gateways send."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest

from tests.dialects.recorded_reading import CUT, packed, read, spaced, sse, used
from tollspan.model.records import Usage

pytestmark = CUT

USAGE: dict[str, Any] = {
    "input_tokens": 3,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 20,
    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
    "output_tokens": 1,
    "service_tier": "standard",
    "inference_geo": "us",
    "speed": "fast",
}


def message(**more: Any) -> dict[str, Any]:
    """Return a message object."""
    known = {
        "type": "message",
        "id": "msg_1",
        "model": "claude-sonnet-4-5-20250929",
        "role": "assistant",
        "content": [],
    }
    return {**known, "stop_reason": None, "usage": USAGE, **more}


def block(index: int = 0, **content: Any) -> dict[str, Any]:
    """Return the start of a content block."""
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(**content: Any) -> dict[str, Any]:
    """Return a piece of a content block."""
    return {"type": "content_block_delta", "index": 0, "delta": content}


START = {"type": "message_start", "message": message()}
TEXT = (block(type="text", text=""), {"type": "ping"}, delta(type="text_delta", text='a "usage":{ b'))
STOP = {"type": "message_stop"}


def end(**usage: Any) -> dict[str, Any]:
    """Return a message's last delta."""
    return {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}


def test_plain_answer(size: int) -> None:
    """The wire's input leaves the cache out: ours counts reads and writes in."""
    facts = read("anthropic", packed(message(stop_reason="tool_use", usage={**USAGE, "output_tokens": 8})), size)
    assert used(facts) == Usage(
        input=323, output=8, cache_read=20, cache_write=300, cache_write_5m=200, cache_write_1h=100
    )
    assert (facts.tier, facts.geography, facts.speed) == ("standard", "us", "fast")
    assert (facts.response_id, facts.finish_reasons, facts.complete) == ("msg_1", ["tool_use"], True)


@pytest.mark.parametrize("style", [packed, spaced])
@pytest.mark.parametrize("names", [True, False])
def test_stream(size: int, style: Any, names: bool) -> None:
    """The last delta's counts override the first ones; what it leaves out (the cache's split, tier) stays as it was."""
    body = sse(START, *TEXT, end(output_tokens=9, input_tokens=None), STOP, done=False, names=names, style=style)
    facts = read("anthropic", body, size)
    assert used(facts) == Usage(
        input=323, output=9, cache_read=20, cache_write=300, cache_write_5m=200, cache_write_1h=100
    )
    assert (facts.tier, facts.finish_reasons, facts.complete) == ("standard", ["end_turn"], True)


def test_a_ping_in_another_style(size: int) -> None:
    """A ping that somebody else has written does not say how the rest is written, wherever it stands."""
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    whole = sse(START, *TEXT, TEXT[-1], end(output_tokens=91), STOP, done=False, names=True)
    at = [found.start() for found in re.finditer(b"event: ", whole)]
    for place in at:
        found = used(read("anthropic", whole[:place] + ping + whole[place:], size))
        assert (found.input, found.output) == (323, 91)


def test_server_tools_raise_the_input(size: int) -> None:
    """Server-side tools make the input grow while the answer is made: the last word holds, and nothing is added."""
    last = end(input_tokens=4727, output_tokens=91, server_tool_use={"web_search_requests": 2, "web_fetch_requests": 1})
    found = used(read("anthropic", sse(START, *TEXT, last, STOP, done=False, names=True), size))
    assert (found.input, found.output, found.units) == (5047, 91, {"web_searches": 2})


def test_left_at_the_last_delta(size: int) -> None:
    """The delta with the stop reason completes a message: what follows says nothing, and some readers stop there."""
    facts = read("anthropic", sse(START, *TEXT, end(output_tokens=9), done=False, names=True), size)
    assert (used(facts).output, facts.complete) == (9, True)
    uncounted = read("anthropic", sse(START, *TEXT, end(), done=False, names=True), size)
    assert not uncounted.complete


def test_counts_do_not_fall(size: int) -> None:
    """A zero in a later event leaves a positive count as it was, inside of objects, too; a larger count replaces it."""
    tools = {"server_tool_use": {"web_search_requests": 2}}
    zeros = end(input_tokens=0, cache_read_input_tokens=0, output_tokens=0, server_tool_use={"web_search_requests": 0})
    body = sse(START, *TEXT, end(output_tokens=9, **tools), zeros, STOP, done=False, names=True)
    found = used(read("anthropic", body, size))
    assert (found.input, found.output, found.cache_read, found.units) == (323, 9, 20, {"web_searches": 2})


def test_broken_off(size: int) -> None:
    """A stream that breaks off has its input from the first event, and is not complete."""
    facts = read("anthropic", sse(START, *TEXT, TEXT[-1], done=False, names=True), size)
    assert (used(facts).input, facts.complete, facts.output_seen) == (323, False, True)
    assert facts.output_events >= 3


def test_thinking_is_inside_the_output(size: int) -> None:
    """Thinking tokens are counted separately, and stay inside the output."""
    last = end(output_tokens=90, output_tokens_details={"thinking_tokens": 60})
    found = used(read("anthropic", sse(START, *TEXT, last, STOP, done=False), size))
    assert (found.output, found.reasoning) == (90, 60)


def test_passes_in_parts(size: int) -> None:
    """Compaction and advisor iterations are parts; the tokens of a compaction, which the totals lack, are added."""
    passes = [
        {"type": "compaction", "input_tokens": 99195, "output_tokens": 81},
        {"type": "message", "input_tokens": 162, "output_tokens": 5, "cache_read_input_tokens": 10},
        {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 2543, "output_tokens": 18},
    ]
    facts = read(
        "anthropic", packed(message(usage={"input_tokens": 162, "output_tokens": 5, "iterations": passes})), size
    )
    assert (used(facts).input, used(facts).output) == (99357, 86)
    assert [(part.kind, part.model, part.usage.input) for part in facts.parts] == [
        ("compaction", None, 99195),
        ("message", None, 172),
        ("advisor_message", "claude-opus-4-8", 2543),
    ]


def test_one_plain_pass_is_no_part(size: int) -> None:
    """A message made in one pass, or in several of its own, has no parts: its usage holds them all."""
    passes = [{"type": "message", "input_tokens": 3, "output_tokens": 1}] * 2
    assert read("anthropic", packed(message(usage={**USAGE, "iterations": passes})), size).parts == ()


@pytest.mark.parametrize(
    ("event", "output"),
    [
        (block(type="text", text=""), False),
        (block(type="thinking", thinking="", signature=""), False),
        ({"type": "ping"}, False),
        (block(type="tool_use", id="toolu_1", name="f", input={}, caller={"type": "direct"}), True),
        (block(type="redacted_thinking", data="Zm9v"), True),
        (delta(type="text_delta", text="a"), True),
        (delta(type="thinking_delta", thinking="Hm"), True),
        (delta(type="input_json_delta", partial_json='{"a'), True),
        (delta(type="telepathy_delta", thought="a"), True),
    ],
)
def test_first_output(size: int, event: dict[str, Any], output: bool) -> None:
    """Output starts with the first event that carries any, of any kind; empty blocks are none."""
    assert read("anthropic", sse(START, event, done=False), size).output_seen is output


@pytest.mark.parametrize(
    "body",
    [
        packed({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}),
        sse(START, *TEXT, {"type": "error", "error": {"type": "overloaded_error"}}, done=False, names=True),
        sse(START, *TEXT, done=False) + b'event: error\ndata: {"error":{"type":"overloaded_error"}}\n\n',
    ],
)
def test_errors(size: int, body: bytes) -> None:
    """An error is named by its type, also in the middle of a stream."""
    assert read("anthropic", body, size).error_type == "overloaded_error"


def test_stated_cost(size: int) -> None:
    """A gateway's estimate of the cost is taken."""
    usage = {**USAGE, "pydantic_ai_gateway": {"cost_estimate": 0.00019}}
    assert read("anthropic", packed(message(usage=usage)), size).provider_cost == Decimal("0.00019")


def test_request(size: int) -> None:
    """The request states model, limit, tier, speed and effort."""
    body = {
        "model": "claude-sonnet-4-5",
        "stream": True,
        "max_tokens": 64,
        "service_tier": "auto",
        "speed": "fast",
        "output_config": {"effort": "low"},
    }
    facts = read("anthropic", packed(message()), size, request=body)
    assert (facts.request_model, facts.stream, facts.max_output) == ("claude-sonnet-4-5", True, 64)
    assert (facts.request_tier, facts.reasoning_level) == ("auto", "low")


def test_older_completions_have_no_usage(size: int) -> None:
    """The older API counts nothing: its calls are complete, and their usage is unknown."""
    completion = {"id": "compl_1", "model": "claude-2.1", "completion": " Hi", "stop_reason": "stop_sequence"}
    facts = read(
        "anthropic_complete", packed({"type": "completion", **completion}), size, request={"max_tokens_to_sample": 9}
    )
    assert (facts.response_model, facts.finish_reasons, facts.usage) == ("claude-2.1", ["stop_sequence"], None)
    pieces = [{"type": "completion", "completion": text, "stop_reason": None} for text in ("", " Hi")]
    streamed = read("anthropic_complete", sse(*pieces, completion, done=False, names=False), size)
    assert (streamed.complete, streamed.output_seen, streamed.operation) == (True, True, "text_completion")
