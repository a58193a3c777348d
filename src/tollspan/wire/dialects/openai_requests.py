"""The common part of requests in OpenAI's formats: the model, in the body or in the path, limits, and the error format.

Azure names a deployment in the path, Databricks an endpoint, others the model itself. A deployment may have any name,
so it stands in for the model only if the body names none; the served model is in the response.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.errors import REFUSED
from tollspan.wire.dialects.fields import count, mapping, objects, text
from tollspan.wire.dialects.output_limits import with_field
from tollspan.wire.dialects.paths import unescaped

if TYPE_CHECKING:
    from tollspan.model.records import Facts

_IN_PATH: Final = re.compile(
    r"/deployments/(?P<deployment>[^/]+)/"  # Azure
    r"|/engines/(?P<engine>[^/]+)/"  # OpenAI before 2022, and servers that copied it then
    r"|/serving-endpoints/(?P<endpoint>[^/]+)/invocations$"  # Databricks
    r"|/models/(?P<model>[^/]+/[^/]+)/v1/"  # Hugging Face
)


def read_path(facts: Facts, path: str) -> None:
    """Read the deployment, endpoint or model that a path names."""
    facts.stream, model = _named_in(path.partition("?")[0])
    if model is not None:
        facts.request_model = model


@lru_cache(maxsize=256)
def _named_in(path: str) -> tuple[bool, str | None]:
    """Return whether a path requests a stream, and the model that it names; a program calls few paths."""
    match = _IN_PATH.search(path)
    model = unescaped(match[match.lastgroup]) if match is not None and match.lastgroup is not None else None
    return path.endswith("_stream"), model  # watsonx


def read_common(facts: Facts, body: dict[str, Any]) -> None:
    """Read what every request may have: model, streaming, tier."""
    facts.request_model = text(body, "model") or text(body, "model_id") or facts.request_model  # `model_id`: watsonx
    facts.stream = facts.stream or body.get("stream") in (True, "true")  # a form field is text
    facts.request_tier = text(body, "service_tier")


_FURTHER: Final = frozenset(
    {
        "max_completion_tokens", "max_output_tokens", "max_tokens", "n", "previous_response_id", "reasoning",
        "reasoning_effort", "response_format", "text", "tools", "web_search_options",
    }
)  # fmt: skip
"""The keys that `read_generation` reads; many requests have none of them."""


def read_generation(facts: Facts, body: dict[str, Any]) -> None:
    """Read what a request for generated text may have besides: limits, effort, output format, search context."""
    read_common(facts, body)
    if _FURTHER.isdisjoint(body):
        return
    facts.max_output = count(body, "max_completion_tokens", "max_tokens", "max_output_tokens")
    if "n" in body:
        facts.choice_count = count(body, "n")
    if "reasoning_effort" in body or "reasoning" in body:
        facts.reasoning_level = text(body, "reasoning_effort") or text(mapping(body, "reasoning"), "effort")
        facts.thinking_budget = count(mapping(body, "reasoning"), "max_tokens")  # OpenRouter
    if "response_format" in body or "text" in body:
        wanted = mapping(body, "response_format") or mapping(mapping(body, "text"), "format")
        if text(wanted, "type") in {"json_object", "json_schema"}:
            facts.output_type = "json"
    if "previous_response_id" in body:
        facts.previous_response_id = text(body, "previous_response_id")
    if "web_search_options" in body or "tools" in body:
        for options in (mapping(body, "web_search_options"), *objects(body, "tools")):
            facts.search_context = text(options, "search_context_size") or facts.search_context


_REASONING: Final = re.compile(r"(?:^|/)(?:gpt-[5-9]|o\d)")
"""Models that refuse `max_tokens`, at every host (https://platform.openai.com/docs/guides/reasoning)."""
_FIRST: Final = re.compile(r"(?:^|/)gpt-(?:3|4(?!o|\.))")
"""Models that Azure also serves by versions of its API that do not have `max_completion_tokens` yet."""


def limit_output(body: dict[str, Any], limit: int, provider: str, model: str) -> dict[str, Any]:
    """Return a request for chat completions with a limit: OpenAI has renamed its field, most other hosts have not.

    https://platform.openai.com/docs/api-reference/chat/create#chat_create-max_completion_tokens
    """
    renamed = provider == "openai" or (provider.startswith("azure.") and not _FIRST.search(model))
    if renamed or _REASONING.search(model):
        return with_field(body, limit, "max_completion_tokens", "max_tokens")
    return with_field(body, limit, "max_tokens", "max_completion_tokens")


def refuse(text: str) -> dict[str, Any]:
    """Return OpenAI's error object (https://platform.openai.com/docs/guides/error-codes)."""
    return {"error": {"message": text, "type": "insufficient_quota", "param": None, "code": REFUSED}}
