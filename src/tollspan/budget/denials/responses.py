"""What an application gets in the place of a provider's answer, in that provider's own format.

    error(dialect, text)                      a body for HTTP 402, from which each SDK makes its own error
    reply(dialect, text, ...)                 a normal answer whose text says what happened, plain or streamed; usage is
    zero ending(dialect, facts, ...)               the last events of a stream that is cut, with the finish reason for
    length

Formats without an answer in text (embeddings, images...) have no reply, and those of streams that we cannot end cleanly
no ending: then None is given, and the call is refused instead.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.denials.denial import ERROR_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Json = dict[str, Any]

STATUS: Final = 402
_OPENAI: Final = ("openai", "rerank")


def error(dialect: str, text: str) -> bytes:
    """Return the body of a refusal: an error object as the provider would send it."""
    for start, form in _ERRORS.items():
        if dialect.startswith(start):
            return _dump(form(text))
    # Unknown formats: an error object, as most have it, with the text where others look for it.
    return _dump({"error": _openai_error(text)["error"], "message": text})


def _openai_error(text: str) -> Json:
    return {"error": {"message": text, "type": "insufficient_quota", "param": None, "code": ERROR_TYPE}}


def _gemini_error(text: str) -> Json:
    return {"error": {"code": STATUS, "message": text, "status": "RESOURCE_EXHAUSTED"}}


_ERRORS: Final[Mapping[str, Callable[[str], Json]]] = {
    "openai": _openai_error,
    "anthropic": lambda text: {"type": "error", "error": {"type": "billing_error", "message": text}},
    "gemini": _gemini_error,
    "vertex": _gemini_error,
    "ollama": lambda text: {"error": text},
    "cohere": lambda text: {"message": text},
    "bedrock": lambda text: {"message": text},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a reply has to look like. `now` is in Unix seconds; `sse`: a Gemini stream as events, else as an array."""

    id: str
    model: str
    stream: bool
    now: int
    sse: bool = False
    usage_chunk: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A body and its content type."""

    content_type: str
    body: bytes


_EVENTS: Final = "text/event-stream"
_JSON: Final = "application/json"


def reply(dialect: str, text: str, wanted: Wanted) -> Answer | None:
    """Return a normal answer that says `text`; None where the format has no such thing."""
    form = _REPLIES.get(dialect)
    return None if form is None else form(text, wanted)


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _plain(value: Json) -> Answer:
    return Answer(_JSON, _dump(value))


def _data(events: Iterable[object], *last: bytes) -> bytes:
    return b"".join([b"data: " + _dump(event) + b"\n\n" for event in events] + list(last))


def _named(events: Iterable[Json]) -> bytes:
    return b"".join(b"event: " + event["type"].encode() + b"\ndata: " + _dump(event) + b"\n\n" for event in events)


DONE: Final = b"data: [DONE]\n\n"


def _openai_chat(text: str, wanted: Wanted) -> Answer:
    head = {"id": f"chatcmpl-{wanted.id}", "created": wanted.now, "model": wanted.model}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    if not wanted.stream:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return _plain({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    head["object"] = "chat.completion.chunk"
    deltas: list[tuple[Json, str | None]] = [({"role": "assistant", "content": text}, None), ({}, "stop")]
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
    if wanted.usage_chunk:
        chunks.append({**head, "choices": [], "usage": usage})
    return Answer(_EVENTS, _data(chunks, DONE))


def _openai_completions(text: str, wanted: Wanted) -> Answer:
    head = {"id": f"cmpl-{wanted.id}", "object": "text_completion", "created": wanted.now, "model": wanted.model}
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}
    if wanted.stream:
        return Answer(_EVENTS, _data([{**head, "choices": [choice]}], DONE))
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return _plain({**head, "choices": [choice], "usage": usage})


def _openai_responses(text: str, wanted: Wanted) -> Answer:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": f"msg_{wanted.id}", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    whole = {
        "id": f"resp_{wanted.id}",
        "object": "response",
        "created_at": wanted.now,
        "model": wanted.model,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "output": [item],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": {
            "input_tokens": 0,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 0,
        },
    }
    if not wanted.stream:
        return _plain(whole)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **at, "delta": text, "logprobs": []},
        {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return Answer(_EVENTS, _named({**event, "sequence_number": number} for number, event in enumerate(events)))


def _anthropic(text: str, wanted: Wanted) -> Answer:
    usage = {"input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    whole = {
        "id": f"msg_{wanted.id}",
        "type": "message",
        "role": "assistant",
        "model": wanted.model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }
    if not wanted.stream:
        return _plain(whole)
    events: list[Json] = [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 0},
        },
        {"type": "message_stop"},
    ]
    return Answer(_EVENTS, _named(events))


def _gemini(text: str, wanted: Wanted) -> Answer:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}
    whole = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": wanted.model, "responseId": wanted.id}
    if not wanted.stream:
        return _plain(whole)
    return Answer(_EVENTS, _data([whole])) if wanted.sse else Answer(_JSON, _dump([whole]))


def _cohere(text: str, wanted: Wanted) -> Answer:
    usage = {"billed_units": {"input_tokens": 0, "output_tokens": 0}, "tokens": {"input_tokens": 0, "output_tokens": 0}}
    content = [{"type": "text", "text": text}]
    if not wanted.stream:
        message = {"role": "assistant", "content": content}
        return _plain({"id": wanted.id, "finish_reason": "COMPLETE", "message": message, "usage": usage})
    begun = {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}}
    events: list[Json] = [
        {"type": "message-start", "id": wanted.id, "delta": begun},
        {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}},
        {"type": "content-end", "index": 0},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}},
    ]
    return Answer(_EVENTS, _named(events))


def _ollama(text: str, wanted: Wanted) -> Answer:
    message = {"role": "assistant", "content": text}
    ended = {"done": True, "done_reason": "stop", "total_duration": 0, "prompt_eval_count": 0, "eval_count": 0}
    head = {"model": wanted.model, "created_at": "1970-01-01T00:00:00Z", "message": message, "response": text}
    body = _dump({**head, **ended})
    return Answer("application/x-ndjson", body + b"\n") if wanted.stream else Answer(_JSON, body)


def _converse(text: str, wanted: Wanted) -> Answer | None:
    if wanted.stream:
        return None  # a binary stream
    output = {"message": {"role": "assistant", "content": [{"text": text}]}}
    usage = {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}
    return _plain({"output": output, "stopReason": "end_turn", "usage": usage, "metrics": {"latencyMs": 0}})


_REPLIES: Final[Mapping[str, Callable[[str, Wanted], Answer | None]]] = {
    "openai_chat": _openai_chat,
    "openai_completions": _openai_completions,
    "openai_responses": _openai_responses,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "cohere": _cohere,
    "ollama": _ollama,
    "bedrock_converse": _converse,
}


# Cutting a stream


class Ending:
    """Ends a stream that is cut: given each piece as it passes, knows where events end and what has to be closed.

    `pass_on(piece)` gives the part of a piece up to its last whole event and keeps the rest; `note(events)` remembers
    what passed, and raises ValueError where that is not what the format has; `last()` gives the events that close the
    stream. Only whole events are ever passed on, so that the closing ones stand by themselves.
    """

    def __init__(self, dialect: str, wanted: Wanted) -> None:
        """Prepare to end a stream of `dialect`, which `cuttable` has to be true of."""
        self._wanted = wanted
        self._dialect = dialect
        self._kept = b""
        self._seen: Json = {}
        self._open_blocks: list[int] = []
        self._sequence = 0
        self.ended = False

    def pass_on(self, piece: bytes) -> bytes:
        """Return what may be handed over now."""
        data = self._kept + piece
        end = max(
            data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0, data.rfind(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else 0
        )
        self._kept = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """Return what was kept: the stream ended by itself."""
        rest, self._kept = self._kept, b""
        return rest

    def note(self, data: bytes) -> None:
        """Remember what the closing events have to repeat."""
        if not data:
            return
        self.ended = self.ended or any(mark in data for mark in _ENDED[self._dialect])
        for line in data.splitlines():
            if line.startswith(b"data:") and line[5:].strip().startswith(b"{"):
                if self._dialect == "anthropic":
                    self._note_block(line[5:])
                elif not self._seen or self._dialect == "openai_responses":
                    self._note_first(line[5:])

    def _note_block(self, data: bytes) -> None:
        """Remember which content blocks are open."""
        if b'"content_block_st' not in data:
            return
        event = json.loads(data)
        if event.get("type") == "content_block_start":
            self._open_blocks.append(event.get("index", 0))
        elif event.get("index") in self._open_blocks:
            self._open_blocks.remove(event["index"])

    def _note_first(self, data: bytes) -> None:
        """Remember the first event, whose fields the last one repeats, and the number of the latest."""
        event = json.loads(data)
        self._sequence = event.get("sequence_number", self._sequence)
        if not self._seen:
            self._seen = event.get("response", event)

    def last(self, output_tokens: int) -> bytes:
        """Return the events that end the stream with the finish reason for length."""
        return _LAST[self._dialect](self, output_tokens)

    def _last_chat(self, _: int) -> bytes:
        head: Json = {
            key: self._seen[key]
            for key in ("id", "object", "created", "model", "system_fingerprint")
            if key in self._seen
        }
        delta: Json = {"delta": {}} if self._dialect == "openai_chat" else {"text": ""}
        choice: Json = {"index": 0, **delta, "finish_reason": "length"}
        chunk: Json = {**head, "choices": [choice]}
        return _data([chunk], DONE)

    def _last_responses(self, output_tokens: int) -> bytes:
        usage = {
            "input_tokens": 0,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": output_tokens,
        }
        whole = {
            **self._seen,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "usage": usage,
        }
        return _named([{"type": "response.incomplete", "sequence_number": self._sequence + 1, "response": whole}])

    def _last_anthropic(self, output_tokens: int) -> bytes:
        events: list[Json] = [{"type": "content_block_stop", "index": index} for index in self._open_blocks]
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": output_tokens}})
        return _named([*events, {"type": "message_stop"}])

    def _last_gemini(self, _: int) -> bytes:
        head: Json = {key: self._seen[key] for key in ("modelVersion", "responseId") if key in self._seen}
        candidate = {"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "MAX_TOKENS", "index": 0}
        chunk: Json = {"candidates": [candidate], **head}
        return _data([chunk])


_LAST: Final[dict[str, Callable[[Ending, int], bytes]]] = {
    "openai_chat": Ending._last_chat,  # noqa: SLF001 - of this module
    "openai_completions": Ending._last_chat,  # noqa: SLF001
    "openai_responses": Ending._last_responses,  # noqa: SLF001
    "anthropic": Ending._last_anthropic,  # noqa: SLF001
    "gemini": Ending._last_gemini,  # noqa: SLF001
}


_ENDED: Final[dict[str, tuple[bytes, ...]]] = {
    "openai_chat": (b"data: [DONE]", b"data:[DONE]"),
    "openai_completions": (b"data: [DONE]", b"data:[DONE]"),
    "openai_responses": (b"event: response.completed", b"event: response.incomplete", b"event: response.failed"),
    "anthropic": (b"event: message_stop",),
    "gemini": (),
}
"""What the last event of a stream contains; one that has come is not cut any more."""


def cuttable(dialect: str, *, sse: bool) -> bool:
    """Return whether a stream of this format can be ended cleanly in the middle."""
    return dialect in _LAST and (dialect != "gemini" or sse)
