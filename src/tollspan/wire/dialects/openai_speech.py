"""OpenAI speech: text in, audio out.

Request: `model`, `input`, `stream_format`. Response: audio bytes, or JSON (Mistral), or a stream of events whose last
one has `usage`. Audio bytes state no usage: then the characters of the request are the usage, which is how most models
are billed. https://platform.openai.com/docs/api-reference/audio/createSpeech
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tollspan.model.records import Usage
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import error_type, mapping, text
from tollspan.wire.dialects.openai_events import read_progress
from tollspan.wire.dialects.openai_requests import read_common, read_path, refuse
from tollspan.wire.dialects.openai_tokens import read_stated_cost, read_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.model.records import Facts


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    read_common(facts, body)
    facts.output_type = "speech"
    facts.stream = facts.stream or text(body, "stream_format") == "sse"
    facts.scratch = {"characters": len(text(body, "input") or "")}


def _read_headers(facts: Facts, headers: Mapping[str, str]) -> None:
    """Take the characters of the request as the usage as soon as the response is audio: its bytes are never read."""
    if headers.get("content-type", "").startswith(("audio/", "application/octet-stream")):
        facts.usage = _characters(facts)


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    _read_object(facts, body)
    if facts.usage is None and not facts.error_type:
        facts.usage = _characters(facts)
    facts.complete = True


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    _read_object(facts, event)
    read_progress(facts, name, event, ".done", [event.get("audio"), event.get("delta")])


def _read_object(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_model = text(body, "model") or facts.response_model
    facts.error_type = error_type(body) or facts.error_type
    stated = mapping(body, "usage")
    if (usage := read_usage(stated)) is not None:
        # The output of this interface is audio, whether its usage is split or not.
        facts.usage = usage if usage.output_audio is not None else replace(usage, output_audio=usage.output)
    read_stated_cost(facts, stated)


def _characters(facts: Facts) -> Usage | None:
    sent = (facts.scratch or {}).get("characters")
    return Usage(units={"input_characters": sent}) if type(sent) is int and sent else None


DIALECT = Dialect(
    name="openai_speech",
    operation="generate_content",
    read_request=_read_request,
    read_response=_read_response,
    read_event=_read_event,
    read_headers=_read_headers,
    read_path=read_path,
    refuse=refuse,
    facts_in=(b'"usage":{', b'"error":', b'.done"'),
)
