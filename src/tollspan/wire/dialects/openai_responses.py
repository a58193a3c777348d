"""OpenAI responses: the API itself, its compaction of a conversation, and every host that speaks the format.

Request: `model`, `input`, `stream`. Response: one object, with `usage`. Stream: named events; the last one
(`response.completed`, `.incomplete`, `.failed`) holds that object. Input includes the cache, output the reasoning.
https://platform.openai.com/docs/api-reference/responses

The use of server-side tools is stated beside the usage and billed separately: searches, file searches, code sessions,
and images at the price of their own model. A response that runs in the background (`background: true`) comes without
usage, or breaks off and goes on: it is pending, and a later request fetches it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import Part
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import NAMELESS, carries, count, error_type, mapping, objects, text
from tollspan.wire.dialects.openai_containers import container_sessions
from tollspan.wire.dialects.openai_requests import read_generation, read_path, refuse
from tollspan.wire.dialects.openai_tokens import read_stated_cost, read_usage
from tollspan.wire.dialects.output_limits import limit_at

if TYPE_CHECKING:
    from tollspan.model.money import Number
    from tollspan.model.records import Facts, Usage
    from tollspan.wire.dialects.replies import Reply, ReplyTo

_NO_OUTPUT: Final = frozenset(
    {
        "annotations",
        "call_id",
        "encrypted_content",  # on an item that is only announced it is a placeholder
        "error",
        "event_id",
        "id",
        "item_id",
        "logprobs",
        "obfuscation",
        "phase",
        "response",
        "response_id",
        "role",
        "status",
        "type",
    }
)
"""Keys of an event whose values are not output."""

_ENDED: Final = ("completed", "incomplete", "failed", "cancelled")
_ENDS: Final = {"max_output_tokens": "length", "content_filter": "content_filter"}
_RUNNING: Final = ("queued", "in_progress")


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    read_generation(facts, body)
    facts.pending = body.get("background") is True


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    _read_object(facts, body)
    facts.complete = body.get("status") in (*_ENDED, None)  # a compaction has no status
    facts.pending = body.get("status") in _RUNNING


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    event_type = text(event, "type") or name
    response = mapping(event, "response")
    if response:
        # Servers that copied the format omit the status; the event's name has it, too.
        response = {"status": event_type.removeprefix("response."), **response}
        _read_object(facts, response)
        facts.complete = response["status"] in _ENDED
    elif event_type == "error":
        facts.error_type = error_type(event) or text(event, "code") or NAMELESS
    if not facts.output_seen:
        facts.output_seen = carries(event, _NO_OUTPUT) or (facts.complete and bool(objects(response, "output")))


def _read_object(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_id = text(body, "id") or facts.response_id
    facts.response_model = text(body, "model") or facts.response_model
    facts.tier = text(body, "service_tier") or facts.tier
    # Some servers leave out the error of a failed response.
    failed = NAMELESS if body.get("status") == "failed" else None
    facts.error_type = error_type(body) or facts.error_type or failed
    if (reason := _finish_reason(body)) is not None:
        facts.finish_reasons = [reason]
    stated = mapping(body, "usage")
    read_stated_cost(facts, stated)
    if (usage := read_usage(stated)) is not None:
        usage = _with_tools(usage, body)
        facts.usage, facts.parts = usage, _parts(usage, body)


def _finish_reason(body: dict[str, Any]) -> str | None:
    """Return the finish reason, in the words of the semantic conventions."""
    match body.get("status"):
        case "completed":
            calls = (
                item for item in objects(body, "output") if text(item, "type") in {"function_call", "custom_tool_call"}
            )
            return "tool_calls" if any(calls) else "stop"
        case "incomplete":
            reason = text(mapping(body, "incomplete_details"), "reason")
            return _ENDS.get(reason or "", reason) or "length"
        case "failed":
            return "error"
        case "cancelled":
            return "cancelled"
    return None


def _with_tools(usage: Usage, body: dict[str, Any]) -> Usage:
    """Add the server-side tool calls that are billed by the piece."""
    items = objects(body, "output")
    units: dict[str, Number] = dict(usage.units)
    searches = count(mapping(mapping(body, "tool_usage"), "web_search"), "num_requests")
    if searches is None and "web_searches" not in units:
        # Opening a page or finding in it belongs to the search that found it.
        calls = [item for item in items if item.get("type") == "web_search_call"]
        searches = sum(text(mapping(item, "action"), "type") in {"search", None} for item in calls) if calls else None
    if searches is not None:
        units[_search_unit(body)] = searches
    if looked := sum(item.get("type") == "file_search_call" for item in items):
        units["file_searches"] = looked
    if sessions := container_sessions(body, items):
        units["code_sessions"] = sessions
    return replace(usage, units=units) if units else usage


def _search_unit(body: dict[str, Any]) -> str:
    """Return the unit of searches, by the version of the tool: the preview has prices of its own.

    https://platform.openai.com/docs/pricing#built-in-tools
    """
    types = [text(tool, "type") or "" for tool in objects(body, "tools")]
    versions = [name for name in types if name.startswith("web_search")]
    is_preview = bool(versions) and all(name.startswith("web_search_preview") for name in versions)
    return "web_search_previews" if is_preview else "web_searches"


def _parts(usage: Usage, body: dict[str, Any]) -> tuple[Part, ...]:
    """Return the usage by model, if images were generated: they are billed separately, at the image model's price."""
    drawn = read_usage(mapping(mapping(body, "tool_usage"), "image_gen"))
    if drawn is None or not (drawn.input or drawn.output):
        return ()
    tools = (tool for tool in objects(body, "tools") if tool.get("type") == "image_generation")
    model = next((text(tool, "model") for tool in tools), None)
    return (
        Part(kind="message", model=text(body, "model"), usage=usage),
        Part(kind="image_generation", model=model, usage=drawn),
    )


def _reply(text: str, request: ReplyTo) -> Reply:
    from tollspan.wire.dialects.replies import EVENTS, Reply, document, named_events

    response = _completed(text, request)
    return Reply(EVENTS, named_events(_events_of(response))) if request.stream else document(response)


def _completed(text: str, request: ReplyTo) -> dict[str, Any]:
    """Return a response object that says `text`."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": f"msg_{request.id}", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": f"resp_{request.id}",
        "object": "response",
        "created_at": request.now,
        "model": request.model,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "output": [item],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": _output_usage(0),
    }


def _events_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events of a stream that ends in a response with one text."""
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    [item] = response["output"]
    [part] = item["content"]
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    announced = {**item, "status": "in_progress", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": announced},
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **at, "delta": part["text"], "logprobs": []},
        {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _output_usage(tokens: int) -> dict[str, Any]:
    """Return the usage object of a response whose input is not counted."""
    return {
        "input_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens,
    }


class _Ending:
    """Ends a stream that is cut: the response object of its first event is incomplete."""

    ended_by: Final = (b"event: response.completed", b"event: response.incomplete", b"event: response.failed")

    def __init__(self) -> None:
        self._response: dict[str, Any] = {}
        self._sequence = 0

    def note(self, data: bytes) -> None:
        event = json.loads(data)
        self._sequence = event.get("sequence_number", self._sequence)
        if not self._response:
            self._response = event.get("response", event)

    def last(self, output_tokens: int) -> bytes:
        from tollspan.wire.dialects.replies import named_events

        response = {
            **self._response,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "usage": _output_usage(output_tokens),
        }
        event = {"type": "response.incomplete", "sequence_number": self._sequence + 1, "response": response}
        return named_events([event])


DIALECT = Dialect(
    name="openai_responses",
    read_request=_read_request,
    read_response=_read_response,
    read_event=_read_event,
    read_path=read_path,
    facts_in=(b'"response":{', b'"type":"error"', b"event: error"),
    text_in=(b'"delta":"',),
    document_text_in=(b'"text":"', b'"arguments":"', b'"refusal":"'),
    refuse=refuse,
    reply=_reply,
    ending=_Ending,
    limit_output=limit_at("max_output_tokens"),
)
