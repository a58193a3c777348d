"""The usage object that OpenAI made and many others send: `prompt_tokens`, `completion_tokens` and their details.

Input includes the cache, output includes the reasoning, except where the total tells otherwise (xAI sends
`total = prompt + completion + reasoning`). https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tollspan.dialects.fields import count, mapping, money, number
from tollspan.usage import Facts, Usage

_CACHE_READ = ("cached_tokens", "prompt_cache_hit_tokens", "num_cached_tokens", "cache_read_input_tokens")
_CACHE_WRITE = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
_TICKS = Decimal(10**10)


def read_usage(found: dict[str, Any]) -> Usage | None:
    """Give the usage that an OpenAI-style usage object states, or None where it states none."""
    details = mapping(found, "prompt_tokens_details") or mapping(found, "input_tokens_details")
    outputs = mapping(found, "completion_tokens_details") or mapping(found, "output_tokens_details")
    taken = count(found, "prompt_tokens", "input_tokens")
    given = count(found, "completion_tokens", "output_tokens")
    if taken is None and given is None:
        return None
    reasoning = count(outputs, "reasoning_tokens")
    if reasoning is None:
        reasoning = count(found, "reasoning_tokens")
    if reasoning and given is not None and _outside(found, taken, given, reasoning):
        given += reasoning
    read = count(details, *_CACHE_READ)
    write = count(details, *_CACHE_WRITE)
    lifetimes = mapping(details, "cache_write_tokens_details")
    return Usage(
        input=taken,
        output=given,
        cache_read=count(found, *_CACHE_READ[1:], "cached_tokens") if read is None else read,
        cache_write=count(found, *_CACHE_WRITE) if write is None else write,
        cache_write_30m=count(lifetimes, "ttl_30m_tokens"),
        cache_write_12h=count(lifetimes, "ttl_12h_tokens"),
        reasoning=reasoning,
        input_text=count(details, "text_tokens"),
        input_audio=count(details, "audio_tokens"),
        input_image=count(details, "image_tokens"),
        output_text=count(outputs, "text_tokens"),
        output_audio=count(outputs, "audio_tokens"),
        output_image=count(outputs, "image_tokens"),
        units=_units(found),
    )


def _outside(found: dict[str, Any], taken: int | None, given: int, reasoning: int) -> bool:
    """Tell whether the reasoning stands beside the completion tokens instead of inside them."""
    total = count(found, "total_tokens")
    if total is not None and total == (taken or 0) + given + reasoning:
        return True
    # Perplexity deep research states no such total, but its reasoning is billed beside the completion.
    return "citation_tokens" in found and reasoning > given


def _units(found: dict[str, Any]) -> dict[str, int | float]:
    units: dict[str, int | float] = {}
    for unit, key in (("web_searches", "num_search_queries"), ("citation_tokens", "citation_tokens")):
        if (amount := number(found, key)) is not None:
            units[unit] = amount
    if (seconds := number(found, "prompt_audio_seconds")) is not None:
        units["input_seconds"] = seconds
    return units


def read_stated_cost(facts: Facts, found: dict[str, Any]) -> None:
    """Read the cost that some providers state in the usage object (OpenRouter, Perplexity, xAI, Vercel...)."""
    cost = money(found, "cost")
    if cost is None:
        cost = money(mapping(found, "cost"), "total_cost")
    if cost is None:
        cost = money(found, "estimated_cost")
    if cost is None:
        cost = money(mapping(found, "pydantic_ai_gateway"), "cost_estimate")
    if cost is None and (ticks := money(found, "cost_in_usd_ticks")) is not None:
        cost = ticks / _TICKS
    if cost is not None:
        facts.provider_cost = cost
    # Without one's own key the upstream cost is what `cost` already says; with it `cost` is the router's fee alone.
    if found.get("is_byok") is True:
        facts.upstream_cost = money(mapping(found, "cost_details"), "upstream_inference_cost")
