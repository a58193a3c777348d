"""Frames of the AWS event stream, made for tests: the framing's own rules, written the other way round."""

from __future__ import annotations

import json
from base64 import b64encode
from struct import pack
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Mapping

_STRING = 7


def header(name: str, value: str) -> bytes:
    """Return a string header of a frame."""
    label, text = name.encode(), value.encode()
    return bytes((len(label),)) + label + bytes((_STRING,)) + pack("!H", len(text)) + text


def raw_frame(headers: bytes, payload: bytes) -> bytes:
    """Return a frame with its lengths and both its checksums."""
    prelude = pack("!II", 16 + len(headers) + len(payload), len(headers))
    whole = prelude + pack("!I", crc32(prelude)) + headers + payload
    return whole + pack("!I", crc32(whole))


def frame(kind: str, event: Mapping[str, Any]) -> bytes:
    """Return an event's frame as the service sends it; a kind that ends in `Exception` is an error's."""
    failed = kind.endswith("Exception")
    headers = header(":exception-type" if failed else ":event-type", kind)
    headers += header(":content-type", "application/json") + header(":message-type", "exception" if failed else "event")
    return raw_frame(headers, json.dumps(event, separators=(",", ":")).encode())


def chunk(event: Mapping[str, Any]) -> bytes:
    """Return a frame of InvokeModelWithResponseStream: the model's own event, in base64."""
    return frame("chunk", {"bytes": b64encode(json.dumps(event).encode()).decode(), "p": "abcdefgh"})
