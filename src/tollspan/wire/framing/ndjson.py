"""Newline-delimited JSON (https://github.com/ndjson/ndjson-spec): one document a line (Ollama, Cohere v1)."""

from __future__ import annotations

import re
from typing import Final

from tollspan.wire.framing import LINE_END, MAX_BLOCK

GAP: Final = b"\n"

_BLANK_LINES: Final = re.compile(rb"^(?:[ \t\r\v\f]*+\n)++", re.MULTILINE)
_OBJECT: Final = re.compile(rb"\n[ \t\r]*\{")


class JsonLines:
    """Cuts at line ends; blank lines are dropped."""

    gap: Final = GAP
    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the lines that are now complete."""
        return self.whole(data).split(GAP)[:-1]

    def whole(self, data: bytes) -> bytes:
        """Take the next bytes; return the text of the lines that are now complete, each with its line end."""
        self._pieces.append(data)
        self._size += len(data)
        if LINE_END in data:
            text = b"".join(self._pieces)
            size = text.rfind(GAP) + 1
            rest = text[size:]
            text = _BLANK_LINES.sub(b"", text[:size])
        elif self._size > MAX_BLOCK:
            text = rest = b""
        else:
            return b""
        self._pieces = [rest] if rest else []
        self._size = len(rest)
        return text

    def close(self) -> list[bytes]:
        """Return the last line, which had no line end."""
        rest, self._pieces, self._size = b"".join(self._pieces), [], 0
        return [rest] if rest.strip() else []

    def start(self, text: bytes, at: int) -> int:
        """Return where the next line starts that may have a JSON object, from `at` on; the text's end if none."""
        if text[at : at + 1] == b"{":
            return at
        found = _OBJECT.search(text, max(at - 1, 0))
        return len(text) if found is None else found.start() + 1

    def end(self, text: bytes, at: int) -> int:
        """Return where the line ends that starts at `at` in a text from `whole`."""
        return text.find(GAP, at)

    def split(self, block: bytes) -> tuple[str, bytes]:
        """Return a line as the payload of an event without a name."""
        return "", block
