"""Amazon Bedrock's InvokeModel and InvokeModelWithResponseStream: each maker's own format in one envelope.

Request and response: the maker's JSON. The model is in the path, perhaps only as the ARN of a profile, so bodies are
told apart by their shape and not by the model's name. Stream: an AWS event stream whose frames hold the maker's events
as base64 in `bytes`. The usage is where the maker puts it, else in the `x-amzn-bedrock-*-token-count` headers (plain)
or in `amazon-bedrock-invocationMetrics` of the last event (stream).
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
"""

from __future__ import annotations

import json
from binascii import Error as Base64Error
from binascii import a2b_base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tollspan.model.records import Facts, Usage
from tollspan.wire.dialects import anthropic_tokens, bedrock_tokens, openai_tokens
from tollspan.wire.dialects.bedrock_tokens import error_name, read_headers, read_path, refuse
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.dialects.fields import array, count, mapping, objects, plus, text

if TYPE_CHECKING:
    from collections.abc import Iterator

_METRICS = "amazon-bedrock-invocationMetrics"
_MAX_OUTPUT = (
    "max_tokens",
    "max_completion_tokens",
    "max_gen_len",
    "maxTokenCount",
    "max_tokens_to_sample",
    "maxTokens",
)
_REASONS = ("stop_reason", "finish_reason", "completionReason", "stopReason")


def _read_path(facts: Facts, path: str) -> None:
    read_path(facts, path)
    if "embed" in (facts.request_model or ""):
        facts.operation = "embeddings"


def _read_request(facts: Facts, body: dict[str, Any]) -> None:
    settings = (body, mapping(body, "inferenceConfig"), mapping(body, "textGenerationConfig"))
    facts.max_output = next((most for part in settings if (most := count(part, *_MAX_OUTPUT)) is not None), None)
    facts.request_tier = text(body, "service_tier")
    facts.speed = text(body, "speed")


def _read_response(facts: Facts, body: dict[str, Any]) -> None:
    _read_document(facts, body)
    facts.complete = True


def _read_document(facts: Facts, body: dict[str, Any]) -> None:
    """Read a plain response, or one event of a stream, of any maker."""
    message = mapping(body, "message")
    facts.response_id = text(message, "id") or text(body, "id") or facts.response_id
    facts.response_model = text(message, "model") or text(body, "model") or facts.response_model
    facts.finish_reasons = _reasons(body) or facts.finish_reasons
    if _blocked(body):
        facts.finish_reasons, facts.complete = ["guardrail_intervened"], True
        facts.usage = Usage(input=0, output=0)
    else:
        _read_usage(facts, body)
    if body.get("type") == "error" or body.get("error"):
        facts.error_type = text(mapping(body, "error"), "type") or "error"


def _blocked(body: dict[str, Any]) -> bool:
    """Return whether a guardrail blocked the prompt: then the model is not called, nor billed, whatever is counted.

    https://docs.aws.amazon.com/bedrock/latest/userguide/guardrails-how.html
    """
    traced = mapping(mapping(body, "amazon-bedrock-trace"), "guardrail")
    return (
        body.get("amazon-bedrock-guardrailAction") == "INTERVENED"
        and "input" in traced
        and not traced.keys() & {"modelOutput", "outputs"}
        and _METRICS not in body
    )


def _reasons(body: dict[str, Any]) -> list[str]:
    reasons = (text(part, key) for part in _parts(body) for key in _REASONS)
    return [reason for reason in reasons if reason is not None]


def _parts(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the objects in which makers state the finish reason: the body itself, or its results."""
    yield body
    for key in ("delta", "message", "messageStop"):
        yield mapping(body, key)
    for key in ("choices", "results", "outputs", "generations"):
        yield from objects(body, key)
    for completion in objects(body, "completions"):
        yield {"stop_reason": text(mapping(completion, "finishReason"), "reason")}


def _read_usage(facts: Facts, body: dict[str, Any]) -> None:
    stated = (
        mapping(body, "usage")
        or mapping(mapping(body, "message"), "usage")
        or mapping(mapping(body, "metadata"), "usage")
    )
    # OpenAI's older names are unambiguous, and looked for first; the newer ones (`input_tokens`) are Anthropic's here.
    if "prompt_tokens" in stated or "completion_tokens" in stated:
        facts.usage = openai_tokens.read_usage(stated) or facts.usage
    elif "inputTokens" in stated:
        facts.usage = bedrock_tokens.read_usage(stated) or facts.usage
    elif stated:
        anthropic_tokens.read_cumulative(facts, stated)
    else:
        facts.usage = _filled(_read_counts(body), facts.usage, bedrock_tokens.read_metrics(mapping(body, _METRICS)))


def _read_counts(body: dict[str, Any]) -> Usage | None:
    """Read counts in the body itself: Titan (text, embeddings) and Llama; images are counted by the piece."""
    tokens_in = count(body, "inputTextTokenCount", "prompt_token_count")
    tokens_out = count(body, "generation_token_count", "totalOutputTextTokenCount")
    if tokens_out is None:
        tokens_out = plus(*(count(result, "tokenCount") for result in objects(body, "results")))
    images = sum(type(image) is str for image in array(body, "images"))
    if tokens_in is None and tokens_out is None and not images:
        return None
    return Usage(input=tokens_in, output=tokens_out, units={"output_images": images} if images else {})


def _filled(*usages: Usage | None) -> Usage | None:
    """Return the first usage, its unknown counts filled in from the others: events may count only one side each."""
    known = [usage for usage in usages if usage is not None]
    if not known:
        return None
    tokens_in = next((usage.input for usage in known if usage.input is not None), None)
    tokens_out = next((usage.output for usage in known if usage.output is not None), None)
    return replace(known[0], input=tokens_in, output=tokens_out)


def _read_event(facts: Facts, name: str, event: dict[str, Any]) -> None:
    if (error := error_name(name)) is not None:
        facts.error_type = error
        return
    _read_document(facts, event)
    facts.output_seen = facts.output_seen or _carries_output(event)
    # The service ends every stream with its metrics; Anthropic's own last event has them.
    facts.complete = facts.complete or _METRICS in event or _completes(event)


def _completes(event: dict[str, Any]) -> bool:
    """Return whether an event completes one of Anthropic's messages."""
    kind = event.get("type")
    return kind == "message_stop" or (kind == "message_delta" and anthropic_tokens.is_last_delta(event))


def _unwrap(payload: bytes) -> bytes:
    """Return the model's own event from a frame's `bytes`; an exception's frame has none and is returned unchanged."""
    try:
        return a2b_base64(json.loads(payload)["bytes"]) or payload
    except (Base64Error, KeyError, TypeError, ValueError, RecursionError):
        return payload


def _outputs(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the objects in which makers put a piece of output."""
    yield body
    for key in ("delta", "content_block"):
        yield mapping(body, key)
    yield mapping(mapping(body, "contentBlockDelta"), "delta")
    yield mapping(mapping(body, "contentBlockStart"), "start")
    yield from objects(body, "outputs")
    for choice in objects(body, "choices"):
        yield mapping(choice, "delta") or mapping(choice, "message") or choice


# Text: Anthropic (old and new), Cohere, Mistral, Nova, Titan, Llama, and those that speak OpenAI's format.
_TEXTS = ("text", "thinking", "partial_json", "completion", "outputText", "generation", "content", "reasoning_content")
_TOOLS = ("name", "toolUse", "tool_calls", "reasoningContent", "reasoning")


def _carries_output(body: dict[str, Any]) -> bool:
    return any(part.get(key) for part in _outputs(body) for key in _TEXTS + _TOOLS)


DIALECT = Dialect(
    name="bedrock_invoke",
    read_path=_read_path,
    read_request=_read_request,
    read_headers=read_headers,
    read_response=_read_response,
    read_event=_read_event,
    unwrap=_unwrap,
    # Events are base64: the frames cannot be searched for facts, so all are parsed.
    text_in=tuple(f'"{key}":"'.encode() for key in _TEXTS),
    document_text_in=(b'"arguments":"', b'"reasoning":"', b'"refusal":"'),
    refuse=refuse,
)
