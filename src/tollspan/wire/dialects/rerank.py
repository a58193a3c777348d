"""Reranking of documents: the format of Jina, Voyage, llama.cpp, vLLM and Cohere.

Request: `model`, `query`, `documents`. Response: the usage object states `total_tokens` alone, or prompt tokens, too;
Cohere states `meta.billed_units`, of which the search units are billed.
https://docs.voyageai.com/reference/reranker-api, https://docs.cohere.com/reference/rerank
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tollspan.model.records import Usage
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import count, error_type, mapping, number, text
from tollspan.wire.dialects.openai_requests import read_common, read_path
from tollspan.wire.dialects.openai_tokens import read_input_usage, read_stated_cost

if TYPE_CHECKING:
    from tollspan.model.records import Facts


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    facts.response_id = text(body, "id")
    facts.response_model = text(body, "model")
    facts.error_type = error_type(body)
    stated = mapping(body, "usage")
    facts.usage = read_input_usage(stated) or _read_billed(mapping(mapping(body, "meta"), "billed_units"))
    read_stated_cost(facts, stated)
    facts.complete = True


def _read_billed(billed: dict[str, Any]) -> Usage | None:
    units = number(billed, "search_units")
    if units is None:
        return None
    return Usage(input=count(billed, "input_tokens"), units={"search_units": units})


DIALECT = Dialect(
    name="rerank",
    operation="rerank",
    read_request=read_common,
    read_response=_read_response,
    read_path=read_path,
)
