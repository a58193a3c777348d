"""OpenAI transcriptions and translations of audio, plain or streamed.

Request: a form with `model` and the file. Response: `usage` in tokens (`input_token_details`, in the singular) or, of
type `duration`, in seconds; without it, the `duration` of a verbose response is billed. Stream: the last event ends in
`.done` and has the usage. Responses as plain text or subtitles state nothing.
https://platform.openai.com/docs/api-reference/audio
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tollspan.model.records import Usage
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import error_type, mapping, number, text
from tollspan.wire.dialects.openai_events import read_progress
from tollspan.wire.dialects.openai_requests import read_common, read_path, refuse
from tollspan.wire.dialects.openai_tokens import read_stated_cost, read_usage

if TYPE_CHECKING:
    from tollspan.model.records import Facts


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    read_common(facts, body)
    facts.output_type = "text"


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    _read_object(facts, body)
    if facts.usage is None:
        facts.usage = _seconds(number(body, "duration"))
    facts.complete = True


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    _read_object(facts, event)
    read_progress(facts, name, event, ".done", [event.get("delta"), event.get("text")])


def _read_object(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_model = text(body, "model") or facts.response_model
    facts.error_type = error_type(body) or facts.error_type
    stated = mapping(body, "usage")
    facts.tier = text(stated, "service_tier") or facts.tier
    facts.usage = read_usage(stated) or _seconds(number(stated, "seconds")) or facts.usage
    read_stated_cost(facts, stated)


def _seconds(seconds: float | None) -> Usage | None:
    return None if seconds is None else Usage(units={"input_seconds": seconds})


DIALECT = Dialect(
    name="openai_transcription",
    operation="generate_content",
    read_request=_read_request,
    read_response=_read_response,
    read_event=_read_event,
    read_path=read_path,
    refuse=refuse,
    facts_in=(b'"usage":{', b'"error":', b'.done"'),
)
