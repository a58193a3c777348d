"""Provider batches on the wire: `batches_of(body)` reads their objects, `result_of(line, ...)` one of their results.

A provider works on a batch of requests in its own time, for half the price. Its object states the progress:

- OpenAI (and Azure, Groq...): `{"object": "batch"}`; results are the lines of an output file and of an error file.
  https://platform.openai.com/docs/api-reference/batch
- Anthropic: `{"type": "message_batch"}`; results are the lines of one download.
  https://docs.anthropic.com/en/api/retrieving-message-batch-results
- Mistral: `{"object": "batch"}` too, with other names for files, counts and states.
  https://docs.mistral.ai/api/endpoint/batch
- Gemini: a long-running operation named `batches/...`; results are inside it, or the lines of a file.
  https://ai.google.dev/api/batch-api

A result holds the response that its request alone would have got, so the dialects read it. The tier is always `batch`,
even if the response states another: OpenAI's state `default`. Pure; never raises on unexpected input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import Facts, Usage
from tollspan.wire.batch_requests import TIER, dialect_at
from tollspan.wire.dialects import load
from tollspan.wire.dialects.fields import NAMELESS, count, digits, error_type, mapping, objects, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tollspan.wire.dialects.dialect import Json

_ERROR: Final = 400  # the first HTTP status that is an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The state of a provider's batch.

    Attributes:
        id: its name at the provider.
        dialect: the format of its requests; it also identifies the provider if the host does not.
        requests: their number, if it is stated.
        model: the model of its requests, if it is stated.
        results: the ids that its results are fetched by: those of files, or its own.
        errors: of these, the file of the requests that failed.
        final: whether the provider works on it no more.
        completed: how many requests have a response that is billed, if that is stated.
        ended: why there will be no results, in one word; None while there may be.
        inlined: results in the object itself.
    """

    id: str
    dialect: str
    requests: int | None = None
    model: str | None = None
    results: tuple[str, ...] = ()
    errors: str | None = None
    final: bool = False
    completed: int | None = None
    ended: str | None = None
    inlined: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one request.

    Attributes:
        key: identifies the result in its batch.
        facts: those of its response; None if there is no response, because of `error`, or if it is free of charge.
        status: the HTTP status, if it is stated.
        error: the error's code or type.
    """

    key: str
    facts: Facts | None = None
    status: int | None = None
    error: str | None = None


def batches_of(body: Any) -> Iterator[Batch]:
    """Return the batches in a response: the one that was requested, or those of a list."""
    for item in (body, *objects(body, "data"), *objects(body, "operations")):
        if type(item) is not dict:
            continue
        batch = _openai_batch(item) or _anthropic_batch(item) or _gemini_batch(item)
        if batch is not None:
            yield batch


_FAILED: Final = frozenset({"failed", "expired", "cancelled", "timeout_exceeded"})
_FINAL: Final = _FAILED | {"completed", "success"}
"""The states of OpenAI's batches and, in lower case, of Mistral's."""


def _openai_batch(body: Json) -> Batch | None:
    """Return OpenAI's batch, or Mistral's."""
    name = text(body, "id")
    if body.get("object") != "batch" or name is None:
        return None
    output, errors = (text(body, f"{file}_file_id") or text(body, f"{file}_file") for file in ("output", "error"))
    files = tuple(file for file in (output, errors) if file)
    status, counts = (text(body, "status") or "").lower(), mapping(body, "request_counts")
    total, completed = count(counts, "total"), count(counts, "completed")
    completed = count(body, "succeeded_requests") if completed is None else completed
    return Batch(
        id=name,
        dialect=dialect_at(text(body, "endpoint")),
        requests=total or count(body, "total_requests") or None,  # 0 until the input file was read
        model=text(body, "model"),
        results=files,
        errors=errors,
        final=status in _FINAL,
        completed=completed or (None if output else completed),  # 0 beside a file of results is not a count yet
        ended=status if status in _FAILED and not files else None,
    )


def _anthropic_batch(body: Json) -> Batch | None:
    name = text(body, "id")
    if body.get("type") != "message_batch" or name is None:
        return None
    counts = mapping(body, "request_counts")
    total = sum(count(counts, key) or 0 for key in counts)
    ended = body.get("processing_status") == "ended"
    return Batch(
        id=name,
        dialect="anthropic",
        requests=total or None,
        results=(name,),
        final=ended,
        completed=count(counts, "succeeded") if ended and not count(counts, "processing") else None,
    )


def _gemini_batch(body: Json) -> Batch | None:
    name, metadata = text(body, "name"), mapping(body, "metadata")
    if name is None or not name.startswith("batches/") or not metadata:
        return None
    outputs = [mapping(body, "response"), mapping(metadata, "output")]
    file = next((file for output in outputs if (file := text(output, "responsesFile"))), None)
    inlined = next((lines for output in outputs if (lines := _inlined(output))), [])
    state = (text(metadata, "state") or "").rpartition("_")[2].lower()
    failed = state in {"failed", "cancelled", "expired"} and file is None and not inlined
    stated = mapping(metadata, "batchStats")
    total = digits(text(stated, "requestCount") or "")  # a 64-bit integer is text on this wire
    completed = digits(text(stated, "successfulRequestCount") or "")
    return Batch(
        id=name,
        dialect="gemini_embeddings" if "Embed" in (text(metadata, "@type") or "") else "gemini",
        requests=count(stated, "requestCount") if total is None else total,
        model=(text(metadata, "model") or "").removeprefix("models/") or None,
        results=() if file is None else (file.removeprefix("files/"),),
        final=state in {"succeeded", "failed", "cancelled", "expired"},
        completed=count(stated, "successfulRequestCount") if completed is None else completed,
        ended=state if failed else None,
        inlined=tuple(inlined),
    )


def _inlined(output: Json) -> list[Json]:
    for key in ("inlinedResponses", "inlinedEmbedContentResponses"):
        if results := objects(mapping(output, key), "inlinedResponses"):
            return results
    return []


def result_of(line: Any, number: int, *, gemini: bool = False) -> Result | None:
    """Return the result in a line, or None if there is none, as in any other file.

    Args:
        line: the JSON value of the line.
        number: its position, from 0: Gemini's results come in the order of the requests, and may have no name.
        gemini: whether it comes from Gemini; the other formats are recognized by their keys.
    """
    if type(line) is not dict:
        return None
    if gemini:
        return _gemini_result(line, number)
    name = text(line, "custom_id")
    if name is None:
        return None
    result = mapping(line, "result")
    if result.get("type") in {"succeeded", "errored", "canceled", "expired"}:
        return _anthropic_result(name, result)
    response = mapping(line, "response")
    if "status_code" in response or mapping(line, "error"):
        return _openai_result(name, response, line)
    return None


def _anthropic_result(name: str, result: Json) -> Result:
    if result["type"] == "succeeded":
        return Result(name, _read("anthropic", mapping(result, "message")), 200)
    return Result(name, error=error_type(mapping(result, "error")) or str(result["type"]))


_OBJECTS: Final = {
    "chat.completion": "openai_chat",
    "list": "openai_embeddings",
    "response": "openai_responses",
    "text_completion": "openai_completions",
}
"""The `object` of a response, and its format."""


def _openai_result(name: str, response: Json, line: Json) -> Result:
    status, body = count(response, "status_code"), mapping(response, "body")
    if status is None or status >= _ERROR or mapping(line, "error"):
        return Result(name, status=status, error=error_type(body) or error_type(line) or str(status or NAMELESS))
    dialect = _OBJECTS.get(text(body, "object") or "") or ("openai_images" if "usage" in body else None)
    return Result(name, None if dialect is None else _read(dialect, body), status)  # moderation is free


def _gemini_result(line: Json, number: int) -> Result | None:
    if (error := mapping(line, "error")) and not mapping(line, "response"):
        return Result(str(number), error=text(error, "status") or str(count(error, "code") or NAMELESS))
    body = mapping(line, "response") or line
    if "embedding" in body or "tokenCount" in body:
        facts = _read("gemini_embeddings", body)
        if facts.usage is None and (tokens := count(body, "tokenCount")) is not None:
            facts.usage = Usage(input=tokens)
        return Result(str(number), facts, 200)
    if not ("candidates" in body or "usageMetadata" in body):
        return None
    return Result(str(number), _read("gemini", body), 200)


def _read(dialect: str, body: Json) -> Facts:
    reader = load(dialect)
    facts = Facts(reader.operation)
    reader.read_response(facts, body)
    facts.tier = TIER
    return facts
