"""Newline-delimited JSON (https://github.com/ndjson/ndjson-spec): one document a line (Ollama, Cohere v1)."""

from __future__ import annotations

from typing import Final

from tollspan.wire.framing import LINE_END, MAX_BLOCK

GAP: Final = b"\n"


class JsonLines:
    """Cuts at line ends; blank lines are dropped."""

    gap: Final = GAP
    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the lines that are now complete."""
        self._pieces.append(data)
        self._size += len(data)
        if LINE_END in data:
            lines = b"".join(self._pieces).split(b"\n")
            rest = lines.pop()
        elif self._size > MAX_BLOCK:
            lines, rest = [], b""
        else:
            return []
        self._pieces = [rest] if rest else []
        self._size = len(rest)
        return [line for line in lines if line.strip()]

    def whole(self, data: bytes) -> bytes:
        """Take the next bytes; return the text of the lines that are now complete, each with its line end."""
        return GAP.join([*self.feed(data), b""])

    def close(self) -> list[bytes]:
        """Return the last line, which had no line end."""
        rest, self._pieces, self._size = b"".join(self._pieces), [], 0
        return [rest] if rest.strip() else []

    def end(self, text: bytes, at: int) -> int:
        """Return where the line ends that starts at `at` in a text from `whole`."""
        return text.find(GAP, at)

    def split(self, block: bytes) -> tuple[str, bytes]:
        """Return a line as the payload of an event without a name."""
        return "", block
