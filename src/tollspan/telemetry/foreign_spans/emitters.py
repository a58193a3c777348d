"""What the spans of other emitters say: whether a span is an inference, and its usage, model and provider.

Everything here reads attributes only. Their names are those of the OpenTelemetry conventions (new and old), of
OpenInference, and of OpenLLMetry (Traceloop), read from the released packages of November 2026. What the attributes do
not show depends on the emitting scope: the table `EMITTERS`.

A roll-up span (an agent, a workflow, a chain) has the sums of its children, which are priced: it is never an inference.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.model.records import Billable, Usage
from tollspan.telemetry import names
from tollspan.telemetry.foreign_spans.langfuse import USAGE_DETAILS, usage_in
from tollspan.wire.dialects.fields import MAX_COUNT, label
from tollspan.wire.providers import bundled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.util.types import AttributeValue

    from tollspan.wire.providers import Provider

    Attributes = Mapping[str, AttributeValue]

SCOPE: Final = "tollspan"
"""Our own instrumentation scope."""


class LateSpan(NamedTuple):
    """An inference span that starts when the response has arrived: by a function of `module`, under this `name`."""

    module: str
    name: str


class Emitter(NamedTuple):
    """An emitter's behavior that its spans do not show.

    Args:
        metrics: the metrics of a call that it records itself, so that tollspan does not record them again.
        exclusive: its `input_tokens` exclude cached tokens, though the conventions include them.
        late_usage: the usage of its streams comes on another span, after the span of the request has ended.
        suppresses: it suppresses other instrumentation under its spans.
        other_threads: it starts spans in other threads than the one that sends, so they are searched in all threads.
        unnamed: the names of its spans that are inferences, though their attributes say so only at their end.
        late: its span that starts when the response has arrived; it records no metrics of those calls.
    """

    metrics: frozenset[str] = frozenset()
    exclusive: bool = False
    late_usage: bool = False
    suppresses: bool = False
    other_threads: bool = False
    unnamed: re.Pattern[str] | None = None
    late: LateSpan | None = None


_TOTALS: Final = frozenset({names.OPERATION_DURATION, names.TOKEN_USAGE})
_OFFICIAL: Final = _TOTALS | {names.OPERATION_FIRST_CHUNK, names.OPERATION_PER_CHUNK}
_GENAI: Final = "opentelemetry.instrumentation.genai."
_BOTOCORE: Final = "opentelemetry.instrumentation.botocore."
_OPENINFERENCE: Final = "openinference."

EMITTERS: Final = (
    (f"{_GENAI}bedrock", Emitter(metrics=_OFFICIAL, exclusive=True)),
    (_GENAI, Emitter(metrics=_OFFICIAL)),
    (f"{_BOTOCORE}bedrock-runtime", Emitter(metrics=_TOTALS, exclusive=True)),
    ("opentelemetry.instrumentation.openai_v2", Emitter(metrics=_TOTALS)),
    (
        "opentelemetry.instrumentation.openai",  # OpenLLMetry, from here
        Emitter(
            metrics=_TOTALS,
            late=LateSpan("opentelemetry.instrumentation.openai.v1.responses_wrappers", "openai.response"),
        ),
    ),
    ("opentelemetry.instrumentation.anthropic", Emitter(metrics=_TOTALS)),
    ("opentelemetry.instrumentation.langchain", Emitter(metrics=_TOTALS)),
    ("pydantic-ai", Emitter(metrics=frozenset({names.TOKEN_USAGE, names.OPERATION_FIRST_CHUNK}))),
    ("com.anthropic.sdk.python", Emitter()),
    ("logfire.", Emitter(late_usage=True, suppresses=True)),
    ("langfuse-sdk", Emitter()),
    # Its spans have the run's name, which is the model's class in LangChain, and their attributes come at the end.
    (
        f"{_OPENINFERENCE}instrumentation.langchain",
        Emitter(other_threads=True, unnamed=re.compile(r"(Azure|Bedrock)?Chat[A-Z]")),
    ),
    (_OPENINFERENCE, Emitter()),
)
"""Known emitters by the beginning of their instrumentation scope; the first match counts."""

UNKNOWN: Final = Emitter()


@cache
def emitter(scope: str) -> Emitter:
    """Return the emitter with this instrumentation scope; `UNKNOWN` if it is not in the table."""
    return next((known for beginning, known in EMITTERS if scope.startswith(beginning)), UNKNOWN)


# --- Is it an inference?

INFERENCES: Final = frozenset(
    {
        "chat", "completion", "text_completion", "generate_content", "embeddings", "rerank", "image_generation",
        "speech", "transcription", "translation",
    }
)  # fmt: skip
"""Values of `gen_ai.operation.name` that are one call of a model. Every other value is a roll-up, or not a call."""

# The attribute of other conventions for it, and its values that mean one call of a model.
_KINDS: Final = (
    ("openinference.span.kind", frozenset({"LLM", "EMBEDDING", "RERANKER"})),
    ("langfuse.observation.type", frozenset({"generation", "embedding"})),
    ("langsmith.span.kind", frozenset({"llm", "embedding"})),
    ("llm.request.type", frozenset({"chat", "completion", "embedding", "rerank"})),
    ("traceloop.span.kind", frozenset[str]()),
)
# OpenInference sets the kind only at the end. Its inferences have one of these from the beginning:
_EARLY: Final = (
    "llm.system", "llm.provider", "llm.model_name", "llm.invocation_parameters", "embedding.invocation_parameters",
)  # fmt: skip


_SIGNS: Final = frozenset({names.OPERATION, names.REQUEST_MODEL, *_EARLY, *(attribute for attribute, _ in _KINDS)})


def attributes_of(span: Any) -> dict[str, AttributeValue]:
    """Return a span's attributes as a plain dictionary: the SDK's mapping raises a KeyError for each missing one."""
    attributes = span.attributes
    if attributes is None:
        return {}
    plain: dict[str, AttributeValue] = attributes.copy() if hasattr(attributes, "copy") else dict(attributes)
    return plain


def scope_of(span: Any) -> str:
    """Return the name of a span's instrumentation scope; "" if it has none."""
    scope = span.instrumentation_scope
    return scope.name if scope is not None else ""


def is_inference(attributes: Attributes, scope: str = "", name: str = "") -> bool:
    """Return whether a span is one call of a model, by its attributes or, if they do not say so yet, by its emitter."""
    if not _SIGNS.isdisjoint(attributes):  # most spans have nothing to do with models: one test is enough for them
        return _says_inference(attributes, scope)
    unnamed = emitter(scope).unnamed
    return unnamed is not None and unnamed.match(name) is not None


def _says_inference(attributes: Attributes, scope: str) -> bool:
    if (operation := attributes.get(names.OPERATION)) is not None:
        return operation in INFERENCES
    for attribute, meant in _KINDS:
        if (kind := attributes.get(attribute)) is not None:
            return kind in meant
    if scope.startswith(_OPENINFERENCE) and any(early in attributes for early in _EARLY):
        return True
    if names.REQUEST_MODEL in attributes:  # before `gen_ai.operation.name` was required
        return any(name in attributes for name in (names.PROVIDER, _OLD_PROVIDER))
    return False


def may_be_inference(span: Any, scope: str) -> bool:
    """Return whether a span that has just started may be an inference: its emitter is known, or it says so."""
    return emitter(scope) is not UNKNOWN or is_inference(attributes_of(span))


# --- Its usage

_OLD_PROVIDER: Final = "gen_ai.system"
_COUNTS: Final = {
    "input": (names.INPUT_TOKENS, "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens", "llm.token_count.prompt"),
    "output": (
        names.OUTPUT_TOKENS, "gen_ai.usage.completion_tokens", "llm.usage.completion_tokens",
        "llm.token_count.completion",
    ),
    "cache_read": (
        names.CACHE_READ_TOKENS, "gen_ai.usage.cache_read_input_tokens", "gen_ai.usage.details.cache_read_tokens",
        "gen_ai.usage.details.cache_read_input_tokens", "llm.token_count.prompt_details.cache_read",
    ),
    "cache_write": (
        names.CACHE_WRITE_TOKENS, "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens", "gen_ai.usage.details.cache_write_tokens",
        "gen_ai.usage.details.cache_creation_input_tokens", "llm.token_count.prompt_details.cache_write",
    ),
    "cache_write_5m": (names.CACHE_WRITE_5M_TOKENS,),
    "cache_write_1h": (names.CACHE_WRITE_1H_TOKENS,),
    "reasoning": (
        names.REASONING_TOKENS, "gen_ai.usage.reasoning_tokens", "gen_ai.usage.details.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
    ),
    "input_audio": (names.AUDIO_INPUT_TOKENS, "llm.token_count.prompt_details.audio"),
    "output_audio": (names.AUDIO_OUTPUT_TOKENS, "llm.token_count.completion_details.audio"),
    "input_image": (names.IMAGE_INPUT_TOKENS,),
    "output_image": (names.IMAGE_OUTPUT_TOKENS,),
}  # fmt: skip
"""Field of `Usage` -> its attributes, the newest name first."""


def usage_of(attributes: Attributes, scope: str = "") -> Usage | None:
    """Return the usage that a span reports, as inclusive counts; None if it reports neither input nor output."""
    counts = {field: _first_count(attributes, carriers) for field, carriers in _COUNTS.items()}
    if counts["input"] is None and counts["output"] is None:
        return usage_in(attributes.get(USAGE_DETAILS))
    if emitter(scope).exclusive and counts["input"] is not None:
        counts["input"] += (counts["cache_read"] or 0) + (counts["cache_write"] or 0)
    known: dict[str, Any] = counts
    return Usage(**known)


def has_counts(attributes: Attributes) -> bool:
    """Return whether a span reports input or output tokens as separate attributes."""
    return any(_first_count(attributes, _COUNTS[field]) is not None for field in ("input", "output"))


def _first_count(attributes: Attributes, carriers: Iterable[str]) -> int | None:
    for carrier in carriers:
        value = attributes.get(carrier)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
            return int(value)
    return None


# --- Its model and provider

_REQUEST_MODELS: Final = (names.REQUEST_MODEL, "llm.request.model_name", "llm.request.model")
_RESPONSE_MODELS: Final = (
    names.RESPONSE_MODEL, "llm.response.model_name", "llm.response.model", "llm.model_name", "embedding.model_name",
    "langfuse.observation.model.name",
)  # fmt: skip
_PROVIDERS: Final = (names.PROVIDER, _OLD_PROVIDER, "llm.provider", "llm.system", "langsmith.metadata.ls_provider")
_TIERS: Final = (
    names.SERVICE_TIER, "openai.response.service_tier", "gen_ai.openai.response.service_tier",
    "anthropic.response.service_tier",
)  # fmt: skip
_RESPONSE_IDS: Final = (names.RESPONSE_ID, "llm.response.id")

# Older or other spellings of `gen_ai.provider.name`.
_SPELLINGS: Final = {
    "aws": "aws.bedrock",
    "aws_bedrock": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "amazon_bedrock": "aws.bedrock",
    "az.ai.openai": "azure.ai.openai",
    "azure": "azure.ai.openai",
    "az.ai.inference": "azure.ai.inference",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "vertex_ai": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "moonshot": "moonshot_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
_KIND_OPERATIONS: Final = {
    "EMBEDDING": "embeddings",
    "embedding": "embeddings",
    "RERANKER": "rerank",
    "rerank": "rerank",
    "completion": "text_completion",
}


def first_text(attributes: Attributes, carriers: Iterable[str]) -> str | None:
    """Return the first of some attributes that is a text and not empty."""
    for carrier in carriers:
        value = attributes.get(carrier)
        if isinstance(value, str) and value:
            return label(value)
    return None


def models_of(attributes: Attributes) -> tuple[str | None, str | None]:
    """Return the requested and the served model, as far as a span names them."""
    return first_text(attributes, _REQUEST_MODELS), first_text(attributes, _RESPONSE_MODELS)


def response_id_of(attributes: Attributes) -> str | None:
    """Return the provider's id of the response, or None."""
    return first_text(attributes, _RESPONSE_IDS)


def provider_of(attributes: Attributes) -> str:
    """Return the provider's name as the conventions spell it now; "unknown" if a span has none."""
    name = (first_text(attributes, _PROVIDERS) or "unknown").lower()
    return _SPELLINGS.get(name, name)


def operation_of(attributes: Attributes) -> str:
    """Return the name of the operation, by any of the conventions."""
    if (operation := first_text(attributes, (names.OPERATION,))) is not None:
        return operation
    kind = first_text(attributes, (attribute for attribute, _ in _KINDS))
    return _KIND_OPERATIONS.get(kind or "", "chat")


def billable_of(attributes: Attributes, scope: str = "") -> Billable | None:
    """Return what the price engine needs to know of a span, or None if the span reports no usage."""
    usage = usage_of(attributes, scope)
    if usage is None:
        return None
    requested, served = models_of(attributes)
    provider = _priced_as().get(provider_of(attributes))
    return Billable(
        usage=usage,
        price_providers=provider.labels if provider is not None else _vendors(attributes),
        model=served,
        request_model=requested,
        operation=operation_of(attributes),
        tier=first_text(attributes, _TIERS),
        region=first_text(attributes, ("cloud.region", "aws.region")) or _region(provider, attributes),
    )


_VENDORS: Final = ("openai", "anthropic", "gemini", "mistral", "cohere", "deepseek", "xai")


def _vendors(attributes: Attributes) -> tuple[str, ...]:
    """Return the labels of the prices to use if a span has no provider, as Langfuse's: those of model vendors."""
    if first_text(attributes, _PROVIDERS) is not None:
        return ()
    return tuple(label for key in _VENDORS if (vendor := bundled().get(key)) is not None for label in vendor.labels)


@cache
def _priced_as() -> dict[str, Provider]:
    """Return the bundled providers by the conventions' name; of several, the one with the shortest key."""
    by_name: dict[str, Provider] = {}
    for provider in sorted(bundled().values(), key=lambda provider: len(provider.key)):
        if provider.prices:
            by_name.setdefault(provider.name, provider)
    return by_name


def _region(provider: Provider | None, attributes: Attributes) -> str | None:
    host = first_text(attributes, (names.SERVER_ADDRESS,))
    if provider is None or provider.region is None or host is None:
        return None
    match = provider.region.search(host)
    return match["region"] if match is not None else None
