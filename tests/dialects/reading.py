"""Reads made recordings through a dialect, cut as a network would cut them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from tollspan.dialects import load
from tollspan.reader import Reader
from tollspan.usage import Facts, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

CUT: Final = pytest.mark.parametrize("size", [1, 7, 10**9])
"""Bytes in each piece that arrives: every truth about a body holds however it is cut."""

EVENTS: Final = "text/event-stream; charset=utf-8"


def packed(value: Any) -> bytes:
    """Give compact JSON, as most providers send it."""
    return json.dumps(value, separators=(",", ":")).encode()


def spaced(value: Any) -> bytes:
    """Give JSON with spaces after colons and commas, as Python writes it unless told otherwise."""
    return json.dumps(value).encode()


def sse(*events: Any, done: bool = True, names: bool = False, style: Any = packed) -> bytes:
    """Give a stream of server-sent events; `names` adds an `event:` line with each one's type."""
    blocks = [(f"event: {event['type']}\n".encode() if names else b"") + b"data: " + style(event) for event in events]
    return b"".join(block + b"\n\n" for block in [*blocks, *([b"data: [DONE]"] if done else [])])


def read(
    dialect: str,
    body: bytes,
    size: int = 10**9,
    *,
    request: dict[str, Any] | None = None,
    path: str = "",
    content_type: str = "",
    headers: Mapping[str, str] | None = None,
) -> Facts:
    """Give the facts of one call, its response cut into pieces of `size` bytes."""
    chosen = load(dialect)
    facts = Facts(chosen.operation)
    chosen.read_path(facts, path)
    chosen.read_request(facts, request or {})
    chosen.read_headers(facts, headers or {})
    reader = Reader(chosen, facts, content_type or (EVENTS if body[:5] in {b"data:", b"event"} else "application/json"))
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    reader.close()
    return facts


def used(facts: Facts) -> Usage:
    """Give the usage that the wire told; fails where it told none."""
    assert facts.usage is not None
    return facts.usage
