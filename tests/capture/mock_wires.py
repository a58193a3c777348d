"""Made answers of providers (after the shapes that are documented), and one way to send for all clients."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx
import httpx2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import ModuleType

LIBRARIES: Final = (httpx, httpx2)
OPENAI: Final = "https://api.openai.com/v1/chat/completions"
ANTHROPIC: Final = "https://api.anthropic.com/v1/messages"

CHAT_REQUEST: Final[dict[str, Any]] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
CHAT_USAGE: Final = {
    "prompt_tokens": 1200,
    "completion_tokens": 345,
    "total_tokens": 1545,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 64},
}
# gpt-4o-mini: 0.15 USD per million input tokens, 0.075 cached, 0.60 output.
CHAT_COST: Final = (176 * 0.15 + 1024 * 0.075 + 345 * 0.60) / 1e6
CHAT: Final[dict[str, Any]] = {
    "id": "chatcmpl-made-1",
    "object": "chat.completion",
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}],
    "usage": CHAT_USAGE,
}
MESSAGE_REQUEST: Final[dict[str, Any]] = {
    "model": "claude-haiku-4-5",
    "max_tokens": 100,
    "messages": CHAT_REQUEST["messages"],
}
MESSAGE_USAGE: Final[dict[str, Any]] = {
    "input_tokens": 176,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 1024,
    "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
    "output_tokens": 345,
    "service_tier": "standard",
}
# claude-haiku-4-5: 1 USD per million input tokens, 0.10 read, 1.25 and 2 written for 5 minutes and 1 hour, 5 output.
MESSAGE_COST: Final = (176 * 1 + 1024 * 0.10 + 100 * 1.25 + 200 * 2 + 345 * 5) / 1e6
MESSAGE: Final[dict[str, Any]] = {
    "id": "msg_made_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-4-5-20251001",
    "content": [{"type": "text", "text": "Hi."}],
    "stop_reason": "end_turn",
    "usage": MESSAGE_USAGE,
}


def packed(value: object) -> bytes:
    """Return a JSON text as the SDKs write it."""
    return json.dumps(value, separators=(",", ":")).encode()


def event(data: object, name: str = "") -> bytes:
    """Return one server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + (data if isinstance(data, bytes) else packed(data)) + b"\n\n"


def chat_stream(words: int = 5, *, usage: bool = True) -> list[bytes]:
    """Return a streamed chat completion, one event a piece."""
    base = {"id": "chatcmpl-made-2", "object": "chat.completion.chunk", "model": "gpt-4o-mini-2024-07-18"}

    def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
        return event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "usage": None})

    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"content": f" word{i}"}) for i in range(words)]
    events += [chunk({}, "stop")]
    if usage:
        events.append(event({**base, "choices": [], "usage": CHAT_USAGE}))
    return [*events, event(b"[DONE]")]


def message_stream(words: int = 5) -> list[bytes]:
    """Return a streamed Anthropic message, one event a piece."""

    def named(name: str, **data: Any) -> bytes:
        return event({"type": name, **data}, name)

    start = {**MESSAGE, "content": [], "stop_reason": None, "usage": {**MESSAGE_USAGE, "output_tokens": 1}}
    deltas = [
        named("content_block_delta", index=0, delta={"type": "text_delta", "text": f" word{i}"}) for i in range(words)
    ]
    return [
        named("message_start", message=start),
        named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        named("ping"),
        *deltas,
        named("content_block_stop", index=0),
        named("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 345}),
        named("message_stop"),
    ]


@dataclass
class Wire:
    """A mock transport that answers every request alike, and what it saw."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    pieces: list[bytes] = field(default_factory=list)
    error: Exception | None = None
    requests: list[Any] = field(default_factory=list)
    drawn: int = 0

    def draw(self) -> Iterator[bytes]:
        """Return the pieces one by one, then the error if there is one."""
        for piece in self.pieces:
            self.drawn += 1
            yield piece
        if self.error is not None:
            raise self.error

    async def adraw(self) -> AsyncIterator[bytes]:
        """Return the pieces one by one, as `draw` does."""
        for piece in self.draw():
            yield piece

    def client(self, lib: ModuleType, **options: object) -> Any:
        """Return a client of that library that talks to this wire."""
        return lib.Client(transport=self._transport(lib, self.draw), **options)

    def async_client(self, lib: ModuleType, **options: object) -> Any:
        """Return an async client of that library that talks to this wire."""
        return lib.AsyncClient(transport=self._transport(lib, self.adraw), **options)

    def _transport(self, lib: ModuleType, draw: Callable[[], Any]) -> Any:
        def answer(request: Any) -> Any:
            self.requests.append(as_sent(lib, request))
            return lib.Response(self.status, headers=self.headers, content=draw())

        return lib.MockTransport(answer)


def as_sent(lib: ModuleType, request: Any) -> Any:
    """Return a request as it is now; its body may be exchanged while it is on its way."""
    if "_content" not in vars(request):  # it streams
        return request
    extensions = request.extensions
    return lib.Request(
        request.method, request.url, headers=request.headers.raw, content=request.content, extensions=extensions
    )


def sse(pieces: list[bytes], **options: Any) -> Wire:
    """Return a wire that answers with an event stream."""
    return Wire(headers={"content-type": "text/event-stream"}, pieces=pieces, **options)


def post(wire: Wire, lib: ModuleType, url: str, body: object, *, is_async: bool = False) -> Any:
    """Post a JSON body and give the response, read to its end."""
    if not is_async:
        with wire.client(lib) as client:
            return client.post(url, json=body)

    async def run() -> Any:
        async with wire.async_client(lib) as client:
            return await client.post(url, json=body)

    return asyncio.run(run())


def stream(
    wire: Wire, lib: ModuleType, url: str, body: object, *, is_async: bool = False, how: str = "bytes"
) -> list[Any]:
    """Post a JSON body and read the answer as it streams, by `iter_<how>`; give the pieces."""
    if not is_async:
        with wire.client(lib) as client, client.stream("POST", url, json=body) as response:
            return list(getattr(response, f"iter_{how}")())

    async def run() -> list[Any]:
        async with wire.async_client(lib) as client, client.stream("POST", url, json=body) as response:
            return [piece async for piece in getattr(response, f"aiter_{how}")()]

    return asyncio.run(run())
