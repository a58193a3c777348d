"""Google's `usageMetadata`, in any method (generate, embed; the Gemini API and Vertex AI), and Google's error object.

The prompt count includes the cache. The tool-use prompt is counted beside it and billed as input. The thoughts are
beside the candidates, unless the total shows that they are already inside. Counts of zero are omitted on this wire.
https://ai.google.dev/api/generate-content#UsageMetadata and the documentation of the google-genai SDK
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.model.errors import REFUSED_STATUS
from tollspan.model.records import Facts, Usage
from tollspan.wire.dialects.fields import count, label, objects, plus

if TYPE_CHECKING:
    from collections.abc import Mapping

# With `$alt=json;enum-encoding=int` (the Google Cloud clients over REST) enumerations come as numbers: these are the
# numbers of google.cloud.aiplatform.v1 (content.proto, usage_metadata.proto).
_MODALITIES: Final = ("MODALITY_UNSPECIFIED", "TEXT", "IMAGE", "VIDEO", "AUDIO", "DOCUMENT")
_TRAFFIC: Final = (
    "TRAFFIC_TYPE_UNSPECIFIED",
    "ON_DEMAND",
    "PROVISIONED_THROUGHPUT",
    "ON_DEMAND_PRIORITY",
    "ON_DEMAND_FLEX",
)
_FINISH: Final = (
    "FINISH_REASON_UNSPECIFIED",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "RECITATION",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MALFORMED_FUNCTION_CALL",
)


def _word(value: Any, names: tuple[str, ...]) -> str | None:
    """Return an enumeration's word, sent as a word or as its number."""
    if type(value) is int:
        return names[value] if 0 <= value < len(names) else str(value)
    return label(value) if type(value) is str and value else None


def finish_reason(candidate: dict[str, Any]) -> str | None:
    """Return the finish reason of a candidate, or None while it has none."""
    return _word(candidate.get("finishReason"), _FINISH)


def read_tier(facts: Facts, stated: dict[str, Any]) -> None:
    """Read the served tier: `trafficType` on Vertex AI, `serviceTier` on the Gemini API."""
    tier = _word(stated.get("trafficType"), _TRAFFIC) or _word(stated.get("serviceTier"), ())
    facts.tier = tier or facts.tier


def read_usage(stated: dict[str, Any]) -> Usage | None:
    """Return the usage that a `usageMetadata` object states, or None if it states none."""
    candidates, thoughts = (
        count(stated, "candidatesTokenCount", "responseTokenCount"),
        count(stated, "thoughtsTokenCount"),
    )
    tools = count(stated, "toolUsePromptTokenCount")
    prompt = count(stated, "promptTokenCount")
    if prompt is None:
        prompt = _rest(count(stated, "totalTokenCount"), plus(candidates, thoughts, tools))
    if prompt is None and candidates is None and thoughts is None:
        return None
    inside = _inside(stated, plus(prompt, candidates, tools), candidates, thoughts)
    return usage_by_modality(
        Totals(
            plus(prompt, tools),
            candidates if inside else plus(candidates, thoughts),
            count(stated, "cachedContentTokenCount"),
            thoughts,
        ),
        by_input=_modalities(stated, "promptTokensDetails", "promptTokenDetails", "toolUsePromptTokensDetails"),
        by_output=_modalities(stated, "candidatesTokensDetails", "responseTokensDetails"),
        by_cache=_modalities(stated, "cacheTokensDetails"),
        units={},
    )


class Totals(NamedTuple):
    """The counts of tokens of any modality."""

    input: int | None
    output: int | None
    cache_read: int | None
    reasoning: int | None


def usage_by_modality(
    totals: Totals,
    *,
    by_input: Mapping[str, int],
    by_output: Mapping[str, int],
    by_cache: Mapping[str, int],
    units: Mapping[str, int],
) -> Usage:
    """Return a usage from its totals and its counts by modality, whose names are lower-case."""
    return Usage(
        input=totals.input,
        output=totals.output,
        cache_read=totals.cache_read,
        reasoning=totals.reasoning,
        input_text=by_input.get("text"),
        input_audio=by_input.get("audio"),
        input_image=plus(by_input.get("image"), by_input.get("document")),  # a page of a document is read as an image
        input_video=by_input.get("video"),
        output_text=by_output.get("text"),
        output_audio=by_output.get("audio"),
        output_image=by_output.get("image"),
        output_video=by_output.get("video"),
        cache_read_audio=by_cache.get("audio"),
        cache_read_image=plus(by_cache.get("image"), by_cache.get("document")),
        units=units,
    )


def _rest(total: int | None, known: int | None) -> int | None:
    """Return the prompt's tokens if only the total counts them, as in responses that omit `promptTokenCount`."""
    rest = (total or 0) - (known or 0)
    return rest if rest > 0 else None


def _inside(stated: dict[str, Any], sum_without: int | None, candidates: int | None, thoughts: int | None) -> bool:
    """Return whether the candidates' count includes the thoughts: then the total is the sum without them."""
    if not thoughts or candidates is None or candidates < thoughts:
        return False
    return count(stated, "totalTokenCount") == sum_without


def _modalities(stated: dict[str, Any], *keys: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for key in keys:
        for item in objects(stated, key):
            name, tokens = _word(item.get("modality"), _MODALITIES), count(item, "tokenCount")
            if name is not None and tokens is not None:
                sums[name.lower()] = sums.get(name.lower(), 0) + tokens
    return sums


def refuse(text: str) -> dict[str, Any]:
    """Return the error object of Google's APIs (https://cloud.google.com/apis/design/errors)."""
    return {"error": {"code": REFUSED_STATUS, "message": text, "status": "RESOURCE_EXHAUSTED"}}
