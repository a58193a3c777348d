"""Cloudflare Workers AI's own API: `/ai/run/<model>`, whose answer is wrapped in `result`.

https://developers.cloudflare.com/workers-ai/get-started/rest-api/. The model stands in the path. Usage is OpenAI's
object; in a stream it comes with the last event. Some models answer in OpenAI's format inside `result`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tollspan.dialects.dialect import Dialect
from tollspan.dialects.fields import count, mapping, objects, text
from tollspan.dialects.openai_tokens import read_usage
from tollspan.dialects.paths import segment

if TYPE_CHECKING:
    from tollspan.usage import Facts

_MODEL: Final = re.compile(r"/ai/run/([^?]+)")
_EMBEDDING: Final = re.compile(r"/bge-|embed")
_OUTPUTS: Final = ("response", "tool_calls", "content", "reasoning_content", "reasoning")


def _read_path(facts: Facts, path: str) -> None:
    facts.request_model = segment(_MODEL, path)
    if _EMBEDDING.search(facts.request_model or ""):
        facts.operation = "embeddings"


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    facts.stream = body.get("stream") is True
    facts.max_output = count(body, "max_tokens", "max_completion_tokens")
    if mapping(body, "response_format"):
        facts.output_type = "json"


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    _read_result(facts, mapping(body, "result") or body)
    if body.get("success") is False:
        codes = [count(error, "code") for error in objects(body, "errors")]
        facts.error_type = str(codes[0]) if codes and codes[0] is not None else "error"
    facts.complete = True


def _read_result(facts: Facts, result: dict[str, Any]) -> None:
    facts.response_id = text(result, "id") or facts.response_id
    facts.response_model = text(result, "model") or facts.response_model
    facts.usage = read_usage(mapping(result, "usage")) or facts.usage
    for choice in objects(result, "choices"):
        if (reason := text(choice, "finish_reason")) is not None:
            facts.finish_reasons = [reason]


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    _read_result(facts, event)
    if name == "error" or event.get("error") or event.get("errors"):
        facts.error_type = "error"
    if not facts.output_seen:
        pieces = [event, *(mapping(choice, "delta") for choice in objects(event, "choices"))]
        facts.output_seen = any(piece.get(key) for piece in pieces for key in _OUTPUTS)


DIALECT = Dialect(
    name="cloudflare_run",
    read_path=_read_path,
    read_request=_read_request,
    read_response=_read_response,
    read_event=_read_event,
    facts_in=(b'"usage":{', b'"finish_reason":"', b'"error', b"event:"),
    text_in=(b'"response":"', b'"content":"', b'"reasoning_content":"'),
)
