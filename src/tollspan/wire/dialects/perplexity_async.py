"""Perplexity's asynchronous chat completions: one request orders them, another fetches them when they are done.

Request: that of a chat completion, in `request`. Response: that of a chat completion, with usage and cost, in
`response`, once `status` is COMPLETED; until then the call is pending.
https://docs.perplexity.ai/api-reference/async-sonar-post
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import mapping, text
from tollspan.wire.dialects.openai_choices import TEXT_IN, read_document
from tollspan.wire.dialects.openai_requests import read_generation

if TYPE_CHECKING:
    from tollspan.model.records import Facts

_ENDED: Final = ("COMPLETED", "FAILED")


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    read_generation(facts, mapping(body, "request"))
    facts.stream = False
    facts.pending = True


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    read_document(facts, mapping(body, "response"))
    facts.response_id = text(body, "id") or facts.response_id  # it is fetched under this one
    facts.response_model = facts.response_model or text(body, "model")
    status = text(body, "status")
    facts.complete = status in _ENDED
    if status == "FAILED":
        facts.error_type = facts.error_type or "failed"
        facts.finish_reasons = ["error"]


DIALECT = Dialect(
    name="perplexity_async",
    read_request=_read_request,
    read_response=_read_response,
    text_in=TEXT_IN,
)
