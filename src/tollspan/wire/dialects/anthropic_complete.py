"""Anthropic's older text completions.

Request: `model`, `prompt`, `max_tokens_to_sample`, `stream`. Response and events: `completion` and `stop_reason`. There
is no usage on the wire: the counts are estimated from the texts. https://docs.anthropic.com/en/api/complete
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tollspan.wire.dialects.anthropic_tokens import refuse
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import count, error_type, text
from tollspan.wire.dialects.output_limits import limit_at

if TYPE_CHECKING:
    from tollspan.model.records import Facts


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    facts.request_model = text(body, "model")
    facts.stream = body.get("stream") is True
    facts.max_output = count(body, "max_tokens_to_sample")


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_id = text(body, "id") or facts.response_id
    facts.response_model = text(body, "model") or facts.response_model
    facts.error_type = error_type(body) or facts.error_type
    if (reason := text(body, "stop_reason")) is not None:
        facts.finish_reasons = [reason]
        facts.complete = True


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    _read_response(facts, event)
    if name == "error":
        facts.error_type = facts.error_type or "error"
    facts.output_seen = facts.output_seen or text(event, "completion") is not None


DIALECT = Dialect(
    name="anthropic_complete",
    operation="text_completion",
    read_request=_read_request,
    read_response=_read_response,
    read_event=_read_event,
    facts_in=(b'"stop_reason":"', b'"error":{'),
    text_in=(b'"completion":"',),
    refuse=refuse,
    limit_output=limit_at("max_tokens_to_sample"),
)
