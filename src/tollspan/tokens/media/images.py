"""The size of an image out of its header: PNG, JPEG, GIF and WebP.

`image_size(source)` returns width and height in pixels, or None if the bytes are not such an image. Of a JPEG the
segments before its frame are stepped over, at most `SEGMENTS` of them.
https://www.w3.org/TR/png/#11IHDR, https://www.w3.org/Graphics/JPEG/itu-t81.pdf (B.1.1.3, B.2.2),
https://www.w3.org/Graphics/GIF/spec-gif89a.txt, https://developers.google.com/speed/webp/docs/riff_container
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tollspan.tokens.media.source import Source

SEGMENTS: Final = 128
"""Segments of a JPEG that are stepped over; a picture has a dozen."""

_HEADER: Final = 32
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""The markers that start a frame; C4, C8 and CC are others."""
_ALONE: Final = frozenset({0x01, 0xFF, *range(0xD0, 0xD9)})
"""Markers without a length, and the byte that may be repeated before a marker."""


def image_size(source: Source) -> tuple[int, int] | None:
    """Return the width and the height of an image in pixels; None if they cannot be read."""
    head = source.read(0, _HEADER)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _size(head, 16, ">II")
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _size(head, 6, "<HH")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _webp(head)
    return _jpeg(source) if head.startswith(b"\xff\xd8") else None


def _size(head: bytes, at: int, layout: str) -> tuple[int, int] | None:
    if len(head) < at + struct.calcsize(layout):
        return None
    width, height = struct.unpack_from(layout, head, at)
    return (width, height) if width and height else None


def _webp(head: bytes) -> tuple[int, int] | None:
    if len(head) < _HEADER - 2:
        return None
    match head[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(head[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", head, 26)
            return (width & 0x3FFF or 1, height & 0x3FFF or 1)
    return None


def _jpeg(source: Source) -> tuple[int, int] | None:
    at = 2
    for _ in range(SEGMENTS):
        segment = source.read(at, 9)
        if len(segment) < 9 or segment[0] != 0xFF:  # noqa: PLR2004 - marker, length, precision, height, width
            return None
        marker = segment[1]
        if marker in _ALONE:
            at += 1 if marker == 0xFF else 2  # noqa: PLR2004
            continue
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", segment, 5)
            return (width, height) if width and height else None
        at += 2 + max(int.from_bytes(segment[2:4], "big"), 2)
    return None
