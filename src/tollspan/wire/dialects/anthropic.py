"""Anthropic messages: the API itself, and every host that speaks the format.

Request: `model`, `max_tokens`, `messages`, `stream`. Response: a message with `usage`. Stream: `message_start` has the
whole usage object (the cache-write split, tier, geography and speed are only there); each non-null key of the usage in
a `message_delta`, which is cumulative, overrides it. The one with the stop reason completes the message: `message_stop`
ends the stream, and says nothing. `input_tokens` excludes the cache (`anthropic_tokens.py`). https://docs.anthropic.com/en/api/messages-streaming
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from tollspan.wire.dialects.anthropic_tokens import is_last_delta, read_cumulative, read_facts, refuse
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import carries, count, error_type, mapping, text
from tollspan.wire.dialects.openai_tokens import read_stated_cost
from tollspan.wire.dialects.output_limits import limit_at
from tollspan.wire.dialects.paths import segment

if TYPE_CHECKING:
    from tollspan.model.records import Facts
    from tollspan.wire.dialects.replies import Reply, ReplyTo

_NO_OUTPUT: Final = frozenset({"caller", "id", "signature", "tool_use_id", "type"})
"""Keys of a block or a delta whose values are not output."""

_VERTEX_MODEL: Final = re.compile(r"/models/([^/:?]+)(?::|%3A)(?:raw|streamRaw)Predict")
"""On Vertex AI the path names the model: `/publishers/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict`."""


def _read_path(facts: Facts, path: str) -> None:
    facts.request_model = segment(_VERTEX_MODEL, path)


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    facts.request_model = text(body, "model") or facts.request_model
    facts.stream = facts.stream or body.get("stream") is True
    facts.max_output = count(body, "max_tokens", "max_tokens_to_sample")
    facts.request_tier = text(body, "service_tier")
    facts.speed = text(body, "speed")
    configured = mapping(body, "output_config")
    facts.reasoning_level = text(configured, "effort")
    wanted = mapping(configured, "format") or mapping(body, "output_format")  # the latter before it left its beta
    if text(wanted, "type") == "json_schema":
        facts.output_type = "json"
    facts.thinking_budget = count(mapping(body, "thinking"), "budget_tokens")


def read_message(facts: Facts, body: dict[str, Any]) -> None:
    """Read a message object: a plain response's body, or that in `message_start`."""
    facts.response_id = text(body, "id") or facts.response_id
    facts.response_model = text(body, "model") or facts.response_model
    if (reason := text(body, "stop_reason")) is not None:
        facts.finish_reasons = [reason]
    stated = mapping(body, "usage")
    read_facts(facts, stated)
    read_stated_cost(facts, stated)
    _read_error(facts, body)


def _read_error(facts: Facts, body: dict[str, Any]) -> None:
    if body.get("type") == "error" or body.get("error"):
        facts.error_type = error_type(body) or "error"


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    read_message(facts, body)
    facts.complete = True


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    match event.get("type") or name:
        case "message_start":
            message = mapping(event, "message")
            facts.scratch = dict(mapping(message, "usage"))
            read_message(facts, message)
        case "message_delta":
            _read_delta(facts, event)
        case "message_stop":
            facts.complete = True
        case "error":
            _read_error(facts, event)
        case _ if not facts.output_seen:
            # Text and thinking blocks start empty, a tool call starts with its name: that is output.
            facts.output_seen = carries([event.get("content_block"), event.get("delta")], _NO_OUTPUT)


def _read_delta(facts: Facts, event: dict[str, Any]) -> None:
    if (reason := text(mapping(event, "delta"), "stop_reason")) is not None:
        facts.finish_reasons = [reason]
    read_stated_cost(facts, read_cumulative(facts, mapping(event, "usage")))
    facts.complete = facts.complete or is_last_delta(event)


def _reply(text: str, request: ReplyTo) -> Reply:
    from tollspan.wire.dialects.replies import EVENTS, Reply, document, named_events

    message = {
        "id": f"msg_{request.id}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": dict.fromkeys(_COUNTS, 0),
    }
    if not request.stream:
        return document(message)
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 0}},
        {"type": "message_stop"},
    ]
    return Reply(EVENTS, named_events(events))


_COUNTS: Final = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class _Ending:
    """Ends a stream that is cut: its open content blocks are closed before the message is."""

    ended_by: Final = (b"event: message_stop",)

    def __init__(self) -> None:
        self._open: list[int] = []

    def note(self, data: bytes) -> None:
        if b'"content_block_st' not in data:
            return  # nearly all: no block starts or stops
        event = json.loads(data)
        if event.get("type") == "content_block_start":
            self._open.append(event.get("index", 0))
        elif event.get("index") in self._open:
            self._open.remove(event["index"])

    def last(self, output_tokens: int) -> bytes:
        from tollspan.wire.dialects.replies import named_events

        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        events: list[dict[str, Any]] = [{"type": "content_block_stop", "index": index} for index in self._open]
        events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": output_tokens}})
        return named_events([*events, {"type": "message_stop"}])


DIALECT = Dialect(
    name="anthropic",
    read_path=_read_path,
    read_request=_read_request,
    read_response=_read_response,
    read_event=_read_event,
    facts_in=(b'"usage":{', b'"stop_reason":"', b'"message_stop"', b'"error":{', b"event: error"),
    text_in=(b'"text":"', b'"thinking":"', b'"partial_json":"'),
    refuse=refuse,
    reply=_reply,
    ending=_Ending,
    limit_output=limit_at("max_tokens"),
)
