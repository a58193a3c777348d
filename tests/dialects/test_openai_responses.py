"""OpenAI responses. The recordings are made, after shapes that OpenAI, xAI and Perplexity send."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.dialects.recorded_reading import CUT, packed, read, spaced, sse, used
from tollspan.model.records import Usage

pytestmark = CUT

USAGE: dict[str, Any] = {
    "input_tokens": 40,
    "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 0},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 8},
    "total_tokens": 52,
}
TEXT = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Four."}]}


def response(status: str = "completed", **more: Any) -> dict[str, Any]:
    """Return a response object."""
    known = {"id": "resp_1", "object": "response", "model": "gpt-5-2025-08-07", "status": status, "error": None}
    return {**known, "service_tier": "default", "output": [TEXT], "usage": USAGE, **more}


def stream(*middle: dict[str, Any], end: dict[str, Any] | None = None, style: Any = packed) -> bytes:
    """Return a stream with these events between its beginning and its end."""
    begun = response("in_progress", usage=None, output=[], service_tier="auto")
    last = [] if end is None else [{"type": f"response.{end['status']}", "response": end}]
    events = [{"type": kind, "response": begun} for kind in ("response.created", "response.in_progress")]
    return sse(*events, *middle, *last, done=False, names=True, style=style)


DELTA = {"type": "response.output_text.delta", "item_id": "msg_1", "delta": 'a "usage":{ b', "logprobs": []}


def test_plain_answer(size: int) -> None:
    """A plain response states id, model, tier and counts; reasoning is inside the output."""
    facts = read("openai_responses", packed(response()), size)
    assert (facts.response_id, facts.response_model, facts.tier) == ("resp_1", "gpt-5-2025-08-07", "default")
    assert used(facts) == Usage(input=40, output=12, cache_read=10, cache_write=0, reasoning=8)
    assert facts.finish_reasons == ["stop"]
    assert facts.complete
    assert facts.error_type is None


@pytest.mark.parametrize("style", [packed, spaced])
@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
def test_stream(size: int, status: str, style: Any) -> None:
    """The last event holds the usage and the tier that was served, whichever way the response ended."""
    facts = read("openai_responses", stream(DELTA, DELTA, end=response(status), style=style), size)
    assert (used(facts).input, facts.tier, facts.complete) == (40, "default", True)


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({"status": "completed"}, "stop"),
        ({"status": "completed", "output": [{"type": "function_call", "name": "f"}]}, "tool_calls"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "failed"}, "error"),
        ({"status": "cancelled"}, "cancelled"),
    ],
)
def test_finish_reasons(size: int, stated: dict[str, Any], reason: str) -> None:
    """The finish reason is in the words of the semantic conventions."""
    assert read("openai_responses", packed(response(**stated)), size).finish_reasons == [reason]


def test_broken_off(size: int) -> None:
    """A stream that breaks off is not complete, has no usage, and counts what it received."""
    facts = read("openai_responses", stream(DELTA, DELTA, DELTA), size)
    assert not facts.complete
    assert facts.usage is None
    assert facts.output_events >= 3


def test_background(size: int) -> None:
    """A response that runs in the background is not complete and has no usage: a later request has it."""
    facts = read("openai_responses", packed(response("queued", usage=None, output=[])), size)
    assert (facts.complete, facts.usage, facts.finish_reasons, facts.response_id) == (False, None, [], "resp_1")


def test_status_in_the_events_name(size: int) -> None:
    """If the response object omits its status, the event's name says how the response ended."""
    last = {"type": "response.completed", "response": {"id": "resp_1", "usage": USAGE}}
    facts = read("openai_responses", stream(DELTA, last), size)
    assert (facts.complete, facts.finish_reasons, used(facts).output) == (True, ["stop"], 12)


def test_compaction(size: int) -> None:
    """Compacting a conversation is billed as any response is, though its answer has no status."""
    body = {"id": "resp_2", "object": "response.compaction", "output": [{"type": "compaction"}], "usage": USAGE}
    facts = read("openai_responses", packed(body), size)
    assert (used(facts).input, facts.complete) == (40, True)


@pytest.mark.parametrize(
    ("stated", "searches"),
    [
        ({"tool_usage": {"web_search": {"num_requests": 3}}, "output": [{"type": "web_search_call"}]}, 3),
        ({"tool_usage": {"web_search": {"num_requests": 0}}}, 0),
        (
            {
                "output": [
                    {"type": "web_search_call", "action": {"type": "search"}},
                    {"type": "web_search_call", "action": {"type": "open_page"}},
                    {"type": "web_search_call", "action": {"type": "find_in_page"}},
                ]
            },
            1,
        ),
        ({}, None),
    ],
)
def test_web_searches(size: int, stated: dict[str, Any], searches: int | None) -> None:
    """Searches are counted as the provider counts them, else by their calls; opening a page is no search."""
    assert used(read("openai_responses", packed(response(**stated)), size)).units.get("web_searches") == searches


def test_other_tools_by_the_piece(size: int) -> None:
    """File searches are counted by call, code sessions by container."""
    items = [
        {"type": "file_search_call"},
        {"type": "file_search_call"},
        {"type": "code_interpreter_call", "container_id": "cntr_1"},
        {"type": "code_interpreter_call", "container_id": "cntr_1"},
    ]
    units = used(read("openai_responses", packed(response(output=items)), size)).units
    assert units == {"file_searches": 2, "code_sessions": 1}


@pytest.mark.parametrize(
    ("tools", "unit"),
    [
        ([{"type": "web_search"}], "web_searches"),
        ([{"type": "web_search_2025_08_26"}], "web_searches"),
        ([{"type": "web_search_preview"}, {"type": "function", "name": "f"}], "web_search_previews"),
        ([{"type": "web_search_preview_2025_03_11"}], "web_search_previews"),
        ([], "web_searches"),
    ],
)
def test_searches_by_the_version_of_the_tool(size: int, tools: list[Any], unit: str) -> None:
    """The preview of web search has a price of its own."""
    body = response(tools=tools, output=[{"type": "web_search_call", "action": {"type": "search"}}])
    assert used(read("openai_responses", packed(body), size)).units == {unit: 1}


def _ran(*containers: str | None, kind: str = "code_interpreter_call") -> list[dict[str, Any]]:
    """Return the calls of a tool in containers."""
    if kind == "shell_call":
        return [
            {"type": kind, "environment": {"type": "container_reference", "container_id": name}} for name in containers
        ]
    return [{"type": kind, "container_id": name} for name in containers]


_LOCAL = {"type": "shell_call", "environment": {"type": "local"}}


@pytest.mark.parametrize(
    ("tools", "output", "sessions"),
    [
        ([{"type": "code_interpreter", "container": {"type": "auto"}}], _ran("c1", "c1"), 1),
        ([{"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "4g"}}], _ran("c1"), 4),
        ([{"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "64g"}}], _ran("c1"), 64),
        ([{"type": "code_interpreter", "container": "c1"}], _ran("c1", "c1"), None),
        ([{"type": "shell", "environment": {"type": "container_auto"}}], _ran("c9", kind="shell_call"), 1),
        ([{"type": "shell", "environment": {"type": "container_auto"}}], [{"type": "shell_call"}], 1),
        (
            [{"type": "shell", "environment": {"type": "container_auto", "memory_limit": "16g"}}],
            _ran("c9", kind="shell_call"),
            16,
        ),
        (
            [{"type": "shell", "environment": {"type": "container_reference", "container_id": "c9"}}],
            _ran("c9", kind="shell_call"),
            None,
        ),
        ([{"type": "shell", "environment": {"type": "local"}}], [_LOCAL, {"type": "shell_call"}], None),
    ],
)
def test_containers(size: int, tools: list[Any], output: list[Any], sessions: int | None) -> None:
    """Containers of code interpreter and shell count by their GB; one that the request names was paid for before."""
    units = used(read("openai_responses", packed(response(tools=tools, output=output)), size)).units
    assert units.get("code_sessions") == sessions


def test_images_are_another_models_work(size: int) -> None:
    """Images that a tool made are not in the usage: they are a part of their own, at the image model's price."""
    drawn = {"input_tokens": 50, "output_tokens": 1056, "output_tokens_details": {"image_tokens": 1056}}
    tools = [{"type": "function"}, {"type": "image_generation", "model": "gpt-image-1"}]
    facts = read("openai_responses", packed(response(tool_usage={"image_gen": drawn}, tools=tools)), size)
    assert [(part.kind, part.model, part.usage.output) for part in facts.parts] == [
        ("message", "gpt-5-2025-08-07", 12),
        ("image_generation", "gpt-image-1", 1056),
    ]
    none = read(
        "openai_responses", packed(response(tool_usage={"image_gen": {"input_tokens": 0, "output_tokens": 0}})), size
    )
    assert none.parts == ()


def test_stated_cost(size: int) -> None:
    """A cost in the usage (xAI's ticks) is taken."""
    facts = read("openai_responses", packed(response(usage={**USAGE, "cost_in_usd_ticks": 12_500_000})), size)
    assert facts.provider_cost == Decimal("0.00125")


@pytest.mark.parametrize(
    ("event", "output"),
    [
        (
            {
                "type": "response.output_item.added",
                "item": {"type": "message", "id": "m", "role": "assistant", "content": []},
            },
            False,
        ),
        (
            {
                "type": "response.output_item.added",
                "item": {"type": "reasoning", "id": "r", "encrypted_content": "gAAA"},
            },
            False,
        ),
        (
            {"type": "response.content_part.added", "part": {"type": "output_text", "text": "", "annotations": []}},
            False,
        ),
        ({"type": "response.output_item.added", "item": {"type": "function_call", "name": "f", "arguments": ""}}, True),
        ({"type": "response.output_text.delta", "delta": "a", "obfuscation": "xx"}, True),
        ({"type": "response.reasoning_summary_text.delta", "delta": "Hm"}, True),
        ({"type": "response.image_generation_call.partial_image", "partial_image_b64": "aGk="}, True),
        ({"type": "response.dream.delta", "dream": {"sheep": "electric"}}, True),
    ],
)
def test_first_output(size: int, event: dict[str, Any], output: bool) -> None:
    """Output starts with the first event that carries any, of any kind; announcements are none."""
    assert read("openai_responses", stream(event), size).output_seen is output


def test_output_only_at_the_end(size: int) -> None:
    """A stream that holds its output in the last event alone has output."""
    assert read("openai_responses", stream(end=response()), size).output_seen


def test_errors(size: int) -> None:
    """A failed response and an error event are errors, named by their code."""
    failed = response("failed", error={"code": "server_error", "message": "no"}, usage=None)
    assert read("openai_responses", stream(DELTA, end=failed), size).error_type == "server_error"
    unexplained = response("failed", error=None, usage=None)
    assert read("openai_responses", stream(DELTA, end=unexplained), size).error_type == "error"
    assert read("openai_responses", packed(unexplained), size).error_type == "error"
    coded = {"type": "error", "code": "server_error", "message": "no", "param": None}
    assert read("openai_responses", stream(DELTA, coded), size).error_type == "server_error"
    stated = {"type": "error", "code": "rate_limit_exceeded", "message": "no", "param": None}
    assert read("openai_responses", stream(DELTA, stated), size).error_type == "rate_limit_exceeded"
    nested = {"type": "error", "error": {"type": "insufficient_quota", "message": "no"}}
    assert read("openai_responses", stream(DELTA, nested), size).error_type == "insufficient_quota"


def test_request(size: int) -> None:
    """The request states effort, limits, the previous response, and the size of the search context."""
    body = {
        "model": "gpt-5",
        "reasoning": {"effort": "high"},
        "max_output_tokens": 99,
        "previous_response_id": "resp_0",
        "text": {"format": {"type": "json_schema"}},
        "tools": [{"type": "web_search", "search_context_size": "low"}],
    }
    facts = read("openai_responses", packed(response()), size, request=body)
    assert (facts.reasoning_level, facts.max_output, facts.previous_response_id) == ("high", 99, "resp_0")
    assert (facts.output_type, facts.search_context) == ("json", "low")
