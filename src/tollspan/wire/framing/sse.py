"""Server-sent events: blocks of `field: value` lines, ended by a blank line.

The rules are WHATWG HTML 9.2.6 (https://html.spec.whatwg.org/multipage/server-sent-events.html): lines end in LF, CRLF
or CR; several `data:` lines join with LF; a line that starts with a colon is a comment. Unlike in the standard, a last
event without its blank line counts, too: some providers end that way.
"""

from __future__ import annotations

import re
from typing import Final

from tollspan.wire.framing import LINE_END, MAX_BLOCK

GAP: Final = b"\n\n"
"""The end of a block, once all lines end in LF."""

_USUAL: Final = b"data: {"
_JSON: Final = re.compile(rb"data:[ \t]*(?:\{|\[DONE\])")
_BOM = b"\xef\xbb\xbf"
_RETURN: Final = 0x0D


class ServerSentEvents:
    """Cuts an event stream into blocks of lines."""

    gap: Final = GAP
    __slots__ = ("_end", "_held", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._held = False  # the last byte was a CR, perhaps the first half of a CRLF
        self._end = b""  # the last bytes that are kept: a blank line may begin there

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the blocks that are now complete."""
        return self.whole(data).split(GAP)[:-1]

    def whole(self, data: bytes) -> bytes:
        """Take the next bytes; return the text of the blocks that are now complete, each with its blank line."""
        if not self._pieces and data[-2:] == GAP and data[-3:-2] != b"\n" and _RETURN not in data:
            return data  # nearly all: servers send whole events
        self._pieces.append(data)
        self._size += len(data)
        seam = self._end + data
        # Only a blank line ends a block. Without one nothing is joined, so that a block of many pieces is joined once.
        if GAP in seam or b"\n\r" in seam or b"\r\r" in seam:
            return self._cut()
        self._end = seam[-2:]
        if self._size > MAX_BLOCK:
            self._keep(b"")
        return b""

    def _cut(self) -> bytes:
        text = b"".join(self._pieces) if len(self._pieces) > 1 else self._pieces[0]
        self._held = False
        if _RETURN in text:
            text = self._without_returns(text)
        size = _size_of_blocks(text)
        rest = text[size:]
        if self._held:
            rest += b"\r"
        self._keep(rest if len(rest) <= MAX_BLOCK else b"")
        return text[:size]

    def _without_returns(self, text: bytes) -> bytes:
        if text.endswith(b"\r"):
            self._held = True
            text = text[:-1]
        return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _keep(self, rest: bytes) -> None:
        self._pieces = [rest] if rest else []
        self._size = len(rest)
        self._end = rest[-2:]

    def close(self) -> list[bytes]:
        """Return the last block, which was not followed by a blank line."""
        rest = b"".join(self._pieces).replace(b"\r\n", b"\n").replace(b"\r", b"\n").strip(b"\n")
        self._keep(b"")
        return rest.split(GAP) if rest else []

    def start(self, text: bytes, at: int) -> int:
        """Return where the next block starts that may have JSON, from `at` on in a text from `whole`; its end if none.

        Comments, blank lines and other texts take no step for each block: a compressed body may have millions of them.
        """
        if text[at : at + len(_USUAL)] == _USUAL:
            return at
        found = _JSON.search(text, at)
        if found is None:
            return len(text)
        before = text.rfind(GAP, at, found.start())
        return at if before < 0 else before + len(GAP)

    def end(self, text: bytes, at: int) -> int:
        """Return where the block ends that starts at `at` in a text from `whole`."""
        # Most blocks are one line, and searching for a single line end is several times faster.
        end = text.find(b"\n", at)
        while text[end + 1] != LINE_END:
            end = text.find(b"\n", end + 1)
        return end

    def split(self, block: bytes) -> tuple[str, bytes]:
        """Return a block's event name and data; comments and other fields are skipped."""
        if block.startswith(b"data: ") and LINE_END not in block:  # nearly every block of nearly every provider
            return "", block[6:]
        name, data = "", []
        for line in block.removeprefix(_BOM).split(b"\n"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value.decode("utf-8", "replace")
        return name, b"\n".join(data)


def _size_of_blocks(text: bytes) -> int:
    """Return where the last complete block of a text ends, with blocks cut from the left."""
    at = text.rfind(GAP)
    if at < 0:
        return 0
    end = at + len(GAP)
    if at > 0 and text[at - 1] == LINE_END:  # several blank lines: which two bytes end the block depends on all of them
        return end - (end - len(text[:end].rstrip(b"\n"))) % len(GAP)
    return end
