"""OpenAI transcriptions and translations of audio, plain or streamed.

https://platform.openai.com/docs/api-reference/audio. Usage is tokens (`input_token_details`, in the singular) or, of
type `duration`, seconds; where there is neither, the duration that a verbose answer states is what is billed. Text
and subtitle answers say nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tollspan.model.records import Usage
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import carries, error_type, mapping, number, text
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
    kind = str(event.get("type") or name)
    facts.complete = facts.complete or kind.endswith(".done")
    facts.output_seen = facts.output_seen or carries([event.get("delta"), event.get("text")], ())


def _read_object(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_model = text(body, "model") or facts.response_model
    facts.error_type = error_type(body) or facts.error_type
    found = mapping(body, "usage")
    facts.tier = text(found, "service_tier") or facts.tier
    facts.usage = read_usage(found) or _seconds(number(found, "seconds")) or facts.usage
    read_stated_cost(facts, found)


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
