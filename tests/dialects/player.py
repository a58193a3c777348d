"""Plays a made recording as a client would receive it: routed by host and path, cut into pieces of any size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.dialects.reading import packed, read
from tollspan.dialects import load
from tollspan.estimates import unescaped
from tollspan.providers import Directory, bundled
from tollspan.reader import Reader
from tollspan.usage import Facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.dialects import Route

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
AWS = "application/vnd.amazon.eventstream"

DIRECTORY = Directory(bundled().values())


@dataclass(frozen=True, kw_only=True)
class Made:
    """One exchange, made after the shapes that providers send."""

    url: str
    answer: bytes
    request: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def events(*values: object) -> bytes:
    """Give server-sent events without names, in compact JSON."""
    return b"".join(b"data: " + packed(value) + b"\n\n" for value in values)


def named_events(*values: tuple[str, object]) -> bytes:
    """Give server-sent events with names, in compact JSON."""
    return b"".join(f"event: {name}\n".encode() + events(value) for name, value in values)


def lines(*values: object) -> bytes:
    """Give newline-delimited JSON."""
    return b"".join(packed(value) + b"\n" for value in values)


def route_of(url: str) -> Route | None:
    """Give the route of a POST to `url`, or None where it is no inference call."""
    target = urlsplit(url)
    found = DIRECTORY.find(target.hostname or "", target.port, target.path)
    return None if found is None else found[1]


def is_inference(url: str) -> bool:
    """Tell whether a POST to `url` is taken for an inference call."""
    return route_of(url) is not None


def play(made: Made, size: int = 10**9) -> Facts:
    """Give what is known once the whole answer was read in pieces of `size` bytes."""
    target, route = urlsplit(made.url), route_of(made.url)
    assert route is not None, f"{made.url} is no inference call"
    return read(
        route.dialect,
        made.answer,
        size,
        request=dict(made.request),
        path=target.path + (f"?{target.query}" if target.query else ""),
        content_type=made.content_type,
        headers=made.headers,
    )


def text_of(made: Made) -> str:
    """Give the output text that is kept for estimates."""
    route = route_of(made.url)
    assert route is not None, f"{made.url} is no inference call"
    reader = Reader(load(route.dialect), Facts(), made.content_type)
    reader.feed(made.answer)
    reader.close()
    return unescaped(b"".join(reader.text.raw))
