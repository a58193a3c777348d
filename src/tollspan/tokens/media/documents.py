"""The pages of a PDF: `page_count(source)`, None if they cannot be read.

The root of the page tree states the number of all pages below it (`/Type /Pages ... /Count 3`); in newer files it is
inside of a compressed object stream. Up to `WHOLE` bytes are read as a whole; of a longer file only its two ends, where
the tree's root usually is, and only a root counts: it has no parent. A file that is linearized states the number of its
pages in its first object. ISO 32000-1, 7.7.3.2 (page tree), 7.5.7 (object streams), F.3.3 (linearized files).
"""

from __future__ import annotations

import re
import zlib
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tollspan.tokens.media.source import Source

WHOLE: Final = 131_072
"""Bytes of a file that is read as a whole; of a longer one, half of that at either end."""
STREAMS: Final = 16
"""Object streams that are decompressed, each up to `STREAM` bytes."""
STREAM: Final = 65_536
COUNTS: Final = 64
"""Counts of a part that are looked at."""

_COUNT: Final = re.compile(rb"/Count\s{0,8}(\d{1,6})(?!\s*\d+\s+R)")
_PAGE: Final = re.compile(rb"/Type\s{0,8}/Page(?![A-Za-z])")
_LINEAR: Final = re.compile(rb"/Linearized\b[^>]{0,512}?/N\s{1,8}(\d{1,6})")
_STREAM: Final = re.compile(rb"[^>]{0,256}>>\s{0,8}stream\r?\n")
_PARENT: Final = b"/Parent"
_AROUND: Final = 16_384
"""Bytes on either side of a count in which the rest of its object is looked for: it lists its pages."""


def page_count(source: Source) -> int | None:
    """Return the number of pages of a PDF, or None if it cannot be read."""
    if b"%PDF-" not in source.read(0, 1024):
        return None
    whole = source.size <= WHOLE
    first = source.read(0, WHOLE if whole else WHOLE // 2)
    last = b"" if whole else source.read(source.size - WHOLE // 2, WHOLE // 2)
    if (linear := _LINEAR.search(first, 0, 2048)) is not None:
        return int(linear[1]) or None
    counts, pages = [0], 0
    for part in (first, last, *_object_streams(first), *_object_streams(last)):
        found = islice(_COUNT.finditer(part), COUNTS)
        counts += [int(match[1]) for match in found if _is_root(part, match.start())]
        pages += len(_PAGE.findall(part)) if whole else 0
    return max(*counts, pages) or None


def _is_root(part: bytes, at: int) -> bool:
    """Return whether the object around a count is a root of pages: bookmarks have counts, too."""
    start = part.rfind(b"<<", max(at - _AROUND, 0), at)
    end = part.find(b">>", at, at + _AROUND)
    node = part[max(start, 0) : end if end >= 0 else at + _AROUND]
    return (b"/Kids" in node or b"/Pages" in node) and _PARENT not in node


def _object_streams(part: bytes) -> Iterator[bytes]:
    """Yield the contents of the compressed object streams."""
    at = 0
    for _ in range(STREAMS):
        at = part.find(b"/ObjStm", at) + 1
        if not at:
            return
        if (start := _STREAM.match(part, at)) is None:
            continue
        try:
            yield zlib.decompressobj().decompress(part[start.end() : start.end() + STREAM], STREAM)
        except zlib.error:  # encrypted, compressed in another way, or cut
            continue
