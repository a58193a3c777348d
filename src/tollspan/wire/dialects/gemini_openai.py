"""Chat completions from Google: OpenAI's format, but the completion tokens exclude the thoughts.

Thoughts are billed as output. If they are not counted separately, they are the difference between the total and the
sum of prompt and completion. https://ai.google.dev/gemini-api/docs/openai
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tollspan.wire.dialects import openai_choices
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import count, mapping
from tollspan.wire.dialects.gemini_tokens import refuse
from tollspan.wire.dialects.openai_requests import read_generation
from tollspan.wire.dialects.output_limits import limit_at

if TYPE_CHECKING:
    from tollspan.model.records import Facts


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    openai_choices.read_response(facts, body)
    _add_thoughts(facts, mapping(body, "usage"))


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    openai_choices.read_event(facts, name, event)
    _add_thoughts(facts, mapping(event, "usage"))


def _add_thoughts(facts: Facts, stated: dict[str, Any]) -> None:
    usage, total = facts.usage, count(stated, "total_tokens")
    if usage is None or usage.input is None or usage.output is None or total is None:
        return
    thoughts = total - usage.input - usage.output
    if thoughts > 0:
        facts.usage = replace(usage, output=usage.output + thoughts, reasoning=(usage.reasoning or 0) + thoughts)


DIALECT = Dialect(
    name="gemini_openai",
    read_request=read_generation,
    read_response=_read_response,
    read_event=_read_event,
    facts_in=openai_choices.FACTS_IN,
    text_in=openai_choices.TEXT_IN,
    refuse=refuse,
    limit_output=limit_at("max_tokens", "max_completion_tokens"),
)
