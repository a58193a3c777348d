"""Google's `usageMetadata`, in any method (generate, embed; the Gemini API and Vertex AI), and Google's error object.

The prompt count includes the cache. The tool-use prompt is counted beside it and billed as input. The thoughts are
beside the candidates, unless the total shows that they are already inside. Counts of zero are omitted on this wire.
https://ai.google.dev/api/generate-content#UsageMetadata and the documentation of the google-genai SDK
"""

from __future__ import annotations

from typing import Any, Final

from tollspan.model.errors import REFUSED_STATUS
from tollspan.model.records import Facts, Usage
from tollspan.wire.dialects.fields import count, label, objects, plus

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
    by_input = _modalities(stated, "promptTokensDetails", "promptTokenDetails", "toolUsePromptTokensDetails")
    by_output = _modalities(stated, "candidatesTokensDetails", "responseTokensDetails")
    by_cache = _modalities(stated, "cacheTokensDetails")
    return Usage(
        input=plus(prompt, tools),
        output=candidates if inside else plus(candidates, thoughts),
        cache_read=count(stated, "cachedContentTokenCount"),
        reasoning=thoughts,
        input_text=by_input.get("TEXT"),
        input_audio=by_input.get("AUDIO"),
        input_image=plus(by_input.get("IMAGE"), by_input.get("DOCUMENT")),  # a page of a document is read as an image
        input_video=by_input.get("VIDEO"),
        output_text=by_output.get("TEXT"),
        output_audio=by_output.get("AUDIO"),
        output_image=by_output.get("IMAGE"),
        output_video=by_output.get("VIDEO"),
        cache_read_audio=by_cache.get("AUDIO"),
        cache_read_image=plus(by_cache.get("IMAGE"), by_cache.get("DOCUMENT")),
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
                sums[name] = sums.get(name, 0) + tokens
    return sums


def refuse(text: str) -> dict[str, Any]:
    """Return the error object of Google's APIs (https://cloud.google.com/apis/design/errors)."""
    return {"error": {"code": REFUSED_STATUS, "message": text, "status": "RESOURCE_EXHAUSTED"}}
