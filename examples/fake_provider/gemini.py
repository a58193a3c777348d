"""Gemini's wire: `generateContent` and `streamGenerateContent`, the latter as events or as one JSON array."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from examples.fake_provider.exchange import Answer, Ask, Frame, Json, Refusal, data, dump, stream, whole
from examples.fake_provider.generation import (
    PER_MESSAGE,
    THOUGHTS,
    Draft,
    Memory,
    ToolCall,
    call_of,
    draft,
    text_of,
    thought,
    tokens,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.fake_provider.prices import Bill

STATUSES: Final = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
PIECES_A_CHUNK: Final = 8
"""Gemini streams by the sentence, not by the token."""


def error(refusal: Refusal) -> Json:
    """Word an error as Gemini does."""
    status = STATUSES.get(refusal.status, "UNAVAILABLE" if refusal.status == 503 else "INTERNAL")  # noqa: PLR2004
    return {"error": {"code": refusal.status, "message": refusal.message, "status": status}}


def error_event(refusal: Refusal) -> Frame:
    """Word an error in the middle of a stream."""
    return data(error(refusal))


def generate(ask: Ask, memory: Memory) -> Answer:
    """Answer `POST /v1beta/models/NAME:generateContent` and `:streamGenerateContent`."""
    contents = ask.body.get("contents")
    if not contents:
        raise Refusal(400, "INVALID_ARGUMENT", "* GenerateContentRequest.contents: contents is not specified")
    config = ask.body.get("generationConfig") or {}
    tools = [function for tool in ask.body.get("tools") or () for function in tool.get("functionDeclarations") or ()]
    offered = [(tool["name"], tool.get("parameters") or tool.get("parametersJsonSchema") or {}) for tool in tools]
    texts = [*map(str, tools), *map(_text, [ask.body.get("systemInstruction") or {}, *contents])]
    answered = any("functionResponse" in part for part in contents[-1]["parts"])
    wanted = config.get("thinkingConfig") or {}
    # Google's own SDK sends the proto's name of this field, others the JSON name; both are understood.
    thinking = thought(budget=wanted.get("thinkingBudget") or wanted.get("thinking_budget") or 0)
    limit = config.get("maxOutputTokens")
    made = draft(ask, texts[-1], thinking=thinking, limit=limit, call=None if answered else call_of(offered, None))
    bill = _bill(ask, memory, [text for text in texts if text], made)
    chunks = _chunks(ask, made, bill)
    if not ask.streaming:
        return whole(_document(ask, _shown(made), bill, made), bill)
    if ask.headers["x-fake-alt"] == "sse":
        return stream((data(chunk, sent) for chunk, sent in chunks), bill)
    return Answer(frames=list(_array(chunks)), bill=bill, streamed=True)


def _bill(ask: Ask, memory: Memory, texts: list[str], made: Draft) -> Bill:
    """Make the bill of a prompt that is cached without being asked to."""
    size = ask.wish("input") or sum(PER_MESSAGE + tokens(text) for text in texts)
    read, _ = memory.prefix(ask.served, "\n".join(texts), size)
    read = min(ask.wish("cached") or read, size)
    return replace(ask.bill(), input=size, output=made.output, cache_read=read, reasoning=made.thinking)


def _text(content: Json) -> str:
    """Return the text of a content's parts."""
    return text_of(content.get("parts") or [])


def _shown(made: Draft) -> list[Json]:
    """Return the parts of the reply."""
    if made.call:
        return [_called(made.call)]
    return [{"text": made.text}]


def _called(call: ToolCall) -> Json:
    """Write the call of a function."""
    return {"functionCall": {"name": call.name, "args": call.values}}


def _chunks(ask: Ask, made: Draft, bill: Bill) -> Iterator[tuple[Json, int]]:
    """Return the chunks of a stream, each with the output tokens so far; every one has the usage so far."""
    sent = made.thinking
    if made.thinking:
        yield _document(ask, [{"text": "".join(THOUGHTS), "thought": True}], replace(bill, output=sent), None), sent
    for at in range(0, len(made.pieces), PIECES_A_CHUNK):
        some = made.pieces[at : at + PIECES_A_CHUNK]
        sent += len(some)
        last = sent == bill.output
        part = {"text": "".join(some)}
        yield _document(ask, [part], replace(bill, output=sent), made if last else None), sent
    if not made.pieces:
        yield _document(ask, _shown(made), bill, made), bill.output


def _document(ask: Ask, parts: list[Json], bill: Bill, done: Draft | None) -> Json:
    """Write a whole answer or a chunk of one. Thoughts are counted beside the candidates, not among them."""
    candidate: Json = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if done:
        candidate["finishReason"] = "MAX_TOKENS" if done.cut else "STOP"
    usage = {
        "promptTokenCount": bill.input,
        "candidatesTokenCount": bill.output - bill.reasoning,
        "totalTokenCount": bill.input + bill.output,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": bill.input}],
    }
    if bill.reasoning:
        usage["thoughtsTokenCount"] = bill.reasoning
    if bill.cache_read:
        usage["cachedContentTokenCount"] = bill.cache_read
        usage["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": bill.cache_read}]
    made = {"modelVersion": ask.served, "responseId": f"fake{ask.serial:08d}"}
    return {"candidates": [candidate], "usageMetadata": usage, **made}


def _array(chunks: Iterator[tuple[Json, int]]) -> Iterator[Frame]:
    """Write a stream as one JSON array, as is done without `alt=sse`."""
    opening = b"["
    sent = 0
    for chunk, sent in chunks:
        yield Frame(opening + dump(chunk), sent)
        opening = b",\r\n"
    yield Frame(b"]", sent)
