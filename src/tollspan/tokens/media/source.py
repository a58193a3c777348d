"""The bytes of an attachment, read in pieces: `source.read(offset, length)`, however they were sent.

A request of ten megabytes has its images in base64. To read a header, only the characters that have it are decoded.
"""

from __future__ import annotations

import binascii
from typing import Final, Protocol

_URL_SAFE: Final = str.maketrans("-_", "+/")
_LOOKED_AT: Final = 128
"""Characters that are searched for line ends: encoders that break lines do so after 64 or 76."""
_UNBROKEN: Final = 1 << 20
"""Characters of base64 with line ends that are joined; what is behind them is not read."""


class Source(Protocol):
    """Bytes of a known size.

    Attributes:
        size: the number of bytes; of base64 with line ends about that.
    """

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return at most `length` bytes from `offset` on; fewer at the end, none where they cannot be decoded."""
        ...


class Plain:
    """Bytes in memory, or a part of them."""

    __slots__ = ("_data", "_end", "_start", "size")

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        """Read `data[start:end]`, which is not copied."""
        self._data = data
        self._start = start
        self._end = len(data) if end is None else end
        self.size = self._end - start

    def read(self, offset: int, length: int) -> bytes:
        """Return at most `length` bytes from `offset` on."""
        first = self._start + offset
        return self._data[first : min(first + length, self._end)]


class Base64:
    """Bytes in base64, of the standard or the URL-safe alphabet (which Google's SDK sends)."""

    __slots__ = ("_start", "_text", "size")

    def __init__(self, text: str, start: int = 0) -> None:
        """Read what `text` has from the character `start` on."""
        self.size = (len(text) - start) * 3 // 4
        head = text[start : start + _LOOKED_AT]
        if head.split() != [head]:
            text, start = "".join(text[start : start + _UNBROKEN].split()), 0
        self._text = text
        self._start = start

    def read(self, offset: int, length: int) -> bytes:
        """Return at most `length` bytes from `offset` on; none if they are not base64."""
        first, last = offset // 3, -(-(offset + length) // 3)
        digits = self._text[self._start + 4 * first : self._start + 4 * last]
        if "-" in digits or "_" in digits:
            digits = digits.translate(_URL_SAFE)
        try:
            data = binascii.a2b_base64(digits.rstrip("=") + "==")
        except ValueError:  # not ASCII, or cut
            return b""
        skipped = offset - 3 * first
        return data[skipped : skipped + length]
