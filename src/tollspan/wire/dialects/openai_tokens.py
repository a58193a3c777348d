"""OpenAI's usage object, which many others send: `prompt_tokens` or `input_tokens`, and their details.

Input includes the cache, output includes the reasoning, unless the total says otherwise (xAI sends
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
# The searches of server-side tools: at xAI, at OpenRouter, with Perplexity's agents.
_SEARCHES: Final = (
    (("server_side_tool_usage_details",), "web_search_calls"),
    (("server_tool_use_details",), "web_search_requests"),
    (("tool_calls_details", "search_web"), "invocation"),
)

_COSTS: Final = frozenset({"cost", "cost_in_usd_ticks", "estimated_cost", "is_byok", "pydantic_ai_gateway"})
"""Keys of a usage object for the cost of the call."""
_PLAIN: Final = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
)
_PLAIN_INPUT: Final = frozenset({"cached_tokens", "audio_tokens"})
_PLAIN_OUTPUT: Final = frozenset(
    {"reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"}
)
_NO_DETAILS: Final[dict[str, Any]] = {}


def read_plain_usage(stated: dict[str, Any]) -> Usage | None:
    """Return the usage of an object that has OpenAI's own keys and no others; None for any other object.

    Nearly every usage object is one of these. Reading only the keys that are there takes 2 microseconds; `read_usage`,
    which looks for every known key, returns the same in 13.
    """
    if not stated.keys() <= _PLAIN:
        return None
    details: Any = stated.get("prompt_tokens_details") or _NO_DETAILS
    outputs: Any = stated.get("completion_tokens_details") or _NO_DETAILS
    if not _holds_only(details, _PLAIN_INPUT) or not _holds_only(outputs, _PLAIN_OUTPUT):
        return None
    tokens_in: Any = stated.get("prompt_tokens")
    tokens_out: Any = stated.get("completion_tokens")
    read, heard = details.get("cached_tokens"), details.get("audio_tokens")
    reasoning, spoken = outputs.get("reasoning_tokens"), outputs.get("audio_tokens")
    # If the total is any other sum, a sub-count is beside the count that it should be a part of.
    if not (_is_count(tokens_in) and _is_count(tokens_out) and stated.get("total_tokens") == tokens_in + tokens_out):
        return None
    for part in (read, heard, reasoning, spoken):
        if part is not None and not _is_count(part):
            return None
    return text_usage(
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        cache_read=read,
        reasoning=reasoning,
        audio_in=heard,
        audio_out=spoken,
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_COUNT


def _holds_only(details: Any, names: frozenset[str]) -> bool:
    return type(details) is dict and details.keys() <= names


def read_usage(stated: dict[str, Any]) -> Usage | None:
    """Return the usage that an OpenAI-style usage object states, or None if it states none."""
    tokens_in = count(stated, "prompt_tokens", "input_tokens")
    tokens_out = count(stated, "completion_tokens", "output_tokens")
    if tokens_in is None and tokens_out is None:
        return None
    details, outputs = _details(stated, _INPUTS), _details(stated, _OUTPUTS)
    reasoning = _first(count(outputs, "reasoning_tokens"), count(stated, "reasoning_tokens"))
    if reasoning and tokens_out is not None and _outside(stated, tokens_in, tokens_out, reasoning):
        tokens_out += reasoning
    heard = count(details, "audio_tokens")
    if heard and tokens_in is not None and count(stated, "total_tokens") == tokens_in + heard + (tokens_out or 0):
        tokens_in += heard  # Mistral counts the audio beside the prompt: the total shows it
    lifetimes = mapping(details, "cache_write_tokens_details")
    anthropics = mapping(details, "cache_creation_token_details") or mapping(details, "cache_creation")  # LiteLLM
    cached = mapping(details, "cached_tokens_details")
    return Usage(
        input=tokens_in,
        output=tokens_out,
        cache_read=_first(count(details, *_CACHE_READ), count(stated, *_CACHE_READ[1:], "cached_tokens")),
        cache_write=_first(count(details, *_CACHE_WRITE), count(stated, *_CACHE_WRITE)),
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
        units=read_units(stated),
    )


def read_input_usage(stated: dict[str, Any]) -> Usage | None:
    """Return the usage of a call without output tokens (embeddings, reranking): some state `total_tokens` alone."""
    if (usage := read_usage(stated)) is not None:
        return usage
    total, units = count(stated, "total_tokens"), read_units(stated)
    return None if total is None and not units else Usage(input=total, units=units)


def _details(stated: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the details under the first of `names` that has any: servers disagree about the plural."""
    for name in names:
        if details := mapping(stated, name):
            return details
    return {}


def _first(one: int | None, other: int | None) -> int | None:
    return other if one is None else one


def _outside(stated: dict[str, Any], tokens_in: int | None, tokens_out: int, reasoning: int) -> bool:
    """Return whether the reasoning is counted beside the completion tokens instead of inside them."""
    total = count(stated, "total_tokens")
    if total is not None and total == (tokens_in or 0) + tokens_out + reasoning:
        return True
    # Perplexity deep research states no such total, but its reasoning is billed beside the completion.
    return "citation_tokens" in stated and reasoning > tokens_out


def read_units(stated: dict[str, Any]) -> dict[str, Number]:
    """Return what a usage object states that is billed in other units than tokens."""
    units: dict[str, Number] = {}
    for unit, key in _UNITS:
        if (amount := number(stated, key)) is not None:
            units[unit] = amount
    for keys, name in _SEARCHES:
        details = stated
        for key in keys:
            details = mapping(details, key)
        if (searches := count(details, name)) is not None:
            units["web_searches"] = searches
    return units


def read_gateway_cost(facts: Facts, stated: dict[str, Any]) -> None:
    """Read the cost in the metadata of Vercel's gateway, if there is any; its amounts are decimal strings."""
    metadata = stated.get("provider_metadata") or stated.get("providerMetadata")
    if metadata and facts.provider_cost is None:
        read_stated_cost(facts, mapping(metadata, "gateway"))


def read_stated_cost(facts: Facts, stated: dict[str, Any]) -> None:
    """Read the cost that some providers state in the usage object (OpenRouter, Perplexity, xAI, Vercel...)."""
    if _COSTS.isdisjoint(stated):
        return  # nearly all
    cost = money(stated, "cost")
    if cost is None:
        cost = money(mapping(stated, "cost"), "total_cost")
    if cost is None:
        cost = money(stated, "estimated_cost")
    if cost is None:
        cost = money(mapping(stated, "pydantic_ai_gateway"), "cost_estimate")
    if cost is None:
        cost = money(stated, "cost_in_usd_ticks", per_dollar=_TICKS)
    if cost is not None:
        facts.provider_cost = cost
    # With the customer's own upstream key `cost` is the router's fee alone; else it includes the upstream cost.
    if stated.get("is_byok") is True:
        facts.upstream_cost = money(mapping(stated, "cost_details"), "upstream_inference_cost")
