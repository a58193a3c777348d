"""What a budget sends in the place of a provider's response: the types, and the writers that formats share.

The functions of a dialect that write (`refuse`, `reply`, `ending`) are described in `dialect.py`. They import this
module when they run: without a budget that intervenes it is never loaded.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

Json = dict[str, Any]

EVENTS: Final = "text/event-stream"
"""The content type of server-sent events."""

LINES: Final = "application/x-ndjson"
"""The content type of JSON documents, one a line."""

DONE: Final = b"data: [DONE]\n\n"
"""The last event of OpenAI's streams."""


class ReplyTo(NamedTuple):
    """The request that a reply is for.

    Attributes:
        id: makes the response's id unique.
        model: the requested model, "" if the request names none.
        stream: whether a stream is requested.
        now: Unix time in seconds.
        sse: whether the query requests server-sent events (`alt=sse`), for formats that stream in two framings.
        usage_chunk: whether a last chunk with the usage is requested (`stream_options.include_usage`).
        operation: `gen_ai.operation.name` of the request.
        path: the path of the request's URL, for formats with versions that differ in their responses.
        structured: whether JSON or the call of a tool is requested: prose would fail where the application reads it.
    """

    id: str
    model: str
    stream: bool
    now: int
    sse: bool = False
    usage_chunk: bool = False
    operation: str = "chat"
    path: str = ""
    structured: bool = False


class Reply(NamedTuple):
    """A response's content type and body."""

    content_type: str
    body: bytes


class StreamEnding(Protocol):
    """Ends one stream that is cut: remembers the events that passed, and writes those that close it."""

    @property
    def ended_by(self) -> tuple[bytes, ...]:
        """Return byte strings, one of which is in the stream's own last event: a stream that has ended is not cut."""
        ...

    def note(self, data: bytes, /) -> None:
        """Remember an event that passed: its JSON object, as bytes. Raises ValueError if it is not JSON after all."""
        ...

    def last(self, output_tokens: int, /) -> bytes:
        """Return the events that close the stream: finished for length, with this much output."""
        ...


def dump(value: object) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def document(value: object) -> Reply:
    """Return a plain response."""
    return Reply("application/json", dump(value))


def data_events(events: Iterable[object], *last: bytes) -> bytes:
    """Return server-sent events without names, and the bytes `last` behind them."""
    return b"".join([b"data: " + dump(event) + b"\n\n" for event in events] + list(last))


def named_events(events: Iterable[Json]) -> bytes:
    """Return server-sent events, each named by its `type`."""
    return b"".join(b"event: " + event["type"].encode() + b"\ndata: " + dump(event) + b"\n\n" for event in events)
