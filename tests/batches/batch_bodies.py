"""Made batches of three providers, after the shapes that their documents and SDKs tell: no recording."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

OPENAI_BATCH: Final[Json] = {
    "id": "batch_made",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "input_file_id": "file-in",
    "completion_window": "24h",
    "created_at": 1_780_000_000,
    "status": "validating",
    "request_counts": {"total": 0, "completed": 0, "failed": 0},
}
ANTHROPIC_BATCH: Final[Json] = {
    "id": "msgbatch_made",
    "type": "message_batch",
    "processing_status": "in_progress",
    "request_counts": {"processing": 4, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
    "created_at": "2026-05-28T20:26:40Z",
    "expires_at": "2026-05-29T20:26:40Z",
    "ended_at": None,
    "archived_at": None,
    "cancel_initiated_at": None,
    "results_url": None,
}
GEMINI_BATCH: Final[Json] = {
    "name": "batches/made",
    "metadata": {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "model": "models/gemini-2.5-flash",
        "displayName": "made",
        "state": "BATCH_STATE_PENDING",
        "createTime": "2026-05-28T20:26:40Z",
        "batchStats": {"requestCount": "2", "pendingRequestCount": "2"},
        "name": "batches/made",
    },
}


def openai_line(number: int, body: Json | None = None, status: int = 200) -> Json:
    """Return a line of an output file or an error file."""
    made = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        "service_tier": "default",
    }
    response = {"status_code": status, "request_id": f"req_{number}", "body": made if body is None else body}
    return {"id": f"batch_req_{number}", "custom_id": f"request-{number}", "response": response, "error": None}


# gpt-4o-mini in a batch: 0.075 USD per million input tokens, 0.30 output.
OPENAI_COST: Final = Decimal("0.000105")
OPENAI_REFUSED: Final = openai_line(90, {"error": {"code": "context_length_exceeded", "message": "too long"}}, 400)
OPENAI_EXPIRED: Final[Json] = {
    "id": "batch_req_91",
    "custom_id": "request-91",
    "response": None,
    "error": {"code": "batch_expired", "message": "This request could not be executed before the window expired."},
}
EMBEDDINGS: Final[Json] = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 1000, "total_tokens": 1000},
}
RESPONSE: Final[Json] = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "gpt-4o-mini-2024-07-18",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi."}]}],
    "usage": {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100},
}
MODERATION: Final[Json] = {"id": "modr-1", "model": "omni-moderation-latest", "results": [{"flagged": False}]}


def anthropic_line(number: int) -> Json:
    """Return a result that succeeded."""
    message = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5-20251001",
        "content": [{"type": "text", "text": "Hi."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1000, "output_tokens": 100, "service_tier": "batch"},
    }
    return {"custom_id": f"request-{number}", "result": {"type": "succeeded", "message": message}}


# claude-haiku-4-5 in a batch: 0.50 USD per million input tokens, 2.50 output.
ANTHROPIC_COST: Final = Decimal("0.00075")
ANTHROPIC_REFUSED: Final[Json] = {
    "custom_id": "request-90",
    "result": {
        "type": "errored",
        "error": {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}},
    },
}
ANTHROPIC_EXPIRED: Final[Json] = {"custom_id": "request-91", "result": {"type": "expired"}}


def gemini_response(number: int) -> Json:
    """Return the response of one request."""
    return {
        "candidates": [{"content": {"parts": [{"text": "Hi."}], "role": "model"}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 100, "totalTokenCount": 1100},
        "modelVersion": "gemini-2.5-flash",
        "responseId": f"resp-{number}",
    }


# gemini-2.5-flash in a batch: 0.15 USD per million input tokens, 1.25 output.
GEMINI_COST: Final = Decimal("0.000275")
GEMINI_REFUSED: Final[Json] = {"error": {"code": 3, "message": "no", "status": "INVALID_ARGUMENT"}}


def gemini_done(**response: Any) -> Json:
    """Return the operation of a batch that has ended well; its output stands in it twice."""
    said = {**GEMINI_BATCH["metadata"], "state": "BATCH_STATE_SUCCEEDED", "output": response}
    return {**GEMINI_BATCH, "metadata": said, "done": True, "response": response}


def inlined(*found: Json) -> Json:
    """Return results that stand in the operation itself."""
    return {"inlinedResponses": {"inlinedResponses": list(found)}}


def lines(*values: Json) -> bytes:
    """Return a file of JSON Lines."""
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


@dataclass
class Answers:
    """A server on this machine that answers by method and path, and remembers what it was asked.

    `headers` are sent with every answer; `statuses` are those of the next answers, in the place of 200.
    """

    url: str = ""
    port: int = 0
    by_path: dict[tuple[str, str], bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def put(self, method: str, path: str, body: Json | bytes) -> None:
        """Answer this method and path with a JSON value, or with these bytes."""
        self.by_path[method, path] = body if isinstance(body, bytes) else json.dumps(body).encode()


@contextmanager
def answering() -> Iterator[Answers]:
    """Run such a server."""
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            path = self.path.partition("?")[0].replace("/v1beta/", "/v1/")  # it differs between releases of an SDK
            answers.asked.append(f"{self.command} {path}")
            body = answers.by_path.get((self.command, path))
            status = answers.statuses.pop(0) if answers.statuses else 200
            self.send_response(404 if body is None else status)
            for name, value in answers.headers.items():
                self.send_header(name, value)
            self.send_header(
                "content-type", "application/octet-stream" if path.endswith("/content") else "application/json"
            )
            self.send_header("content-length", str(len(body or b"{}")))
            self.end_headers()
            self.wfile.write(body or b"{}")

        do_GET = do_POST = answer  # noqa: N815 - the names that the base class looks for

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    answers.port = server.server_address[1]
    answers.url = f"http://127.0.0.1:{answers.port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield answers
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
