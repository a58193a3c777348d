"""Embeddings: OpenAI's format, which Mistral, Voyage, Jina, vLLM and others speak.

Request: `model`, `input`. Response: the vectors in `data`, and `usage`: only input is billed. Voyage states
`total_tokens` alone; a gateway may state the cost. There are no streams.
https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import error_type, mapping, text
from tollspan.wire.dialects.openai_requests import read_common, read_path, refuse
from tollspan.wire.dialects.openai_tokens import read_gateway_cost, read_input_usage, read_stated_cost

if TYPE_CHECKING:
    from tollspan.model.records import Facts


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    body = mapping(body, "result") or body  # Cloudflare wraps everything in `result`
    facts.response_id = text(body, "id")
    facts.response_model = text(body, "model")
    facts.error_type = error_type(body)
    stated = mapping(body, "usage")
    facts.usage = read_input_usage(stated)
    read_stated_cost(facts, stated)
    read_gateway_cost(facts, body)
    facts.complete = True


DIALECT = Dialect(
    name="openai_embeddings",
    operation="embeddings",
    read_request=read_common,
    read_response=_read_response,
    read_path=read_path,
    refuse=refuse,
    bulk=b"data",
)
