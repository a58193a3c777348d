"""Amazon Bedrock's Converse and ConverseStream: one format for the models of all makers.

Request: the model is in the path, the limits in `inferenceConfig`. Response: `output` and `usage`. Stream: an AWS event
stream; the usage is in the `metadata` event, after `messageStop`. Input excludes the cache here (`bedrock_tokens.py`).
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tollspan.wire.dialects.bedrock_tokens import error_name, read_headers, read_path, read_usage, refuse
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import count, mapping, text

if TYPE_CHECKING:
    from tollspan.model.records import Facts
    from tollspan.wire.dialects.replies import Reply, ReplyTo


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    facts.max_output = count(mapping(body, "inferenceConfig"), "maxTokens")
    facts.request_tier = text(mapping(body, "serviceTier"), "type")
    # Latency-optimised inference has its own price.
    facts.speed = text(mapping(body, "performanceConfig"), "latency")
    if text(mapping(mapping(body, "outputConfig"), "textFormat"), "type") == "json_schema":
        facts.output_type = "json"


def _read_closing(facts: Facts, body: dict[str, Any]) -> None:
    """Read what a plain response and a stream's `metadata` have in common."""
    facts.usage = read_usage(mapping(body, "usage")) or facts.usage
    facts.tier = text(mapping(body, "serviceTier"), "type") or facts.tier
    facts.speed = text(mapping(body, "performanceConfig"), "latency") or facts.speed


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    _read_stop(facts, body)
    _read_closing(facts, body)
    facts.complete = True


def _read_stop(facts: Facts, body: dict[str, Any]) -> None:
    if (reason := text(body, "stopReason")) is not None:
        facts.finish_reasons = [reason]


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    match name:
        case "contentBlockStart":
            facts.output_seen = facts.output_seen or bool(event.get("start"))  # a tool call starts with its name
        case "contentBlockDelta":
            facts.output_seen = facts.output_seen or _carries_output(mapping(event, "delta"))
        case "messageStop":
            _read_stop(facts, event)
        case "metadata":
            _read_closing(facts, event)
            facts.complete = True
        case _:
            facts.error_type = error_name(name) or facts.error_type


def _carries_output(delta: dict[str, Any]) -> bool:
    reasoning = delta.get("reasoningContent")
    if type(reasoning) is dict:
        return any(value for key, value in reasoning.items() if key != "signature")
    return any(delta.values())


def _reply(text: str, request: ReplyTo) -> Reply | None:
    from tollspan.wire.dialects.replies import document

    if request.stream:
        return None  # a binary stream
    output = {"message": {"role": "assistant", "content": [{"text": text}]}}
    usage = {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}
    return document({"output": output, "stopReason": "end_turn", "usage": usage, "metrics": {"latencyMs": 0}})


DIALECT = Dialect(
    name="bedrock_converse",
    read_path=read_path,
    read_request=_read_request,
    read_headers=read_headers,
    read_response=_read_response,
    read_event=_read_event,
    # Not JSON keys: names of events, which are in a frame's headers.
    facts_in=(b"messageStop", b"metadata", b"xception", b":error-code"),
    text_in=(b'"text":"', b'"input":"'),
    refuse=refuse,
    reply=_reply,
)
