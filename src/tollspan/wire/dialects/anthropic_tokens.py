"""Anthropic's usage object, on whatever wire it comes (the API, Vertex, Bedrock).

`input_tokens` leaves the cache out here; ours counts it in, as the conventions say. The 5-minute and 1-hour split
stands in `cache_creation`. `iterations` are passes that are billed each at its own model's price: compaction passes
are not in the top-level counts, advisor and fallback passes name their own model.
https://docs.anthropic.com/en/api/messages and the SDK's own texts.
"""

from __future__ import annotations

from typing import Any

from tollspan.model.records import Facts, Part, Usage
from tollspan.wire.dialects.fields import count, mapping, objects, plus, text


def read_usage(found: dict[str, Any]) -> Usage | None:
    """Return the usage that an Anthropic-style usage object states, or None where it states none."""
    taken, given = count(found, "input_tokens"), count(found, "output_tokens")
    if taken is None and given is None:
        return None
    read, write = count(found, "cache_read_input_tokens"), count(found, "cache_creation_input_tokens")
    lifetimes = mapping(found, "cache_creation")
    searches = count(mapping(found, "server_tool_use"), "web_search_requests")
    return Usage(
        input=plus(taken, read, write),
        output=given,
        cache_read=read,
        cache_write=write,
        cache_write_5m=count(lifetimes, "ephemeral_5m_input_tokens"),
        cache_write_1h=count(lifetimes, "ephemeral_1h_input_tokens"),
        reasoning=count(mapping(found, "output_tokens_details"), "thinking_tokens"),
        units={} if searches is None else {"web_searches": searches},
    )


def read_facts(facts: Facts, found: dict[str, Any]) -> None:
    """Write what an Anthropic-style usage object says: usage, tier, geography, speed, passes."""
    if (usage := read_usage(found)) is None:
        return
    facts.usage = usage
    facts.tier = text(found, "service_tier") or facts.tier
    facts.geography = text(found, "inference_geo") or facts.geography
    facts.speed = text(found, "speed") or facts.speed
    facts.parts = _read_parts(found)


def _read_parts(found: dict[str, Any]) -> tuple[Part, ...]:
    """Return the passes, where there is one besides the plain message."""
    passes = objects(found, "iterations")
    if all(item.get("type") == "message" for item in passes):
        return ()
    parts = []
    for item in passes:
        usage = read_usage(item)
        if usage is not None:
            parts.append(Part(kind=text(item, "type") or "message", model=text(item, "model"), usage=usage))
    return tuple(parts)


def refuse(text: str) -> dict[str, Any]:
    """Return Anthropic's error object (https://docs.anthropic.com/en/api/errors)."""
    return {"type": "error", "error": {"type": "billing_error", "message": text}}
