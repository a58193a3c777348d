"""Gemini: generateContent and streamGenerateContent, on the Gemini API, on Vertex AI and behind gateways.

Request: the model is in the path, the limits in `generationConfig`. Response: `candidates` and `usageMetadata`.
Stream: server-sent events (`alt=sse`) or a JSON array that arrives element by element. Every chunk is a whole response
with the usage so far, and the last value of each count holds: while the server runs a tool, a chunk may omit counts
that an earlier one had. The prompt includes the cache; thoughts are beside the candidates (`gemini_tokens.py`).
https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import array, count, label, mapping, objects, text, update_counts
from tollspan.wire.dialects.gemini_tokens import finish_reason, read_tier, read_usage, refuse
from tollspan.wire.dialects.output_limits import limit_at
from tollspan.wire.dialects.paths import segment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.model.records import Facts
    from tollspan.wire.dialects.replies import Reply, ReplyTo

_MODEL: Final = re.compile(r"/([^/:?]+)(?::|%3A)(?:stream)?[gG]enerateContent\b")
# Output that is not text, by `generationConfig.responseModalities`; names as in `gen_ai.output.type`.
_JSON_TYPES: Final = frozenset({"application/json", "text/x.enum"})
_OUTPUT_TYPES: Final = {"IMAGE": "image", "AUDIO": "speech"}


def _read_path(facts: Facts, path: str) -> None:
    facts.request_model = segment(_MODEL, path)
    facts.stream = "streamGenerateContent" in path


def _either(body: dict[str, Any], camel: str, snake: str) -> dict[str, Any]:
    """Return an object under its JSON name or its proto name: the API accepts both."""
    return mapping(body, camel) or mapping(body, snake)


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    config = _either(body, "generationConfig", "generation_config")
    thinking = _either(config, "thinkingConfig", "thinking_config")
    facts.max_output = count(config, "maxOutputTokens", "max_output_tokens")
    facts.choice_count = count(config, "candidateCount", "candidate_count")
    facts.reasoning_level = text(thinking, "thinkingLevel") or text(thinking, "thinking_level")
    facts.thinking_budget = count(thinking, "thinkingBudget", "thinking_budget")
    facts.request_tier = text(body, "serviceTier") or text(body, "service_tier")
    if (text(config, "responseMimeType") or text(config, "response_mime_type")) in _JSON_TYPES:
        facts.output_type = "json"
    for modality in array(config, "responseModalities"):
        facts.output_type = _OUTPUT_TYPES.get(str(modality), facts.output_type)


def _read_headers(facts: Facts, headers: Mapping[str, str]) -> None:
    facts.tier = label(headers.get("x-gemini-service-tier", "")) or facts.tier


def _read_chunk(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_id = text(body, "responseId") or facts.response_id
    facts.response_model = text(body, "modelVersion") or facts.response_model
    known = _scratch(facts)
    candidates = objects(body, "candidates")
    for candidate in candidates:
        _read_candidate(facts, known, candidate)
    if candidates:
        # While the server runs tools, a reason may come in the middle, and the response goes on.
        facts.complete = any(finish_reason(candidate) is not None for candidate in candidates)
    _read_usage(facts, known, body)
    _read_endings(facts, known, body)


def _scratch(facts: Facts) -> dict[str, Any]:
    """Return what earlier chunks said: counts, finish reasons by candidate, searches."""
    if facts.scratch is None:
        facts.scratch = {"usage": {}, "reasons": {}, "searches": set(), "maps": False}
    return facts.scratch


def _read_candidate(facts: Facts, known: dict[str, Any], candidate: dict[str, Any]) -> None:
    if (reason := finish_reason(candidate)) is not None:
        known["reasons"][count(candidate, "index") or 0] = reason
    for part in objects(mapping(candidate, "content"), "parts"):
        # A part with empty text carries a signature at most; anything else in a part is output.
        facts.output_seen = facts.output_seen or any(value for key, value in part.items() if key not in _NO_OUTPUT)
    grounding = mapping(candidate, "groundingMetadata")
    known["searches"].update(query for query in array(grounding, "webSearchQueries") if type(query) is str and query)
    known["maps"] = known["maps"] or any("maps" in chunk for chunk in objects(grounding, "groundingChunks"))


_NO_OUTPUT: Final = frozenset({"thought", "thoughtSignature"})


def _read_usage(facts: Facts, known: dict[str, Any], body: dict[str, Any]) -> None:
    stated = known["usage"]
    update_counts(stated, mapping(body, "usageMetadata"))
    usage = read_usage(stated)
    if usage is None:
        return
    units: dict[str, int] = {}
    if known["searches"]:
        units["web_searches"] = len(known["searches"])
    if known["maps"]:
        units["maps_groundings"] = 1  # billed by the request, for any number of places
    facts.usage = replace(usage, units=units) if units else usage
    read_tier(facts, stated)


def _read_endings(facts: Facts, known: dict[str, Any], body: dict[str, Any]) -> None:
    reasons = known["reasons"]
    if (blocked := text(mapping(body, "promptFeedback"), "blockReason")) is not None:
        facts.finish_reasons, facts.complete = [blocked], True
    elif reasons:
        facts.finish_reasons = [reasons[index] for index in sorted(reasons)]
    if (error := body.get("error")) is not None:
        facts.error_type = text(error, "status") or str(count(error, "code") or "error")


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    _read_chunk(facts, body)
    facts.complete = True


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    del name  # this format has no event names
    _read_chunk(facts, event)


def _reply(text: str, request: ReplyTo) -> Reply:
    from tollspan.wire.dialects.replies import EVENTS, Reply, data_events, document

    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}
    response = {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": request.model,
        "responseId": request.id,
    }
    if not request.stream:
        return document(response)
    return Reply(EVENTS, data_events([response])) if request.sse else document([response])


class _Ending:
    """Ends a stream that is cut, with a chunk that has the finish reason."""

    ended_by: tuple[bytes, ...] = ()  # no chunk is marked as the last

    def __init__(self) -> None:
        self._first: dict[str, Any] = {}

    def note(self, data: bytes) -> None:
        if not self._first:
            self._first = json.loads(data)

    def last(self, output_tokens: int) -> bytes:
        from tollspan.wire.dialects.replies import data_events

        del output_tokens  # the chunks before have the usage so far
        head: dict[str, Any] = {key: self._first[key] for key in _HEAD if key in self._first}
        candidate = {"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "MAX_TOKENS", "index": 0}
        return data_events([{"candidates": [candidate], **head}])


_HEAD: Final = ("modelVersion", "responseId")

DIALECT = Dialect(
    name="gemini",
    operation="generate_content",
    read_path=_read_path,
    read_request=_read_request,
    read_headers=_read_headers,
    read_response=_read_response,
    read_event=_read_event,
    # Every chunk carries usage, and any of them may be the last: all are parsed.
    text_in=(b'"text":"', b'"stringValue":"'),
    element_stream=True,
    refuse=refuse,
    reply=_reply,
    ending=_Ending,
    limit_output=limit_at("maxOutputTokens", "max_output_tokens", inside=("generationConfig", "generation_config")),
)
