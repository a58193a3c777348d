"""Reads made recordings as a client would receive them: routed by host and path, cut into pieces of any size."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pytest

from tollspan.model.records import Facts, Usage
from tollspan.tokens.estimates import unescaped
from tollspan.wire.dialects import load
from tollspan.wire.providers import Directory, bundled
from tollspan.wire.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.wire.dialects import Route

CUT: Final = pytest.mark.parametrize("size", [1, 7, 10**9])
"""Bytes in each piece that arrives: every truth about a body holds however it is cut."""

SSE: Final = "text/event-stream; charset=utf-8"
NDJSON: Final = "application/x-ndjson"
AWS: Final = "application/vnd.amazon.eventstream"

DIRECTORY: Final = Directory(bundled().values())


# Writing


def packed(value: Any) -> bytes:
    """Return compact JSON, as most providers send it."""
    return json.dumps(value, separators=(",", ":")).encode()


def spaced(value: Any) -> bytes:
    """Return JSON with spaces after colons and commas, as Python writes it by default."""
    return json.dumps(value).encode()


def named_events(*values: tuple[str, Any], style: Any = packed) -> bytes:
    """Return server-sent events with names; one whose name is empty has none."""
    names = [f"event: {name}\n".encode() if name else b"" for name, _ in values]
    return b"".join(name + b"data: " + style(value) + b"\n\n" for name, (_, value) in zip(names, values, strict=True))


def events(*values: Any) -> bytes:
    """Return server-sent events without names, in compact JSON."""
    return named_events(*(("", value) for value in values))


def sse(*values: Any, done: bool = True, names: bool = False, style: Any = packed) -> bytes:
    """Return a stream of OpenAI's kind; `names` adds an `event:` line with each one's type."""
    stream = named_events(*((value["type"] if names else "", value) for value in values), style=style)
    return stream + (b"data: [DONE]\n\n" if done else b"")


def lines(*values: Any) -> bytes:
    """Return newline-delimited JSON."""
    return b"".join(packed(value) + b"\n" for value in values)


# Reading


def read(
    dialect: str,
    body: bytes,
    size: int = 10**9,
    *,
    request: Mapping[str, Any] | None = None,
    path: str = "",
    content_type: str = "",
    headers: Mapping[str, str] | None = None,
) -> Facts:
    """Return the facts of one call, its response cut into pieces of `size` bytes."""
    chosen = load(dialect)
    facts = Facts(chosen.operation)
    chosen.read_path(facts, path)
    chosen.read_request(facts, dict(request or {}))
    chosen.read_headers(facts, headers or {})
    reader = Reader(chosen, facts, content_type or (SSE if body[:5] in {b"data:", b"event"} else "application/json"))
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    reader.close()
    return facts


def used(facts: Facts) -> Usage:
    """Return the usage on the wire; fail if it states none."""
    assert facts.usage is not None
    return facts.usage


# Reading by host and path


@dataclass(frozen=True, kw_only=True)
class Made:
    """One exchange, made after the shapes that providers send."""

    url: str
    answer: bytes
    request: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def route_of(url: str) -> Route | None:
    """Return the route of a POST to `url`, or None where it is no inference call."""
    target = urlsplit(url)
    found = DIRECTORY.find(target.hostname or "", target.port, target.path)
    return None if found is None else found[1]


def is_inference(url: str) -> bool:
    """Return whether a POST to `url` is taken for an inference call."""
    return route_of(url) is not None


def play(made: Made, size: int = 10**9) -> Facts:
    """Return what is known once the whole answer was read in pieces of `size` bytes."""
    target, route = urlsplit(made.url), route_of(made.url)
    assert route is not None, f"{made.url} is no inference call"
    path = target.path + (f"?{target.query}" if target.query else "")
    return read(
        route.dialect,
        made.answer,
        size,
        request=made.request,
        path=path,
        content_type=made.content_type,
        headers=made.headers,
    )


def text_of(made: Made) -> str:
    """Return the output text that is kept for estimates."""
    route = route_of(made.url)
    assert route is not None, f"{made.url} is no inference call"
    reader = Reader(load(route.dialect), Facts(), made.content_type)
    reader.feed(made.answer)
    reader.close()
    return unescaped(b"".join(reader.text.raw))
