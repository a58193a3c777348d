"""Joins framing and dialect: `feed(bytes)`, `close()`, and the facts are in `Facts`.

A reader is given the bytes of one response body as the application receives them, still content-encoded, cut
anywhere. It raises `WireError` where bytes do not follow their framing, and nothing else; its memory is bounded. No
clock, no I/O.

Until the first output is seen every event is read as it comes, so that the caller can take the time. After that pieces
wait until there are `BATCH` bytes of them: an event then costs a few substring searches, and most are never parsed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from tollspan.errors import WireError
from tollspan.wire.encoding import decoder_for
from tollspan.wire.eventstream import EventStream
from tollspan.wire.jsonarray import JsonArray
from tollspan.wire.ndjson import JsonLines
from tollspan.wire.sse import ServerSentEvents

if TYPE_CHECKING:
    from tollspan.dialects.dialect import Dialect
    from tollspan.usage import Facts
    from tollspan.wire import Framing
    from tollspan.wire.encoding import Decoder

BATCH: Final = 2048
"""Bytes that may wait before they are read, once the first output was seen."""

MAX_DOCUMENT: Final = 64 * 1024 * 1024
"""Bytes of a plain JSON body that are kept to be read; of a longer one the usage stays unknown."""

_ESCAPE: Final = ord("\\")
_LINE_TYPES: Final = ("ndjson", "jsonl", "stream+json", "jsonlines")


class Reader:
    """Read one response body into `facts` (see the module's text)."""

    __slots__ = (
        "_decode",
        "_dialect",
        "_document",
        "_facts",
        "_framing",
        "_kept",
        "_kind",
        "_marks",
        "_size",
        "_texts",
        "_waiting",
    )

    def __init__(
        self, dialect: Dialect, facts: Facts, content_type: str = "", content_encoding: str | None = None
    ) -> None:
        """Prepare to read; raises WireError for a content encoding that cannot be undone here."""
        self._dialect = dialect
        self._facts = facts
        self._kind = content_type.lower()
        self._decode = decoder_for(content_encoding) if content_encoding else None
        self._framing: Framing | None = None
        self._document: list[bytes] | None = None
        self._waiting: list[bytes] = []
        self._size = 0
        self._kept = 0
        self._marks: tuple[bytes, ...] | None = None
        self._texts: tuple[bytes, ...] = ()

    @property
    def framed(self) -> bool:
        """Tell whether the body was a stream of events, and no plain document."""
        return self._framing is not None

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self._waiting.append(piece)
        self._size += len(piece)
        if self._size >= BATCH or not self._facts.output_seen:
            self._drain()

    def close(self) -> None:
        """Read what is left: no more bytes come."""
        self._drain()
        if self._document is not None:
            self._read_document(b"".join(self._document))
            self._document = None
        elif self._framing is not None:
            self._read(self._framing.close())

    def _drain(self) -> None:
        waiting = self._waiting
        if not waiting:
            return
        data = waiting[0] if len(waiting) == 1 else b"".join(waiting)
        waiting.clear()
        self._size = 0
        if self._decode is not None:
            data = _decoded(self._decode, data)
        if self._framing is not None:
            self._read(self._framing.feed(data))
        elif self._document is not None:
            self._collect(data)
        else:
            self._open(data)

    def _open(self, data: bytes) -> None:
        """Choose how the body is framed: by its first byte, for labels lie (errors as event-stream, events as JSON)."""
        if "amazon.eventstream" in self._kind:
            self._framing = EventStream()
        else:
            start = data.lstrip(b" \t\r\n\xef\xbb\xbf")[:1]
            if not start:
                return  # keep-alive whitespace before a body
            self._framing = self._framing_for(start)
        if self._framing is None:
            self._document = []
            self._collect(data)
        else:
            self._read(self._framing.feed(data))

    def _framing_for(self, start: bytes) -> Framing | None:
        if start == b"[" and self._dialect.element_stream:
            return JsonArray()
        if start == b"{" and any(word in self._kind for word in _LINE_TYPES):
            return JsonLines()
        if start in b"{[<" or ("event-stream" not in self._kind and start not in b"de:"):
            return None
        return ServerSentEvents()

    def _collect(self, data: bytes) -> None:
        document = self._document
        if document is None:
            return
        document.append(data)
        self._kept += len(data)
        if self._kept > MAX_DOCUMENT:
            document.clear()

    def _read_document(self, data: bytes) -> None:
        body = _parsed(data)
        if type(body) is dict:
            self._dialect.read_response(self._facts, body)

    def _read(self, blocks: list[bytes]) -> None:
        facts = self._facts
        for block in blocks:
            if facts.output_seen and self._marks is not None:
                for mark in self._marks:
                    if mark in block:
                        break
                else:
                    facts.output_events += 1
                    facts.text_bytes += _text_size(block, self._texts)
                    continue
            self._read_block(block)

    def _read_block(self, block: bytes) -> None:
        framing = self._framing
        if framing is None:
            return
        name, payload = framing.split(block)
        event = _parsed(payload)
        if type(event) is dict:
            self._learn_style(payload)
            self._dialect.read_event(self._facts, name, event)
            self._facts.output_events += 1
            self._facts.text_bytes += _text_size(block, self._texts)
        elif payload == b"[DONE]":
            self._facts.complete = True

    def _learn_style(self, payload: bytes) -> None:
        """See once how the server writes JSON, and search for facts in that style; in another one read every event."""
        if self._marks is not None or not self._dialect.facts_in:
            return
        if b'":"' in payload:
            self._marks, self._texts = self._dialect.facts_in, self._dialect.text_in
        elif b'": "' in payload:
            self._marks = tuple(mark.replace(b'":', b'": ') for mark in self._dialect.facts_in)
            self._texts = tuple(mark.replace(b'":', b'": ') for mark in self._dialect.text_in)


def _decoded(decode: Decoder, data: bytes) -> bytes:
    try:
        return decode(data)
    except Exception as error:
        message = f"body does not follow its content encoding: {error}"
        raise WireError(message) from error


def _parsed(data: bytes) -> object:
    """Give the JSON value in `data`, or None: bodies that are no JSON (HTML, [DONE], truncated) say nothing."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _text_size(block: bytes, keys: tuple[bytes, ...]) -> int:
    """Give the length of the output text in a raw event, in bytes as written (escapes count as they stand)."""
    for key in keys:
        at = block.find(key)
        if at >= 0:
            at += len(key)
            end = block.find(b'"', at)
            while end > 0 and block[end - 1] == _ESCAPE:
                end = block.find(b'"', end + 1)
            return max(end - at, 0)
    return 0
