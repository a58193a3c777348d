"""Hugging Face's text generation inference (TGI): `/generate`, `/generate_stream`; the serverless `/models/<model>`.

Request: `inputs` and `parameters`. Response: `generated_text`, and the counts in `details` if the caller requested
them, else in the headers. Stream: the last event has `generated_text` and the details.
https://huggingface.github.io/text-generation-inference
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import Facts, Usage
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import array, count, digits, mapping, text
from tollspan.wire.dialects.output_limits import limit_at
from tollspan.wire.dialects.paths import segment

if TYPE_CHECKING:
    from collections.abc import Mapping

_MODEL: Final = re.compile(r"/(?:models|pipeline/[a-z-]+)/([^?]+)")


def _read_path(facts: Facts, path: str) -> None:
    facts.request_model = segment(_MODEL, path)
    if "feature-extraction" in path or "sentence-similarity" in path:
        facts.operation = "embeddings"


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    facts.stream = body.get("stream") is True
    facts.max_output = count(mapping(body, "parameters"), "max_new_tokens")


def _read_headers(facts: Facts, headers: Mapping[str, str]) -> None:
    tokens_in, tokens_out = (digits(headers.get(name, "")) for name in ("x-prompt-tokens", "x-generated-tokens"))
    if tokens_in is not None:
        facts.usage = Usage(input=tokens_in, output=tokens_out)


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    details = mapping(body, "details")
    tokens_out = count(details, "generated_tokens")
    tokens_in = count(details, "input_length", "prompt_tokens")
    if tokens_in is None and (prefill := array(details, "prefill")):
        tokens_in = len(prefill)  # one entry for each token of the prompt, if `decoder_input_details` was requested
    if tokens_out is not None:
        known = facts.usage.input if facts.usage is not None else None
        facts.usage = Usage(input=known if tokens_in is None else tokens_in, output=tokens_out)
    if (reason := text(details, "finish_reason")) is not None:
        facts.finish_reasons = [reason]
    if body.get("error"):
        facts.error_type = text(body, "error_type") or "error"
    facts.complete = True


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    del name  # this format has no event names
    complete = facts.complete
    _read_response(facts, event)
    facts.complete = complete or event.get("generated_text") is not None
    facts.output_seen = facts.output_seen or bool(mapping(event, "token").get("text") or event.get("generated_text"))


DIALECT = Dialect(
    name="huggingface",
    operation="text_completion",
    read_path=_read_path,
    read_request=_read_request,
    read_headers=_read_headers,
    read_response=_read_response,
    read_event=_read_event,
    facts_in=(b'"generated_text":"', b'"error":'),
    text_in=(b'"text":"',),
    document_text_in=(b'"generated_text":"',),
    element_stream=True,  # the serverless API responds with an array of one
    limit_output=limit_at("max_new_tokens", inside=("parameters",)),
)
