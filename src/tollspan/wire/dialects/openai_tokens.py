"""The usage object that OpenAI made and many others send: `prompt_tokens` or `input_tokens`, and their details.

Input includes the cache, output includes the reasoning, except where the total tells otherwise (xAI sends
`total = prompt + completion + reasoning`). https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import Usage, text_usage
from tollspan.wire.dialects.fields import MAX_COUNT, count, mapping, money, number

if TYPE_CHECKING:
    from tollspan.model.money import Number
    from tollspan.model.records import Facts

_INPUTS: Final = ("prompt_tokens_details", "input_tokens_details", "prompt_token_details", "input_token_details")
_OUTPUTS: Final = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_CACHE_READ: Final = ("cached_tokens", "prompt_cache_hit_tokens", "num_cached_tokens", "cache_read_input_tokens")
_CACHE_WRITE: Final = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
_TICKS: Final = 10**10
_UNITS: Final = (
    ("web_searches", "num_search_queries"),  # Perplexity
    ("citation_tokens", "citation_tokens"),  # Perplexity
    ("search_units", "search_units"),  # rerank at OpenRouter
    ("input_seconds", "prompt_audio_seconds"),  # Mistral
)
# Where the searches of server-side tools stand: at xAI, at OpenRouter, with Perplexity's agents.
_SEARCHES: Final = (
    (("server_side_tool_usage_details",), "web_search_calls"),
    (("server_tool_use_details",), "web_search_requests"),
    (("tool_calls_details", "search_web"), "invocation"),
)


_COSTS: Final = frozenset({"cost", "cost_in_usd_ticks", "estimated_cost", "is_byok", "pydantic_ai_gateway"})
"""Where a usage object says what the call cost."""
_PLAIN: Final = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
)
_PLAIN_INPUT: Final = frozenset({"cached_tokens", "audio_tokens"})
_PLAIN_OUTPUT: Final = frozenset(
    {"reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"}
)
_NO_DETAILS: Final[dict[str, Any]] = {}


def read_plain_usage(found: dict[str, Any]) -> Usage | None:
    """Return the usage of an object that states what OpenAI's own do, in their words, and nothing else; None of others.

    Nearly every usage object is one of these. Reading no more than what is there takes 2 microseconds; `read_usage`,
    which asks for everything that anybody is known to send, gives the same in 13.
    """
    if not found.keys() <= _PLAIN:
        return None
    details: Any = found.get("prompt_tokens_details") or _NO_DETAILS
    outputs: Any = found.get("completion_tokens_details") or _NO_DETAILS
    if not _holds_only(details, _PLAIN_INPUT) or not _holds_only(outputs, _PLAIN_OUTPUT):
        return None
    taken: Any = found.get("prompt_tokens")
    given: Any = found.get("completion_tokens")
    read, heard = details.get("cached_tokens"), details.get("audio_tokens")
    reasoning, spoken = outputs.get("reasoning_tokens"), outputs.get("audio_tokens")
    # Where the total is another sum than this one, something stands beside what it should be inside of.
    if not (_is_count(taken) and _is_count(given) and found.get("total_tokens") == taken + given):
        return None
    for part in (read, heard, reasoning, spoken):
        if part is not None and not _is_count(part):
            return None
    return text_usage(taken=taken, given=given, read=read, reasoning=reasoning, audio_in=heard, audio_out=spoken)


def _is_count(told: Any) -> bool:
    return type(told) is int and 0 <= told <= MAX_COUNT


def _holds_only(details: Any, names: frozenset[str]) -> bool:
    return type(details) is dict and details.keys() <= names


def read_usage(found: dict[str, Any]) -> Usage | None:
    """Return the usage that an OpenAI-style usage object states, or None where it states none."""
    taken = count(found, "prompt_tokens", "input_tokens")
    given = count(found, "completion_tokens", "output_tokens")
    if taken is None and given is None:
        return None
    details, outputs = _details(found, _INPUTS), _details(found, _OUTPUTS)
    reasoning = _first(count(outputs, "reasoning_tokens"), count(found, "reasoning_tokens"))
    if reasoning and given is not None and _outside(found, taken, given, reasoning):
        given += reasoning
    heard = count(details, "audio_tokens")
    if heard and taken is not None and count(found, "total_tokens") == taken + heard + (given or 0):
        taken += heard  # Mistral counts the audio beside the prompt: the total tells
    lifetimes = mapping(details, "cache_write_tokens_details")
    anthropics = mapping(details, "cache_creation_token_details") or mapping(details, "cache_creation")  # LiteLLM
    cached = mapping(details, "cached_tokens_details")
    return Usage(
        input=taken,
        output=given,
        cache_read=_first(count(details, *_CACHE_READ), count(found, *_CACHE_READ[1:], "cached_tokens")),
        cache_write=_first(count(details, *_CACHE_WRITE), count(found, *_CACHE_WRITE)),
        cache_write_5m=count(anthropics, "ephemeral_5m_input_tokens"),
        cache_write_30m=_first(count(lifetimes, "ttl_30m_tokens"), count(anthropics, "ephemeral_30m_input_tokens")),
        cache_write_1h=count(anthropics, "ephemeral_1h_input_tokens"),
        cache_write_12h=count(lifetimes, "ttl_12h_tokens"),
        reasoning=reasoning,
        input_text=count(details, "text_tokens"),
        input_audio=heard,
        input_image=count(details, "image_tokens"),
        input_video=count(details, "video_tokens"),
        output_text=count(outputs, "text_tokens"),
        output_audio=count(outputs, "audio_tokens"),
        output_image=count(outputs, "image_tokens"),
        cache_read_audio=count(cached, "audio_tokens", "cached_audio_tokens"),
        cache_read_image=count(cached, "image_tokens", "cached_image_tokens"),
        units=read_units(found),
    )


def read_input_usage(found: dict[str, Any]) -> Usage | None:
    """Return the usage of a call that makes no tokens (embeddings, reranking): some state `total_tokens` alone."""
    if (usage := read_usage(found)) is not None:
        return usage
    total, units = count(found, "total_tokens"), read_units(found)
    return None if total is None and not units else Usage(input=total, units=units)


def _details(found: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the details under the first of `names` that holds any: the formats disagree about the plural."""
    for name in names:
        if details := mapping(found, name):
            return details
    return {}


def _first(one: int | None, other: int | None) -> int | None:
    return other if one is None else one


def _outside(found: dict[str, Any], taken: int | None, given: int, reasoning: int) -> bool:
    """Return whether the reasoning stands beside the completion tokens instead of inside them."""
    total = count(found, "total_tokens")
    if total is not None and total == (taken or 0) + given + reasoning:
        return True
    # Perplexity deep research states no such total, but its reasoning is billed beside the completion.
    return "citation_tokens" in found and reasoning > given


def read_units(found: dict[str, Any]) -> dict[str, Number]:
    """Return what a usage object states to be billed by something else than tokens."""
    units: dict[str, Number] = {}
    for unit, key in _UNITS:
        if (amount := number(found, key)) is not None:
            units[unit] = amount
    for way, key in _SEARCHES:
        inside = found
        for step in way:
            inside = mapping(inside, step)
        if (searches := count(inside, key)) is not None:
            units["web_searches"] = searches
    return units


def read_gateway_cost(facts: Facts, found: dict[str, Any]) -> None:
    """Read what Vercel's gateway says a call cost, where `found` has its metadata; the amounts are decimal strings."""
    told = found.get("provider_metadata") or found.get("providerMetadata")
    if told and facts.provider_cost is None:
        read_stated_cost(facts, mapping(told, "gateway"))


def read_stated_cost(facts: Facts, found: dict[str, Any]) -> None:
    """Read the cost that some providers state in the usage object (OpenRouter, Perplexity, xAI, Vercel...)."""
    if _COSTS.isdisjoint(found):
        return  # nearly all
    cost = money(found, "cost")
    if cost is None:
        cost = money(mapping(found, "cost"), "total_cost")
    if cost is None:
        cost = money(found, "estimated_cost")
    if cost is None:
        cost = money(mapping(found, "pydantic_ai_gateway"), "cost_estimate")
    if cost is None:
        cost = money(found, "cost_in_usd_ticks", per_dollar=_TICKS)
    if cost is not None:
        facts.provider_cost = cost
    # Without one's own key the upstream cost is what `cost` already says; with it `cost` is the router's fee alone.
    if found.get("is_byok") is True:
        facts.upstream_cost = money(mapping(found, "cost_details"), "upstream_inference_cost")
