"""A JSON array that arrives element by element (Gemini's streamGenerateContent without `alt=sse`)."""

from __future__ import annotations

import re
from typing import Final

from tollspan.wire.framing import MAX_BLOCK

_QUOTE, _ESCAPE, _OPEN, _OPEN_ARRAY = b'"\\{['
# The bytes that decide where an element ends: quotes, escapes, brackets.
_TURN: Final = re.compile(rb'["\\{}\[\]]')


class JsonArray:
    """Cuts a JSON array of objects into its elements; anything else between them is skipped."""

    __slots__ = ("_buffer", "_depth", "_quoted", "_scanned", "_start")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._depth = 0  # of objects and arrays inside the element
        self._start = -1
        self._quoted = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the elements that are now complete."""
        self._buffer += data
        elements: list[bytes] = []
        buffer = self._buffer
        while turn := _TURN.search(buffer, self._scanned):
            at = turn.start()
            mark = buffer[at]
            if mark == _ESCAPE:  # the next byte belongs to it
                if at + 1 == len(buffer):
                    self._scanned = at
                    return self._trim(elements)
                self._scanned = at + 2
                continue
            self._scanned = at + 1
            self._step(mark, at, elements)
        self._scanned = len(buffer)
        return self._trim(elements)

    def _step(self, mark: int, at: int, elements: list[bytes]) -> None:
        if mark == _QUOTE:
            self._quoted = not self._quoted
        elif self._quoted:
            return
        elif mark == _OPEN or (mark == _OPEN_ARRAY and self._depth):
            if not self._depth:
                self._start = at
            self._depth += 1
        elif self._depth and mark in b"}]":
            self._depth -= 1
            if not self._depth:
                elements.append(bytes(self._buffer[self._start : at + 1]))
                self._start = -1

    def _trim(self, elements: list[bytes]) -> list[bytes]:
        """Drop the bytes that are done, so that memory holds at most one unfinished element."""
        done = self._start if self._start >= 0 else self._scanned
        if len(self._buffer) - done > MAX_BLOCK:
            done, self._start, self._depth, self._quoted = self._scanned, -1, 0, False
        del self._buffer[:done]
        self._scanned -= done
        self._start = min(self._start, 0)
        return elements

    def close(self) -> list[bytes]:
        """Drop an unfinished element, which cannot be read; return no more."""
        self._buffer.clear()
        return []

    def split(self, block: bytes) -> tuple[str, bytes]:
        """Return an element as the payload of an event without a name."""
        return "", block
