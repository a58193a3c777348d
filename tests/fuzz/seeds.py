"""Writes the corpus: `python -m tests.fuzz.seeds`. Every seed is made, after the shapes that providers document.

The corpus also keeps inputs that once broke something, under `found-*`; those are not written here and not removed.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any, Final

from tests.capture.mock_wires import CHAT as CHAT_ANSWER
from tests.capture.mock_wires import CHAT_REQUEST, MESSAGE_REQUEST
from tests.capture.mock_wires import MESSAGE as MESSAGE_ANSWER
from tests.dialects.test_any_input import CHAT, MESSAGE, RESPONSE
from tests.wire.frames import chunk, frame

CORPUS: Final = Path(__file__).with_name("corpus")


def packed(value: Any) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def events(values: list[Any], *, name: bool = False) -> bytes:
    """Return server-sent events, with names where they have types."""
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

AGENT: Final = b"".join(
    frame("trace", {"agentId": "A", "trace": {"orchestrationTrace": step}})
    for step in (
        {"modelInvocationInput": {"foundationModel": "amazon.nova-lite-v1:0"}},
        {"modelInvocationOutput": {"metadata": {"usage": {"inputTokens": 100, "outputTokens": 10}}}},
    )
)
INTERACTION: Final[list[Any]] = [
    {"type": "step.delta", "event_type": "step.delta", "index": 1, "delta": {"type": "text", "text": "Hi"}},
    {
        "type": "interaction.completed",
        "event_type": "interaction.completed",
        "interaction": {
            "id": "v1_x",
            "model": "gemini-2.5-flash",
            "status": "completed",
            "usage": {
                "total_input_tokens": 100,
                "total_cached_tokens": 60,
                "total_output_tokens": 40,
                "total_thought_tokens": 20,
                "input_tokens_by_modality": [{"modality": "text", "tokens": 90}, {"modality": "image", "tokens": 10}],
                "grounding_tool_count": [{"type": "google_search", "count": 3}],
            },
        },
    },
]
GENERATION: Final[list[Any]] = [
    {"index": 1, "token": {"id": 1, "text": "Hi", "special": False}, "generated_text": None, "details": None},
    {
        "index": 2,
        "token": {"id": 2, "text": "", "special": True},
        "generated_text": "Hi",
        "details": {"finish_reason": "eos_token", "generated_tokens": 2, "input_length": 9},
    },
]
AUDIO_TOKENS: Final = {
    "type": "tokens",
    "input_tokens": 37,
    "input_token_details": {"text_tokens": 0, "audio_tokens": 37},
    "output_tokens": 12,
    "total_tokens": 49,
}
TRANSCRIPT: Final[list[Any]] = [
    {"type": "transcript.text.delta", "delta": "Ruby"},
    {"type": "transcript.text.done", "text": "Ruby", "usage": AUDIO_TOKENS},
]
COUNTS: Final = {"prompt_tokens": 19, "completion_tokens": 3, "total_tokens": 22, "cost": 3.4e-7}

SSE: Final = "text/event-stream"
JSON: Final = "application/json"
SINGLE: Final[dict[str, dict[str, Any]]] = {
    "anthropic_complete": {"id": "compl_1", "completion": " Hi", "stop_reason": "stop_sequence", "model": "claude-2.1"},
    "black_forest_labs": {"id": "i1", "polling_url": "https://example.com/?id=i1", "cost": 7.000000000000001},
    "cloudflare_run": {"result": {"response": "Hello!", "usage": COUNTS}, "success": True, "errors": []},
    "deepgram": {"metadata": {"request_id": "r1", "duration": 3.6999376}, "results": {"channels": []}},
    "gemini_embeddings": {
        "embeddings": [{"values": [0.25, -0.5]}],
        "usageMetadata": {"promptTokenCount": 9, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}]},
    },
    "gemini_openai": {**CHAT_ANSWER, "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 20}},
    "openai_completions": {
        "id": "cmpl-1",
        "model": "gpt-3.5-turbo-instruct",
        "choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}],
        "usage": COUNTS,
    },
    "openai_images": {
        "created": 1,
        "data": [{"b64_json": "aGk="}],
        "usage": {
            "input_tokens": 50,
            "output_tokens": 60,
            "input_tokens_details": {"image_tokens": 40, "text_tokens": 10},
        },
    },
    "openai_decisions": {
        "answers": [{"type": "predicate", "name": "spam", "probability": 0.9}],
        "model": "gpt-6-luna",
        "usage": {"input_tokens": 9, "output_tokens": 0, "total_tokens": 9},
    },
    "openai_speech": {"audio_data": "aGk="},
    "perplexity_async": {"id": "a-1", "status": "COMPLETED", "response": {**CHAT_ANSWER, "usage": COUNTS}},
    "replicate": {
        "id": "p1",
        "model": "meta/llama-2-70b-chat",
        "status": "succeeded",
        "error": None,
        "metrics": {"input_token_count": 5, "output_token_count": 90, "predict_time": 2.5},
    },
    "rerank": {"model": "rerank-2", "results": [], "usage": {"search_units": 1, "cost": 0.002, "total_tokens": 43}},
    "vertex_predict": {
        "predictions": [{"embeddings": {"statistics": {"token_count": 6}, "values": [0.5]}}],
        "metadata": {"billableCharacterCount": 20},
    },
}
"""Plain answers of formats that have no other seed."""
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
    "agent-stream": ("bedrock_agent application/vnd.amazon.eventstream - 37", AGENT),
    "interactions-stream": (f"gemini_interactions {SSE} - 41", events(INTERACTION, name=True)),
    "generation-stream": (f"huggingface {SSE} - 43", events(GENERATION)),
    "transcription-stream": (f"openai_transcription {SSE} - 47", events(TRANSCRIPT)),
    **{name.replace("_", "-"): (f"{name} {JSON} - 53", packed(body)) for name, body in SINGLE.items()},
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
