"""Gemini interactions: one request, plain or streamed; what runs in the background is pending, and fetched later.

https://ai.google.dev/api/interactions-api. Cached tokens are inside the input; thoughts stand beside the output,
tool-use tokens beside the input. Streams: `interaction.completed` holds the whole usage; any event's `metadata.usage`
holds it so far.
"""

from __future__ import annotations

from typing import Any

from tollspan.model.records import UNITS, Facts, Usage
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import count, mapping, objects, plus, text
from tollspan.wire.dialects.gemini_tokens import refuse

_GROUNDINGS = {"google_search": "web_searches", "google_maps": "maps_groundings", "file_search": "file_searches"}
_STILL_RUNNING = frozenset({"in_progress", "queued"})


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    config = mapping(body, "generation_config")
    facts.request_model = text(body, "model") or text(body, "agent")
    facts.stream = body.get("stream") is True
    facts.max_output = count(config, "max_output_tokens")
    facts.reasoning_level = text(config, "thinking_level")
    facts.request_tier = text(body, "service_tier")
    facts.previous_response_id = text(body, "previous_interaction_id")
    facts.pending = body.get("background") is True
    if text(body, "response_mime_type") == "application/json":
        facts.output_type = "json"


def _read_interaction(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_id = text(body, "id") or facts.response_id
    facts.response_model = text(body, "model") or facts.response_model
    facts.tier = text(body, "service_tier") or facts.tier
    status = text(body, "status")
    if status is not None and status not in _STILL_RUNNING:
        facts.finish_reasons, facts.complete = [status], True
        if status == "failed":
            facts.error_type = text(mapping(body, "error"), "code") or "failed"
    _read_usage(facts, mapping(body, "usage"))


def _read_usage(facts: Facts, found: dict[str, Any]) -> None:
    taken, given = count(found, "total_input_tokens"), count(found, "total_output_tokens")
    if taken is None and given is None:
        return
    thoughts = count(found, "total_thought_tokens")
    sent = _modalities(found, "input_tokens_by_modality", "tool_use_tokens_by_modality")
    made, cached = _modalities(found, "output_tokens_by_modality"), _modalities(found, "cached_tokens_by_modality")
    facts.usage = Usage(
        input=plus(taken, count(found, "total_tool_use_tokens")),
        output=plus(given, thoughts),
        cache_read=count(found, "total_cached_tokens"),
        reasoning=thoughts,
        input_text=sent.get("text"),
        input_audio=sent.get("audio"),
        input_image=plus(sent.get("image"), sent.get("document")),  # a page of a document is read as an image
        input_video=sent.get("video"),
        output_text=made.get("text"),
        output_audio=made.get("audio"),
        output_image=made.get("image"),
        output_video=made.get("video"),
        cache_read_audio=cached.get("audio"),
        cache_read_image=plus(cached.get("image"), cached.get("document")),
        units=_groundings(found),
    )


def _modalities(found: dict[str, Any], *keys: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for key in keys:
        for item in objects(found, key):
            name, tokens = text(item, "modality"), count(item, "tokens")
            if name is not None and tokens is not None:
                sums[name] = sums.get(name, 0) + tokens
    return sums


def _groundings(found: dict[str, Any]) -> dict[str, int]:
    units: dict[str, int] = {}
    for item in objects(found, "grounding_tool_count"):
        unit, amount = _GROUNDINGS.get(text(item, "type") or ""), count(item, "count")
        if unit in UNITS and amount is not None:
            units[unit] = units.get(unit, 0) + amount
    return units


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    _read_interaction(facts, body)
    _read_error(facts, body)
    facts.pending = text(body, "status") in _STILL_RUNNING
    facts.complete = not facts.pending


def _read_error(facts: Facts, body: dict[str, Any]) -> None:
    if "error" in body and facts.error_type is None:
        error = mapping(body, "error")
        facts.error_type = text(error, "status") or text(error, "code") or "error"


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    _read_usage(facts, mapping(mapping(event, "metadata"), "usage"))
    _read_interaction(facts, mapping(event, "interaction"))
    kind = text(event, "event_type") or name
    match kind:
        case "step.delta" | "content.delta":
            delta = mapping(event, "delta")
            # A signature is no output; everything else in a delta is.
            facts.output_seen = facts.output_seen or any(delta[key] for key in delta if key not in _NO_OUTPUT)
        case "error":
            facts.error_type = text(mapping(event, "error"), "code") or "error"
        case _:
            pass  # starts, stops, states, and tomorrow's events


_NO_OUTPUT = frozenset({"type", "signature"})

DIALECT = Dialect(
    name="gemini_interactions",
    read_request=_read_request,
    read_response=_read_response,
    read_event=_read_event,
    facts_in=(b'"usage":{', b'"interaction":{', b'"error":{', b"event: error"),
    text_in=(b'"text":"', b'"arguments":"'),
    refuse=refuse,
)
