"""Cohere: chat (v1 and v2), generate, embed, rerank.

Request: `model`, `messages` or `message`, `stream`. Response: `usage` (v2) or `meta` (v1), whose `billed_units` state
what is billed (sometimes as floats); `tokens` counts more (the preamble, the template) and is used only if there are no
billed units. Responses name no model. Stream: v2 sends server-sent events and ends with `message-end`, v1 sends NDJSON
and ends with `stream-end`. https://docs.cohere.com/reference/chat
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import Facts, Usage
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import count, mapping, number, objects, text
from tollspan.wire.dialects.output_limits import limit_at
from tollspan.wire.dialects.paths import operation_reader

if TYPE_CHECKING:
    from tollspan.model.money import Number
    from tollspan.wire.dialects.replies import Reply, ReplyTo

_OPERATIONS: Final = (
    (re.compile(r"/embed\b"), "embeddings"),
    (re.compile(r"/rerank\b"), "rerank"),
    (re.compile(r"/generate\b"), "text_completion"),
)
_UNITS: Final = {"search_units": "search_units", "images": "input_images", "pages": "pages"}


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    facts.request_model = text(body, "model")
    facts.stream = body.get("stream") is True
    facts.max_output = count(body, "max_tokens")
    facts.choice_count = count(body, "num_generations")
    facts.thinking_budget = count(mapping(body, "thinking"), "token_budget")
    if text(mapping(body, "response_format"), "type") == "json_object":
        facts.output_type = "json"


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_id = text(body, "response_id") or text(body, "id") or facts.response_id
    reasons = [text(body, "finish_reason"), *(text(item, "finish_reason") for item in objects(body, "generations"))]
    _read_ending(facts, [reason for reason in reasons if reason is not None])
    _read_usage(facts, mapping(body, "usage") or mapping(body, "meta"))
    facts.complete = True


def _read_ending(facts: Facts, reasons: list[str]) -> None:
    facts.finish_reasons = reasons or facts.finish_reasons
    if any(reason.startswith("ERROR") for reason in reasons):  # ERROR, ERROR_TOXIC
        facts.error_type = facts.finish_reasons[0]


def _read_usage(facts: Facts, stated: dict[str, Any]) -> None:
    billed, tokens = mapping(stated, "billed_units"), mapping(stated, "tokens")
    units: dict[str, Number] = {}
    for key, unit in _UNITS.items():
        if (amount := number(billed, key)) is not None:
            units[unit] = amount
    counted = billed or tokens
    tokens_in, tokens_out = count(counted, "input_tokens"), count(counted, "output_tokens")
    if tokens_in is None and tokens_out is None and not units:
        return
    # These two are counted among `tokens`: if they exceed what is billed, they are not part of it.
    cached, thoughts = count(stated, "cached_tokens"), count(tokens, "reasoning_tokens")
    facts.usage = Usage(
        input=tokens_in,
        output=tokens_out,
        cache_read=cached if cached is not None and cached <= (tokens_in or 0) else None,
        reasoning=thoughts if thoughts is not None and thoughts <= (tokens_out or 0) else None,
        input_image=count(billed, "image_tokens"),
        units=units,
    )


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    match text(event, "type") or text(event, "event_type") or name:
        case "message-start":
            facts.response_id = text(event, "id") or facts.response_id
        case "content-start" | "content-delta" | "tool-plan-delta" | "tool-call-start" | "tool-call-delta":
            facts.output_seen = facts.output_seen or _carries_output(mapping(mapping(event, "delta"), "message"))
        case "message-end":
            _read_end(facts, mapping(event, "delta"), mapping(mapping(event, "delta"), "usage"))
        case "text-generation" | "tool-calls-generation" | "tool-calls-chunk":
            facts.output_seen = facts.output_seen or any(
                event.get(key) for key in ("text", "tool_calls", "tool_call_delta")
            )
        case "stream-end":
            response = mapping(event, "response")
            facts.response_id = text(response, "response_id") or facts.response_id
            _read_end(facts, event, mapping(response, "meta"))
        case _:
            pass  # searches, citations, plain ends, and future events


def _carries_output(message: dict[str, Any]) -> bool:
    """Return whether a piece of a message has more in it than empty strings and types."""
    for key, value in message.items():
        parts = value if type(value) is list else [value]
        for part in parts:
            if (
                any(item for name, item in part.items() if name != "type")
                if type(part) is dict
                else part and key != "role"
            ):
                return True
    return False


def _read_end(facts: Facts, ending: dict[str, Any], usage: dict[str, Any]) -> None:
    reason = text(ending, "finish_reason")
    _read_ending(facts, [] if reason is None else [reason])
    _read_usage(facts, usage)
    if ending.get("error"):
        facts.error_type = facts.error_type or "error"
    facts.complete = True


def _refuse(text: str) -> dict[str, Any]:
    return {"message": text}


_NOTHING: Final = {"input_tokens": 0, "output_tokens": 0}
_NO_USAGE: Final = {"billed_units": _NOTHING, "tokens": _NOTHING}


def _reply(text: str, request: ReplyTo) -> Reply:
    """Reply as the requested version of the API does."""
    if "/v1/" not in request.path:
        return _second_reply(text, request)
    from tollspan.wire.dialects.replies import LINES, Reply, document, dump

    names = {"response_id": request.id, "generation_id": request.id}
    if request.operation == "text_completion":
        generations = [{"id": request.id, "text": text, "finish_reason": "COMPLETE"}]
        whole: dict[str, Any] = {"id": request.id, "prompt": "", "generations": generations, "meta": _NO_USAGE}
        pieces: list[dict[str, Any]] = [{"text": text, "is_finished": False, "event_type": "text-generation"}]
    else:
        whole = {**names, "text": text, "finish_reason": "COMPLETE", "chat_history": [], "meta": _NO_USAGE}
        pieces = [
            {"event_type": "stream-start", "is_finished": False, "generation_id": request.id},
            {"event_type": "text-generation", "is_finished": False, "text": text},
        ]
    if not request.stream:
        return document(whole)
    end = {"event_type": "stream-end", "is_finished": True, "finish_reason": "COMPLETE", "response": whole}
    return Reply(LINES, b"".join(dump(event) + b"\n" for event in (*pieces, end)))


def _second_reply(text: str, request: ReplyTo) -> Reply:
    from tollspan.wire.dialects.replies import EVENTS, Reply, document, named_events

    usage = _NO_USAGE
    if not request.stream:
        message = {"role": "assistant", "content": [{"type": "text", "text": text}]}
        return document({"id": request.id, "finish_reason": "COMPLETE", "message": message, "usage": usage})
    begun = {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}}
    events: list[dict[str, Any]] = [
        {"type": "message-start", "id": request.id, "delta": begun},
        {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}},
        {"type": "content-end", "index": 0},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}},
    ]
    return Reply(EVENTS, named_events(events))


DIALECT = Dialect(
    name="cohere",
    read_path=operation_reader(_OPERATIONS),
    read_request=_read_request,
    read_response=_read_response,
    read_event=_read_event,
    facts_in=(b'"message-end"', b'"stream-end"', b'"message-start"', b'"is_finished":true'),
    text_in=(b'"text":"', b'"thinking":"', b'"tool_plan":"', b'"arguments":"'),
    refuse=_refuse,
    reply=_reply,
    limit_output=limit_at("max_tokens"),
)
