"""OpenAI's decisions: questions about a text, answered with probabilities.

Request: `model`, `input`, `questions`. Response: `answers`, and the usage object of Responses, without output. There is
no id, no tier and no stream; the price table has the prices as those of a tier (`input/decisions`).
`openai.resources.decisions` in OpenAI's SDK from 3.57 on
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import error_type, mapping, text
from tollspan.wire.dialects.openai_requests import read_common, read_path, refuse
from tollspan.wire.dialects.openai_tokens import read_stated_cost, read_usage

if TYPE_CHECKING:
    from tollspan.model.records import Facts

_TIER: Final = "decisions"


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_id = text(body, "id")
    facts.response_model = text(body, "model")
    facts.error_type = error_type(body)
    facts.tier = _TIER
    stated = mapping(body, "usage")
    facts.usage = read_usage(stated)
    read_stated_cost(facts, stated)
    facts.complete = True


DIALECT = Dialect(
    name="openai_decisions",
    operation="decisions",
    read_request=read_common,
    read_response=_read_response,
    read_path=read_path,
    refuse=refuse,
)
