"""OpenAI chat completions, and the many servers that speak it.

https://platform.openai.com/docs/api-reference/chat. Streams: the LAST chunk with a usage object wins (some servers send it
on every chunk, cumulatively); Groq's `x_groq.usage` counts only where there is no usage; `[DONE]` ends the stream.
"""

from __future__ import annotations

from typing import Any

from tollspan.dialects.dialect import Dialect
from tollspan.dialects.fields import count, mapping, objects, text
from tollspan.dialects.openai_tokens import read_stated_cost, read_usage
from tollspan.usage import Facts, Usage


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    facts.request_model = text(body, "model")
    facts.stream = body.get("stream") is True
    facts.max_output = count(body, "max_completion_tokens", "max_tokens")
    facts.choice_count = count(body, "n")
    facts.request_tier = text(body, "service_tier")
    facts.reasoning_level = text(body, "reasoning_effort")
    if text(mapping(body, "response_format"), "type") in {"json_object", "json_schema"}:
        facts.output_type = "json"


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    _read_document(facts, mapping(body, "result") or body)  # Cloudflare wraps everything in `result`
    facts.complete = True


def _read_document(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_id = text(body, "id") or facts.response_id
    facts.response_model = text(body, "model") or facts.response_model
    facts.tier = text(body, "service_tier") or facts.tier
    for choice in objects(body, "choices"):
        if (reason := text(choice, "finish_reason")) is not None:
            facts.finish_reasons.append(reason)
            facts.complete = True
        _read_gateway(facts, mapping(choice, "message") or mapping(choice, "delta"))
    _read_usage(facts, body)
    _read_error(facts, body)


def _read_usage(facts: Facts, body: dict[str, Any]) -> None:
    found = mapping(body, "usage")
    if (usage := read_usage(found)) is not None:
        facts.usage = usage
        facts.tier = text(found, "service_tier") or facts.tier  # Mistral says it here
    elif facts.usage is None:
        facts.usage = read_usage(mapping(mapping(body, "x_groq"), "usage")) or _read_timings(mapping(body, "timings"))
    read_stated_cost(facts, found)


def _read_timings(timings: dict[str, Any]) -> Usage | None:
    """Read llama.cpp's `timings`, sent where usage was not asked for: `prompt_n` leaves the cached tokens out."""
    prompt, cached = count(timings, "prompt_n"), count(timings, "cache_n")
    if prompt is None:
        return None
    return Usage(input=prompt + (cached or 0), output=count(timings, "predicted_n"), cache_read=cached)


def _read_gateway(facts: Facts, message: dict[str, Any]) -> None:
    """Read what Vercel's gateway says a call cost; the amounts are decimal strings."""
    gateway = mapping(mapping(message, "provider_metadata"), "gateway")
    if gateway and facts.provider_cost is None:
        read_stated_cost(facts, gateway)


def _read_error(facts: Facts, body: dict[str, Any]) -> None:
    """Read an error that came with status 200, or inside a stream (Groq, OpenRouter, Alibaba)."""
    error = body.get("error")
    if not error:
        return
    if type(error) is dict:
        code = error.get("type") or error.get("code") or "error"
        facts.error_type = str(code)
    else:
        facts.error_type = "error"


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    event = mapping(event, "result") or event
    if name == "error":
        _read_error(facts, event if "error" in event else {"error": event})
    _read_document(facts, event)
    if not facts.output_seen:
        facts.output_seen = any(map(_carries_output, objects(event, "choices")))


def _carries_output(choice: dict[str, Any]) -> bool:
    """Tell whether a chunk carries output of any kind: anything but a role, an empty string, a null or bookkeeping."""
    delta = choice.get("delta") or choice.get("message")
    if type(delta) is not dict:
        return bool(choice.get("text"))
    return any(value and key not in _NO_OUTPUT for key, value in delta.items())


_NO_OUTPUT = frozenset({"role", "name", "provider_metadata", "content_filter_results", "annotations", "id"})

DIALECT = Dialect(
    name="openai_chat",
    read_request=_read_request,
    read_response=_read_response,
    read_event=_read_event,
    facts_in=(b'"usage":{', b'"finish_reason":"', b'"error":', b'"timings":{', b'"provider_metadata":{', b"event:"),
    text_in=(b'"content":"', b'"reasoning_content":"', b'"reasoning":"', b'"arguments":"'),
)
