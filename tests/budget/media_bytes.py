"""Small images, sounds and documents, made by hand, for tests of what their headers say."""

from __future__ import annotations

import struct
import zlib
from typing import Final


def png(width: int, height: int, *, padded: int = 0) -> bytes:
    """Return a PNG header of this size; `padded`: bytes of data behind it."""
    return (
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0) + b"\1" * padded
    )


def jpeg(width: int, height: int, *, segments: int = 1) -> bytes:
    """Return a JPEG up to its frame, behind some segments of a camera."""
    camera = b"\xff\xe1" + struct.pack(">H", 60_002) + b"\xff\xc0" * 30_000  # its thumbnail has frames, too
    frame = b"\xff\xff\xc2" + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(9)
    return b"\xff\xd8" + camera * segments + frame


def gif(width: int, height: int) -> bytes:
    """Return the header of a GIF."""
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(20)


def webp(width: int, height: int, kind: bytes = b"VP8X") -> bytes:
    """Return the header of a WebP: VP8X (extended), VP8L (lossless) or VP8 with a space (lossy)."""
    if kind == b"VP8X":
        data = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == b"VP8L":
        data = b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(8)
    else:
        data = bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(8)
    return b"RIFF" + struct.pack("<I", len(data) + 12) + b"WEBP" + kind + struct.pack("<I", len(data)) + data


def wav(seconds: int, *, stated: int | None = None, rate: int = 16_000) -> bytes:
    """Return a WAV of one byte per sample; `stated`: the length that its header says instead."""
    data = bytes(seconds * rate)
    note = b"LIST" + struct.pack("<I", 5) + b"notes\0"
    layout = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate, 1, 8)
    length = len(data) if stated is None else stated
    return b"RIFF" + bytes(4) + b"WAVE" + note + layout + b"data" + struct.pack("<I", length) + data


FRAME_128: Final = b"\xff\xfb\x90\x00"  # MPEG 1, layer III, 128 kbit/s, 44,100 Hz: 417 bytes
FRAME_64: Final = b"\xff\xfb\x50\x00"  # the same with 64 kbit/s: 208 bytes


def mp3(frames: int, *, tagged: bool = True, counted: int = 0) -> bytes:
    """Return an MP3 of 128 kbit/s; `counted`: the number of frames that its first frame says there are."""
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 2, 0]) + bytes(256) if tagged else b""
    frame = FRAME_128 + bytes(413)
    first = FRAME_128 + bytes(32) + b"Xing\0\0\0\1" + struct.pack(">I", counted) + bytes(369) if counted else b""
    return tag + first + frame * frames


def ogg(seconds: float, *, opus: bool = True, padded: int = 0) -> bytes:
    """Return the first and the last page of an OGG."""
    head = b"OpusHead\1\1" + bytes(9) if opus else b"\x01vorbis" + struct.pack("<IBI", 0, 1, 44_100) + bytes(14)
    position = int(seconds * (48_000 if opus else 44_100))
    return _page(0, head) + bytes(padded) + _page(position, b"sound") + _page(-1, b"no packet ends here")


def _page(granule: int, data: bytes) -> bytes:
    return b"OggS\0\2" + struct.pack("<qIIIBB", granule, 7, 0, 0, 1, len(data)) + data


def flac(seconds: int, rate: int = 44_100) -> bytes:
    """Return the header of a FLAC."""
    bits = rate << 44 | 1 << 41 | 15 << 36 | seconds * rate
    return b"fLaC\x80\0\0\x22" + bytes(10) + bits.to_bytes(8, "big") + bytes(16)


def mp4(seconds: int, *, version: int = 0, brand: bytes = b"M4A ") -> bytes:
    """Return an MP4 whose movie header is behind its data."""
    times = struct.pack(">QQIQ" if version else ">IIII", 0, 0, 600, seconds * 600)
    movie = _box(b"moov", _box(b"mvhd", bytes([version, 0, 0, 0]) + times + bytes(80)) + _box(b"trak", b"..."))
    large = b"\0\0\0\1mdat" + struct.pack(">Q", 1016) + bytes(1000)
    return _box(b"ftyp", brand + bytes(8)) + large + movie


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


def pdf(pages: int, *, packed: bool = False, padded: int = 0) -> bytes:
    """Return a PDF with a tree of pages and bookmarks; `packed`: both are in a compressed object stream."""
    kids = " ".join(f"{number + 10} 0 R" for number in range(pages))
    tree = f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>".encode()
    marks = b"<< /Type /Outlines /First 5 0 R /Count 345 >>"
    if packed:
        objects = zlib.compress(b"1 0 2 60 " + tree + marks)
        body = b"3 0 obj << /Type /ObjStm /N 2 /First 9 /Filter /FlateDecode /Length 99 >> stream\n" + objects
    else:
        body = b"1 0 obj\n" + tree + b"\nendobj\n2 0 obj\n" + marks + b"\nendobj\n"
    return b"%PDF-1.7\n" + b"%" * padded + b"\n" + body + b"\nendstream endobj\ntrailer << /Root 4 0 R >>\n%%EOF"
