"""Anthropic's usage object, on any wire (the API, Vertex AI, Bedrock), and its error object.

`input_tokens` excludes the cache here; `Usage.input` includes it, as the semantic conventions say. `cache_creation`
splits the writes by lifetime (5 minutes, 1 hour). `iterations` are billed each at its own model's price: those of type
`compaction` are not in the top-level counts, and are added to them here; those of an advisor or a fallback name their
own model.
https://docs.anthropic.com/en/api/messages and the documentation of Anthropic's SDK
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from tollspan.model.records import Facts, Part, Usage
from tollspan.wire.dialects.fields import count, mapping, objects, plus, text, update_counts


def read_usage(stated: dict[str, Any]) -> Usage | None:
    """Return the usage that an Anthropic-style usage object states, or None if it states none."""
    tokens_in, tokens_out = count(stated, "input_tokens"), count(stated, "output_tokens")
    if tokens_in is None and tokens_out is None:
        return None
    read, write = count(stated, "cache_read_input_tokens"), count(stated, "cache_creation_input_tokens")
    lifetimes = mapping(stated, "cache_creation")
    searches = count(mapping(stated, "server_tool_use"), "web_search_requests")
    return Usage(
        input=plus(tokens_in, read, write),
        output=tokens_out,
        cache_read=read,
        cache_write=write,
        cache_write_5m=count(lifetimes, "ephemeral_5m_input_tokens"),
        cache_write_1h=count(lifetimes, "ephemeral_1h_input_tokens"),
        reasoning=count(mapping(stated, "output_tokens_details"), "thinking_tokens"),
        units={} if searches is None else {"web_searches": searches},
    )


def read_facts(facts: Facts, stated: dict[str, Any]) -> None:
    """Write what an Anthropic-style usage object says: usage, tier, geography, speed, iterations."""
    if (usage := read_usage(stated)) is None:
        return
    facts.usage = usage
    facts.tier = text(stated, "service_tier") or facts.tier
    facts.geography = text(stated, "inference_geo") or facts.geography
    facts.speed = text(stated, "speed") or facts.speed
    facts.parts = _read_parts(stated)
    beside = [part.usage for part in facts.parts if part.kind == "compaction"]
    if beside:
        facts.usage = _sum_of(usage, *beside)


def read_cumulative(facts: Facts, stated: dict[str, Any]) -> dict[str, Any]:
    """Write what an event's usage object says, with those before it; return all that the stream has stated.

    The counts of a stream are cumulative: the last value of each holds (`fields.update_counts`).
    """
    known: dict[str, Any] = facts.scratch or {}
    update_counts(known, stated)
    facts.scratch = known
    read_facts(facts, known)
    return known


def is_last_delta(event: dict[str, Any]) -> bool:
    """Return whether a `message_delta` completes its message: `message_stop`, which follows, says nothing more."""
    counted = count(mapping(event, "usage"), "output_tokens") is not None
    return counted and text(mapping(event, "delta"), "stop_reason") is not None


def _sum_of(first: Usage, *others: Usage) -> Usage:
    """Return the usage with the tokens of others added; the units are those of the first."""
    counts = {name: plus(getattr(first, name), *(getattr(other, name) for other in others)) for name in _ADDED}
    return replace(first, **counts)  # type: ignore[arg-type]


_ADDED: Final = ("input", "output", "cache_read", "cache_write", "cache_write_5m", "cache_write_1h", "reasoning")
"""The counts that `read_usage` reads."""


def _read_parts(stated: dict[str, Any]) -> tuple[Part, ...]:
    """Return the iterations, if there are others than the plain message."""
    iterations = objects(stated, "iterations")
    if all(item.get("type") == "message" for item in iterations):
        return ()
    parts = []
    for item in iterations:
        usage = read_usage(item)
        if usage is not None:
            parts.append(Part(kind=text(item, "type") or "message", model=text(item, "model"), usage=usage))
    return tuple(parts)


def refuse(text: str) -> dict[str, Any]:
    """Return Anthropic's error object (https://docs.anthropic.com/en/api/errors)."""
    return {"type": "error", "error": {"type": "billing_error", "message": text}}
