"""Writes the corpus: `python -m tests.fuzz.seeds`. Every seed is made, after the shapes that providers document.

The corpus also keeps inputs that once broke something, under `found-*`; those are not written here and not removed.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any, Final

from tests.dialects.test_any_input import CHAT, MESSAGE, RESPONSE
from tests.transport.wires import CHAT as CHAT_ANSWER
from tests.transport.wires import CHAT_REQUEST, MESSAGE_REQUEST
from tests.transport.wires import MESSAGE as MESSAGE_ANSWER
from tests.wire.frames import chunk, frame

CORPUS: Final = Path(__file__).with_name("corpus")


def packed(value: Any) -> bytes:
    """Give compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def events(values: list[Any], *, name: bool = False) -> bytes:
    """Give server-sent events, with names where they have types."""
    lines = [(f"event: {value['type']}\n".encode() if name else b"") + b"data: " + packed(value) for value in values]
    return b"\n\n".join(lines) + b"\n\n"


GEMINI: Final[list[Any]] = [
    {"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "index": 0}], "modelVersion": "gemini-2.5-flash"},
    {
        "candidates": [{"content": {"parts": []}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": 9,
            "candidatesTokenCount": 4,
            "thoughtsTokenCount": 3,
            "cachedContentTokenCount": 2,
            "totalTokenCount": 16,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
        },
    },
]
COHERE: Final[list[Any]] = [
    {"type": "message-start", "id": "c-1", "delta": {"message": {"role": "assistant"}}},
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hi"}}}},
    {
        "type": "message-end",
        "delta": {"finish_reason": "COMPLETE", "usage": {"billed_units": {"input_tokens": 3, "output_tokens": 5}}},
    },
]
OLLAMA: Final[list[Any]] = [
    {"model": "llama3", "message": {"role": "assistant", "content": "Hi"}, "done": False},
    {"model": "llama3", "done": True, "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 7},
]
CONVERSE: Final = (
    frame("messageStart", {"role": "assistant"})
    + frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}})
    + frame("messageStop", {"stopReason": "end_turn"})
    + frame("metadata", {"usage": {"inputTokens": 3, "outputTokens": 5, "totalTokens": 8}})
)
INVOKE: Final = b"".join(chunk(event) for event in list[Any](MESSAGE))
EMBEDDINGS: Final = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [{"index": 0, "embedding": [0.25, -0.5]}],
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
REQUEST: Final = {
    **CHAT_REQUEST,
    "max_tokens": 50,
    "n": 2,
    "stream": True,
    "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
    "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
}
MEDIA: Final = {
    "model": "gpt-5.5",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": "x"}]}
    ],
    "tools": [{"type": "web_search", "search_context_size": "low"}],
    "service_tier": "flex",
}

SSE: Final = "text/event-stream"
JSON: Final = "application/json"
SEEDS: Final[dict[str, tuple[str, bytes]]] = {
    "chat-stream": (f"openai_chat {SSE} - 7", events(CHAT) + b"data: [DONE]\n\n"),
    "chat-stream-crlf": (f"openai_chat {SSE} - 5", events(CHAT).replace(b"\n", b"\r\n")),
    "chat-stream-gzip": (f"openai_chat {SSE} gzip 11", zlib.compress(events(CHAT), wbits=31)),
    "chat-stream-deflate": (f"openai_chat {SSE} deflate 3", zlib.compress(events(CHAT))),
    "chat": (f"openai_chat {JSON} - 50", packed(CHAT_ANSWER)),
    "chat-error": (f"openai_chat {SSE} - 9", events(CHAT[:3]) + b'event: error\ndata: {"error":{"type":"x"}}\n\n'),
    "responses-stream": (f"openai_responses {SSE} - 13", events(RESPONSE, name=True)),
    "messages-stream": (f"anthropic {SSE} - 17", events(MESSAGE, name=True)),
    "messages": (f"anthropic {JSON} - 99", packed(MESSAGE_ANSWER)),
    "gemini-stream": (f"gemini {SSE} - 19", events(GEMINI)),
    "gemini-array": (f"gemini {JSON} - 4", packed(GEMINI)),
    "gemini": (f"gemini {JSON} - 80", packed(GEMINI[1])),
    "cohere-stream": (f"cohere {SSE} - 21", events(COHERE, name=True)),
    "ollama-lines": ("ollama application/x-ndjson - 23", b"\n".join(map(packed, OLLAMA)) + b"\n"),
    "converse-stream": ("bedrock_converse application/vnd.amazon.eventstream - 29", CONVERSE),
    "invoke-stream": ("bedrock_invoke application/vnd.amazon.eventstream - 31", INVOKE),
    "embeddings": (f"openai_embeddings {JSON} - 40", packed(EMBEDDINGS)),
    "html": ("openai_chat text/html - 6", b"<!doctype html><title>Bad gateway</title>"),
    "deep": (f"openai_chat {JSON} - 600", b'{"choices":' + b"[" * 300 + b"]" * 300 + b"}"),
    "request-chat": (f"openai_chat {JSON} - 9999", packed(REQUEST)),
    "request-media": (f"openai_responses {JSON} - 9999", packed(MEDIA)),
    "request-messages": (f"anthropic {JSON} - 9999", packed({**MESSAGE_REQUEST, "stream": True})),
}


def main() -> None:
    """Write every seed."""
    CORPUS.mkdir(exist_ok=True)
    for name, (head, body) in SEEDS.items():
        (CORPUS / name).write_bytes(head.encode() + b"\n" + body)


if __name__ == "__main__":
    main()
