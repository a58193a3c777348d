"""The usage that Langfuse's spans report: one JSON text, in one of two ways of counting.

OpenAI's own object is passed on unchanged, and its counts include cached and reasoning tokens: `prompt_tokens` or, with
details, `input_tokens`. Otherwise each key is a separate bucket, and they are added up here: `input`,
`input_cache_read`, `cache_creation_input_tokens`, `output`, `output_reasoning`...
(https://langfuse.com/docs/model-usage-and-cost, and the packages of November 2026).
"""

from __future__ import annotations

import json
from typing import Any, Final

from tollspan.model.records import Usage
from tollspan.wire.dialects.fields import MAX_COUNT

USAGE_DETAILS: Final = "langfuse.observation.usage_details"

_READ: Final = ("input_cache_read", "input_cached_tokens", "cache_read_input_tokens")
_WRITTEN: Final = ("input_cache_creation", "cache_creation_input_tokens")
_WRITTEN_5M: Final = ("input_ephemeral_5m_input_tokens", "cache_creation_ephemeral_5m_input_tokens")
_WRITTEN_1H: Final = ("input_ephemeral_1h_input_tokens", "cache_creation_ephemeral_1h_input_tokens")
_REASONING: Final = ("output_reasoning", "output_reasoning_tokens")
_INPUT, _OUTPUT = ("input", "input_tokens"), ("output", "output_tokens")
_AUDIO: Final = (("input_audio", "input_audio_tokens"), ("output_audio", "output_audio_tokens"))


def usage_in(details: object) -> Usage | None:
    """Return the usage as inclusive counts, or None if there is none that can be read."""
    try:
        counts = json.loads(details) if isinstance(details, str) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(counts, dict):
        return None
    usage = _openai(counts) if "prompt_tokens" in counts or _has_details(counts) else _buckets(counts)
    return None if usage.input is None and usage.output is None else usage


def _has_details(counts: dict[str, Any]) -> bool:
    return isinstance(counts.get("input_tokens_details"), dict) or isinstance(counts.get("output_tokens_details"), dict)


def _openai(counts: dict[str, Any]) -> Usage:
    into = counts.get("prompt_tokens_details") or counts.get("input_tokens_details") or {}
    out = counts.get("completion_tokens_details") or counts.get("output_tokens_details") or {}
    into, out = (each if isinstance(each, dict) else {} for each in (into, out))
    return Usage(
        input=_first(counts, ("prompt_tokens", "input_tokens")),
        output=_first(counts, ("completion_tokens", "output_tokens")),
        cache_read=_first(into, ("cached_tokens",)),
        reasoning=_first(out, ("reasoning_tokens",)),
        input_audio=_first(into, ("audio_tokens",)),
        output_audio=_first(out, ("audio_tokens",)),
    )


def _buckets(counts: dict[str, Any]) -> Usage:
    read, reasoning = _first(counts, _READ), _first(counts, _REASONING)
    short, long = _first(counts, _WRITTEN_5M), _first(counts, _WRITTEN_1H)
    written = _sum(short, long) if _first(counts, _WRITTEN) in {None, 0} else _first(counts, _WRITTEN)
    audio_in, audio_out = (_first(counts, names) for names in _AUDIO)
    return Usage(
        input=_sum(_first(counts, _INPUT), read, written, audio_in),
        output=_sum(_first(counts, _OUTPUT), reasoning, audio_out),
        cache_read=read,
        cache_write=written,
        cache_write_5m=short,
        cache_write_1h=long,
        reasoning=reasoning,
        input_audio=audio_in,
        output_audio=audio_out,
    )


def _first(counts: dict[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = counts.get(name)
        if type(value) is int and 0 <= value <= MAX_COUNT:
            return value
    return None


def _sum(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
