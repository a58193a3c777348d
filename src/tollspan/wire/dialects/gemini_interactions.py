"""Gemini interactions, plain or streamed; those that run in the background are pending, and fetched later.

Request: `model` or `agent`, `input`, `generation_config`, `stream`, `background`. Response: an interaction with its
`usage`. Stream: `interaction.completed` has the whole usage, and `metadata.usage` of any event the usage so far. Input
includes the cache; thoughts are counted beside the output, tool-use tokens beside the input.
https://ai.google.dev/api/interactions-api
"""

from __future__ import annotations

from typing import Any

from tollspan.model.records import UNITS, Facts
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import count, mapping, objects, plus, text
from tollspan.wire.dialects.gemini_tokens import Totals, refuse, usage_by_modality
from tollspan.wire.dialects.output_limits import limit_at

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


def _read_usage(facts: Facts, stated: dict[str, Any]) -> None:
    tokens_in, tokens_out = count(stated, "total_input_tokens"), count(stated, "total_output_tokens")
    if tokens_in is None and tokens_out is None:
        return
    thoughts = count(stated, "total_thought_tokens")
    facts.usage = usage_by_modality(
        Totals(
            plus(tokens_in, count(stated, "total_tool_use_tokens")),
            plus(tokens_out, thoughts),
            count(stated, "total_cached_tokens"),
            thoughts,
        ),
        by_input=_modalities(stated, "input_tokens_by_modality", "tool_use_tokens_by_modality"),
        by_output=_modalities(stated, "output_tokens_by_modality"),
        by_cache=_modalities(stated, "cached_tokens_by_modality"),
        units=_groundings(stated),
    )


def _modalities(stated: dict[str, Any], *keys: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for key in keys:
        for item in objects(stated, key):
            name, tokens = text(item, "modality"), count(item, "tokens")
            if name is not None and tokens is not None:
                sums[name] = sums.get(name, 0) + tokens
    return sums


def _groundings(stated: dict[str, Any]) -> dict[str, int]:
    units: dict[str, int] = {}
    for item in objects(stated, "grounding_tool_count"):
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
    event_type = text(event, "event_type") or name
    match event_type:
        case "step.delta" | "content.delta":
            delta = mapping(event, "delta")
            # A signature is not output; everything else in a delta is.
            facts.output_seen = facts.output_seen or any(delta[key] for key in delta if key not in _NO_OUTPUT)
        case "error":
            facts.error_type = text(mapping(event, "error"), "code") or "error"
        case _:
            pass  # starts, stops, states, and future events


_NO_OUTPUT = frozenset({"type", "signature"})

DIALECT = Dialect(
    name="gemini_interactions",
    read_request=_read_request,
    read_response=_read_response,
    read_event=_read_event,
    facts_in=(b'"usage":{', b'"interaction":{', b'"error":{', b"event: error"),
    text_in=(b'"text":"', b'"arguments":"'),
    refuse=refuse,
    limit_output=limit_at("max_output_tokens", inside=("generation_config",)),
)
