"""Google's `usageMetadata`, on whatever method it comes (generate, embed; the Gemini API and Vertex AI).

The prompt count includes the cache; the tool-use prompt stands beside it and is billed as input; the thoughts stand
beside the candidates, except where the total shows that they are already inside. Counts that are zero are left out on
this wire. https://ai.google.dev/api/generate-content#UsageMetadata and the texts of the google-genai SDK.
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
    """Return an enumeration's word, whether it came as a word or as its number."""
    if type(value) is int:
        return names[value] if 0 <= value < len(names) else str(value)
    return label(value) if type(value) is str and value else None


def finish_reason(candidate: dict[str, Any]) -> str | None:
    """Return why a candidate ended, or None while it has not."""
    return _word(candidate.get("finishReason"), _FINISH)


def read_tier(facts: Facts, found: dict[str, Any]) -> None:
    """Read the tier that was served: `trafficType` on Vertex AI, `serviceTier` on the Gemini API."""
    tier = _word(found.get("trafficType"), _TRAFFIC) or _word(found.get("serviceTier"), ())
    facts.tier = tier or facts.tier


def read_usage(found: dict[str, Any]) -> Usage | None:
    """Return the usage that a `usageMetadata` object states, or None where it states none."""
    candidates, thoughts = (
        count(found, "candidatesTokenCount", "responseTokenCount"),
        count(found, "thoughtsTokenCount"),
    )
    tools = count(found, "toolUsePromptTokenCount")
    prompt = count(found, "promptTokenCount")
    if prompt is None:
        prompt = _rest(count(found, "totalTokenCount"), plus(candidates, thoughts, tools))
    if prompt is None and candidates is None and thoughts is None:
        return None
    inside = _inside(found, plus(prompt, candidates, tools), candidates, thoughts)
    sent = _modalities(found, "promptTokensDetails", "promptTokenDetails", "toolUsePromptTokensDetails")
    given = _modalities(found, "candidatesTokensDetails", "responseTokensDetails")
    cached = _modalities(found, "cacheTokensDetails")
    return Usage(
        input=plus(prompt, tools),
        output=candidates if inside else plus(candidates, thoughts),
        cache_read=count(found, "cachedContentTokenCount"),
        reasoning=thoughts,
        input_text=sent.get("TEXT"),
        input_audio=sent.get("AUDIO"),
        input_image=plus(sent.get("IMAGE"), sent.get("DOCUMENT")),  # a page of a document is read as an image
        input_video=sent.get("VIDEO"),
        output_text=given.get("TEXT"),
        output_audio=given.get("AUDIO"),
        output_image=given.get("IMAGE"),
        output_video=given.get("VIDEO"),
        cache_read_audio=cached.get("AUDIO"),
        cache_read_image=plus(cached.get("IMAGE"), cached.get("DOCUMENT")),
    )


def _rest(total: int | None, known: int | None) -> int | None:
    """Return the prompt's tokens where only the total counts them, as in answers that leave `promptTokenCount` out."""
    rest = (total or 0) - (known or 0)
    return rest if rest > 0 else None


def _inside(found: dict[str, Any], sum_without: int | None, candidates: int | None, thoughts: int | None) -> bool:
    """Return whether the candidates' count includes the thoughts: then the sum without them already makes the total."""
    if not thoughts or candidates is None or candidates < thoughts:
        return False
    return count(found, "totalTokenCount") == sum_without


def _modalities(found: dict[str, Any], *keys: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for key in keys:
        for item in objects(found, key):
            name, tokens = _word(item.get("modality"), _MODALITIES), count(item, "tokenCount")
            if name is not None and tokens is not None:
                sums[name] = sums.get(name, 0) + tokens
    return sums


def refuse(text: str) -> dict[str, Any]:
    """Return the error object of Google's APIs (https://cloud.google.com/apis/design/errors)."""
    return {"error": {"code": REFUSED_STATUS, "message": text, "status": "RESOURCE_EXHAUSTED"}}
