"""OpenAI chat completions, and the many servers that speak it.

https://platform.openai.com/docs/api-reference/chat. What the answers hold is told in `openai_choices.py`. At xAI a
completion may be deferred: the answer is the id to fetch it by (https://docs.x.ai/docs/guides/deferred-chat-completions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tollspan.wire.dialects import openai_choices
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import text
from tollspan.wire.dialects.openai_choices import FACTS_IN, TEXT_IN, read_event
from tollspan.wire.dialects.openai_requests import read_generation, read_path

if TYPE_CHECKING:
    from tollspan.model.records import Facts


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    read_generation(facts, body)
    facts.pending = body.get("deferred") is True


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    openai_choices.read_response(facts, body)
    if facts.pending and "choices" not in body and (order := text(body, "request_id")) is not None:
        facts.response_id = order
        facts.complete = False


DIALECT = Dialect(
    name="openai_chat",
    read_request=_read_request,
    read_response=_read_response,
    read_event=read_event,
    read_path=read_path,
    facts_in=FACTS_IN,
    text_in=TEXT_IN,
)
