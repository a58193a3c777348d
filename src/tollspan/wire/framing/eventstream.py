"""AWS event stream framing (vnd.amazon.eventstream): length-prefixed frames with two checksums.

A frame is: total length (4 bytes), headers length (4), CRC-32 of those eight (4), headers, payload, CRC-32 of all
before (4). Integers are big-endian. https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError  # noqa: N812 - a class under a function's name
from typing import Final
from zlib import crc32

from tollspan.model.errors import WireError
from tollspan.wire.framing import MAX_BLOCK

_PRELUDE: Final = Struct("!III")
_LENGTH: Final = Struct("!H")
_CHECKSUM: Final = Struct("!I")
_SMALLEST: Final = _PRELUDE.size + _CHECKSUM.size
# Size of a header's value by type: booleans have none, byte strings (6) and strings (7) carry their length.
_VALUE_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_SIZED: Final = frozenset({6, 7})


class EventStream:
    """Cuts an AWS event stream into frames and verifies their checksums."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the frames that are now complete. Raises WireError if a checksum does not fit."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= _SMALLEST:
            total, _, checksum = _PRELUDE.unpack_from(self._buffer)
            if checksum != crc32(self._buffer[:8]) or not _SMALLEST <= total <= MAX_BLOCK:
                message = "event stream prelude does not fit its checksum"
                raise WireError(message)
            if len(self._buffer) < total:
                break
            frame = bytes(self._buffer[:total])
            del self._buffer[:total]
            if _CHECKSUM.unpack(frame[-4:])[0] != crc32(frame[:-4]):
                message = "event stream frame does not fit its checksum"
                raise WireError(message)
            frames.append(frame)
        return frames

    def close(self) -> list[bytes]:
        """Drop an unfinished frame, which cannot be read; return no more."""
        self._buffer.clear()
        return []

    def split(self, block: bytes) -> tuple[str, bytes]:
        """Return a frame's `:event-type` (of an error `:exception-type` or `:error-code`) and its payload."""
        size = _PRELUDE.unpack_from(block)[1]
        end = _PRELUDE.size + size
        headers = _headers(block[_PRELUDE.size : end])
        name = headers.get(":event-type") or headers.get(":exception-type") or headers.get(":error-code") or ""
        return name, block[end:-4]


def _headers(data: bytes) -> dict[str, str]:
    """Return the string headers; values of other types are skipped."""
    headers, at = {}, 0
    try:
        while at < len(data):
            size = data[at]
            name = data[at + 1 : at + 1 + size].decode("utf-8", "replace")
            value_type = data[at + 1 + size]
            at += 2 + size
            if value_type in _SIZED:
                (length,) = _LENGTH.unpack_from(data, at)
                headers[name] = data[at + 2 : at + 2 + length].decode("utf-8", "replace")
                at += 2 + length
            else:
                at += _VALUE_SIZES[value_type]
    except (IndexError, KeyError, StructError) as error:
        message = f"event stream headers cannot be read: {error}"
        raise WireError(message) from error
    return headers
