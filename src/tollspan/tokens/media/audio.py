"""The length of a sound out of its headers: WAV, MP3, OGG (Opus, Vorbis), FLAC, and MP4 (also of its pictures).

`audio_seconds(source)` returns seconds, or None if the bytes are not such a sound or do not say. An MP3 of variable
bitrate without a header that counts its frames is taken at the lowest bitrate of its first frames.
http://soundfile.sapp.org/doc/WaveFormat, https://www.datavoyage.com/mpgscript/mpeghdr.htm,
https://www.rfc-editor.org/rfc/rfc3533 (pages of OGG), https://www.rfc-editor.org/rfc/rfc9639 (FLAC, 8.2), ISO 14496-12
(MP4, 8.2.2)
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from tollspan.tokens.media.source import Source

CHUNKS: Final = 64
"""Chunks of a WAV file, or boxes of an MP4 file, that are stepped over."""
FRAMES: Final = 64
"""Frames of an MP3 file whose bitrates are compared."""

_TAIL: Final = 65_536  # bytes: the longest page of an OGG file has 65,307


def audio_seconds(source: Source) -> float | None:
    """Return the length of a sound in seconds; None if it cannot be read."""
    head = source.read(0, 64)
    if head.startswith((b"RIFF", b"RF64")) and head[8:12] == b"WAVE":
        return _wav(source)
    if head.startswith(b"fLaC"):
        return _flac(head)
    if head.startswith(b"OggS"):
        return _ogg(source, head)
    if head[4:8] == b"ftyp":
        return _mp4(source)
    if head.startswith(b"ID3") or _frame(head) is not None:
        return _mp3(source, head)
    return None


def _wav(source: Source) -> float | None:
    at, rate = 12, 0
    for _ in range(CHUNKS):
        chunk = source.read(at, 24)
        if len(chunk) < 8:  # noqa: PLR2004 - name and length
            return None
        name, length = chunk[:4], int.from_bytes(chunk[4:8], "little")
        if name == b"fmt " and len(chunk) >= 20:  # noqa: PLR2004
            rate = int.from_bytes(chunk[16:20], "little")  # bytes per second
        elif name == b"data":
            there = max(source.size - at - 8, 0)
            # A recorder that writes to a pipe does not know the length: 0, or the largest number.
            return (length if 0 < length <= there else there) / rate if rate else None
        at += 8 + length + length % 2
    return None


def _flac(head: bytes) -> float | None:
    if len(head) < 26:  # noqa: PLR2004
        return None
    bits = int.from_bytes(head[18:26], "big")
    rate, samples = bits >> 44, bits & ((1 << 36) - 1)
    return samples / rate if rate and samples else None


def _ogg(source: Source, head: bytes) -> float | None:
    rate = 0
    if (found := head.find(b"OpusHead")) >= 0:
        rate = 48_000  # whatever the rate of its input: https://www.rfc-editor.org/rfc/rfc7845, 4
    elif (found := head.find(b"\x01vorbis")) >= 0:
        rate = int.from_bytes(head[found + 12 : found + 16], "little")
    tail = source.read(max(source.size - _TAIL, 0), _TAIL)
    page = len(tail)
    while rate and (page := tail.rfind(b"OggS", 0, page)) >= 0:
        granule = tail[page + 6 : page + 14]
        if len(granule) == 8 and (position := int.from_bytes(granule, "little", signed=True)) > 0:  # noqa: PLR2004
            return position / rate
    return None


def _mp4(source: Source) -> float | None:
    movie = _box(source, 0, source.size, b"moov")
    header = None if movie is None else _box(source, *movie, b"mvhd")
    if header is None:
        return None
    data = source.read(header[0], 32)
    layout, at = (">IQ", 20) if data[:1] == b"\1" else (">II", 12)  # version 1 has times of 8 bytes
    if len(data) < at + struct.calcsize(layout):
        return None
    scale, duration = struct.unpack_from(layout, data, at)
    return duration / scale if scale and duration else None


def _box(source: Source, at: int, end: int, name: bytes) -> tuple[int, int] | None:
    """Return where the content of a box starts and ends that is between these bytes; None if it is not there."""
    for _ in range(CHUNKS):
        head = source.read(at, 16)
        if at >= end or len(head) < 8:  # noqa: PLR2004 - length and name
            return None
        length, skipped = int.from_bytes(head[:4], "big"), 8
        if length == 1:
            length, skipped = int.from_bytes(head[8:16], "big"), 16
        if head[4:8] == name:
            return at + skipped, at + length if length else end
        if length < skipped:
            return None
        at += length
    return None


class _Frame(NamedTuple):
    """A frame of an MP3 file: bits per second, samples per second, samples, bytes, and where its count may be."""

    bitrate: int
    rate: int
    samples: int
    size: int
    side: int


_BITRATES: Final = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # kbit/s of MPEG 1, layer III
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # of MPEG 2 and 2.5
}
_RATES: Final = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_LAYER_3: Final = 1
_MONO: Final = 3


def _frame(header: bytes) -> _Frame | None:
    """Return the frame that starts with these bytes, if one does."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:  # noqa: PLR2004
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bitrate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer != _LAYER_3 or bitrate in {0, 15} or rate == 3:  # noqa: PLR2004 - reserved values
        return None
    first = version == 3  # noqa: PLR2004 - MPEG 1
    bits, hertz = _BITRATES[first][bitrate] * 1000, _RATES[version][rate]
    samples = 1152 if first else 576
    mono = header[3] >> 6 == _MONO
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return _Frame(bits, hertz, samples, samples // 8 * bits // hertz + padding, 4 + side)


def _mp3(source: Source, head: bytes) -> float | None:
    at = 0
    if head.startswith(b"ID3"):
        at = 10 + sum((byte & 0x7F) << 7 * place for place, byte in enumerate(reversed(head[6:10])))
    start, frame = _first_frame(source, at)
    if frame is None:
        return None
    counted = _counted_frames(source.read(start, 200), frame)
    if counted:
        return counted * frame.samples / frame.rate
    lowest, at = frame.bitrate, start
    for _ in range(FRAMES):
        at += frame.size
        following = _frame(source.read(at, 4))
        if following is None:
            break
        frame = following
        lowest = min(lowest, frame.bitrate)
    return max(source.size - start, 0) * 8 / lowest


def _first_frame(source: Source, at: int) -> tuple[int, _Frame | None]:
    """Return where the first frame is, behind at most 4,096 bytes of padding, and the frame."""
    data = source.read(at, 4096)
    found = data.find(b"\xff")
    while found >= 0:
        if (frame := _frame(data[found : found + 4])) is not None:
            return at + found, frame
        found = data.find(b"\xff", found + 1)
    return at, None


def _counted_frames(data: bytes, frame: _Frame) -> int | None:
    """Return the number of frames that a Xing, Info or VBRI header states."""
    mark = data[frame.side : frame.side + 4]
    if mark in {b"Xing", b"Info"} and data[frame.side + 7 : frame.side + 8] and data[frame.side + 7] & 1:
        return int.from_bytes(data[frame.side + 8 : frame.side + 12], "big")
    if data[36:40] == b"VBRI" and len(data) >= 54:  # noqa: PLR2004
        return int(struct.unpack_from(">I", data, 50)[0])
    return None
