"""Choices and usage, in the responses of chat completions and of the older text completions.

Response: `choices` and `usage` in one object. Stream: chunks of that object. The LAST chunk with a usage object counts
(some servers send cumulative usage with every chunk; it may be in a chunk with choices, or after the one with the
finish reason). Groq's `x_groq.usage` counts only if there is no `usage`. `[DONE]` ends the stream. The usage object is
described in `openai_tokens.py`. https://platform.openai.com/docs/api-reference/chat/streaming
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import Part, Usage
from tollspan.wire.dialects.fields import MOST_CHOICES, NAMELESS, carries, count, error_type, mapping, objects, text
from tollspan.wire.dialects.openai_tokens import read_gateway_cost, read_plain_usage, read_stated_cost, read_usage

if TYPE_CHECKING:
    from tollspan.model.records import Facts

FACTS_IN: Final = (
    b'"usage":{',
    b'"finish_reason":"',
    b'"error":',
    b'"timings":{',
    b'"provider_metadata":{',
    b"event:",
    b"[DONE]",
)
"""Bytes of a chunk that carries more than a piece of output."""

TEXT_IN: Final = (
    b'"content":"',
    b'"reasoning_content":"',
    b'"reasoning":"',
    b'"arguments":"',
    b'"text":"',
    b'"response":"',
    b'"transcript":"',
    b'"refusal":"',
)
"""Keys of output text."""

_FAILED: Final = "error"
"""The finish reason of a choice that ended in an error."""

_NO_OUTPUT: Final = frozenset(
    {
        "annotations",
        "content_filter_results",
        "finish_reason",
        "format",
        "id",
        "logprobs",
        "p",  # Cloudflare's and OpenAI's padding against side channels
        "padding",
        "provider_metadata",
        "role",
        "status",
        "stop_reason",
        "type",
    }
)
"""Keys beside output whose values are not output."""


def read_response(facts: Facts, body: dict[str, Any]) -> None:
    """Read a plain response."""
    wrapped = mapping(body, "result")  # Cloudflare wraps everything in it, except errors
    read_document(facts, wrapped or body)
    if wrapped:
        facts.error_type = failure(body) or facts.error_type
    facts.complete = True


def read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    """Read a chunk of a stream."""
    wrapped = mapping(event, "result")
    chunk = wrapped or event
    if name == "error" and "error" not in chunk:
        chunk = {"error": chunk}
    read_document(facts, chunk)
    if wrapped:
        facts.error_type = failure(event) or facts.error_type
    if not facts.output_seen:
        facts.output_seen = bool(text(chunk, "response")) or any(map(_is_output, objects(chunk, "choices")))


def read_document(facts: Facts, body: dict[str, Any]) -> None:
    """Read a completion object, or a chunk of one."""
    facts.response_id = facts.response_id or text(body, "id")  # gateways change it between chunks: the first one counts
    facts.response_model = text(body, "model") or facts.response_model
    facts.tier = text(body, "service_tier") or facts.tier
    for choice in objects(body, "choices"):
        _read_choice(facts, choice)
    read_gateway_cost(facts, body)
    if stated := mapping(body, "usage"):
        _read_usage(facts, stated)
    if facts.usage is None and ("x_groq" in body or "timings" in body):
        facts.usage = read_usage(mapping(mapping(body, "x_groq"), "usage")) or _read_timings(mapping(body, "timings"))
    if "usage_breakdown" in body or "x_groq" in body:
        _read_breakdown(facts, body)
    facts.error_type = error_type(body) or failure(body) or facts.error_type


def failure(body: dict[str, Any]) -> str | None:
    """Return the error that a response with status 200 has under a key of its provider's own."""
    if "x_groq" in body:  # why a stream was stopped early
        return error_type(mapping(body, "x_groq"))
    if "base_resp" in body:  # MiniMax: 0 is success
        status = count(mapping(body, "base_resp"), "status_code")
        return str(status) if status else None
    if body.get("success") is False:  # Cloudflare
        codes = [count(error, "code") for error in objects(body, "errors")]
        return str(codes[0]) if codes and codes[0] is not None else NAMELESS
    return None


def _read_choice(facts: Facts, choice: dict[str, Any]) -> None:
    if (reason := text(choice, "finish_reason")) is not None:
        # Some servers repeat it in further chunks of a choice: one reason for each choice is kept, in their order.
        facts.scratch = known = facts.scratch or {}
        if len(known) < MOST_CHOICES:
            known[f"{count(choice, 'index') or 0:06}"] = reason
        facts.finish_reasons = [reason] if len(known) == 1 else [str(known[index]) for index in sorted(known)]
        facts.complete = True
        if reason == _FAILED:
            facts.error_type = facts.error_type or NAMELESS
    if "error" in choice:  # OpenRouter
        facts.error_type = error_type(choice) or facts.error_type
    if "usage" in choice:  # Moonshot, in the last chunk of a stream
        _read_usage(facts, mapping(choice, "usage"))
    read_gateway_cost(facts, choice)
    read_gateway_cost(facts, mapping(choice, "message") or mapping(choice, "delta"))


def _read_usage(facts: Facts, stated: dict[str, Any]) -> None:
    if (usage := read_plain_usage(stated)) is not None:
        facts.usage = usage
        return
    # Servers with further keys, or other names.
    if (usage := read_usage(stated)) is not None:
        facts.usage = usage
        facts.tier = text(stated, "service_tier") or facts.tier  # Mistral states it here
        facts.geography = text(stated, "inference_geo") or facts.geography  # Vercel, of Anthropic's models
        facts.search_context = text(stated, "search_context_size") or facts.search_context  # Perplexity
    read_stated_cost(facts, stated)


def _read_breakdown(facts: Facts, body: dict[str, Any]) -> None:
    """Read Groq's breakdown of a compound system's call: each model is billed at its own price."""
    breakdown = mapping(body, "usage_breakdown") or mapping(mapping(body, "x_groq"), "usage_breakdown")
    models = objects(breakdown, "models")
    if models:
        facts.parts = _parts(models)


def _parts(models: list[dict[str, Any]]) -> tuple[Part, ...]:
    pairs = ((text(item, "model"), read_usage(mapping(item, "usage"))) for item in models)
    return tuple(Part(kind="model", model=model, usage=usage) for model, usage in pairs if usage is not None)


def _read_timings(timings: dict[str, Any]) -> Usage | None:
    """Read llama.cpp's `timings`, sent if no usage was requested: `prompt_n` excludes the cached tokens."""
    prompt, cached = count(timings, "prompt_n"), count(timings, "cache_n")
    if prompt is None:
        return None
    return Usage(input=prompt + (cached or 0), output=count(timings, "predicted_n"), cache_read=cached)


def _is_output(choice: dict[str, Any]) -> bool:
    """Return whether a chunk carries output of any kind: text, reasoning, a tool call, audio, or a future kind."""
    return carries([choice.get("text"), choice.get("delta") or choice.get("message")], _NO_OUTPUT)


class Ending:
    """Ends a stream of choices that is cut: with a chunk that has the finish reason, and `[DONE]`."""

    ended_by: Final = (b"data: [DONE]", b"data:[DONE]")

    def __init__(self, empty: dict[str, Any]) -> None:
        """Take what an empty piece of output looks like in a choice."""
        self._empty = empty
        self._head: dict[str, Any] | None = None

    def note(self, data: bytes) -> None:
        """Remember the fields of the first chunk that all chunks repeat."""
        if self._head is None:
            first = json.loads(data)
            self._head = {key: first[key] for key in _HEAD if key in first}

    def last(self, output_tokens: int) -> bytes:
        """Return the last chunk, without usage: that would come in a separate chunk, and only if requested."""
        from tollspan.wire.dialects.replies import DONE, data_events

        del output_tokens
        choice = {"index": 0, **self._empty, "finish_reason": "length"}
        return data_events([{**(self._head or {}), "choices": [choice]}], DONE)


_HEAD: Final = ("id", "object", "created", "model", "system_fingerprint")
