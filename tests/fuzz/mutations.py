"""Makes new inputs of kept ones (see `targets.py`): heads exchanged, bodies edited and packed again.

A fuzzer that only flips bytes ends at the first checksum, at the first compressed byte and at the first quote. Bodies
are edited as they are inside, and packed again after that.
"""

from __future__ import annotations

import re
import zlib
from contextlib import suppress
from struct import pack, pack_into
from typing import TYPE_CHECKING, Final

import brotli  # type: ignore[import-untyped]
import zstandard

from tests.fuzz.generated_bodies import words
from tests.fuzz.targets import CONTENT_TYPES, DIALECTS, ENCODINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

SIZES: Final = (1, 2, 3, 7, 16, 17, 61, 256, 4096)
LONGEST: Final = 8192
"""Bytes of a body: edits that double it come to an end."""

TOKENS: Final = (
    b"\n", b"\n\n", b"\r\n\r\n", b"\r", b"data: ", b"data:", b"event: ", b": ping\n\n", b"data: [DONE]\n\n", b"[", b"]",
    b"{", b"}", b'"', b"\\", b",", b":", b"null", b"true", b"-1", b"0", b"1e999", b"9" * 40, b"NaN", b"\x00", b"\xff",
    b"\xef\xbb\xbf", b"\\ud800", "ä€😀".encode(), b"<html>", b'"usage":', b'"usage":{', b'"error":',
)  # fmt: skip
_NUMBER: Final = re.compile(rb"\d+")
_TEXT: Final = re.compile(rb'"[^"\\\n]{0,40}"')
_SMALLEST: Final = 16  # bytes of an AWS frame without headers and payload

PACKERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda body: zlib.compress(body, 1, wbits=31),
    "deflate": lambda body: zlib.compress(body, 1),
    "br": lambda body: brotli.compress(body, quality=1),
    "zstd": zstandard.ZstdCompressor(level=1).compress,
}


class Mutator:
    """Return inputs made of a corpus' by the numbers of a `Random`: the same numbers, the same inputs."""

    def __init__(self, corpus: Sequence[bytes]) -> None:
        """Take the corpus; what is compressed in it is edited as it is inside."""
        self._kept = [_unpacked(*_parts(data)) for data in corpus]
        self._tokens = (*TOKENS, *(f'"{word}":'.encode() for word in words()), *(b'"%s"' % w.encode() for w in words()))

    def make(self, random: Random) -> bytes:
        """Return an input."""
        head, body = random.choice(self._kept)
        if random.random() < 0.3:
            head = self._other_head(random, head)
        for _ in range(1 + int(random.expovariate(0.5))):
            body = self._edited(random, body)[:LONGEST]
        return b" ".join(head) + b"\n" + self._packed(random, head, body)

    def _other_head(self, random: Random, head: list[bytes]) -> list[bytes]:
        known: tuple[Sequence[object], ...] = (DIALECTS, CONTENT_TYPES, ENCODINGS, SIZES)
        return [
            word if random.random() < 0.5 else str(random.choice(known[at])).encode() for at, word in enumerate(head)
        ]

    def _edited(self, random: Random, body: bytes) -> bytes:  # noqa: PLR0911 - one for each kind of edit
        at = random.randrange(len(body) + 1)
        length = min(int(random.expovariate(0.1)), 200)
        match random.randrange(9):
            case 0:
                return body[:at] + random.randbytes(1) + body[at + 1 :]
            case 1:
                return body[:at] + body[at + length :]
            case 2:
                return body[: at + length] + body[at:]
            case 3:
                return body[:at] + random.choice(self._tokens) + body[at + random.choice((0, 0, length)) :]
            case 4:
                other = random.choice(self._kept)[1]
                return body[:at] + other[random.randrange(len(other) + 1) :]
            case 5:
                return body[:at]
            case 6:
                return _replaced(
                    _NUMBER, body, at, random.choice((b"0", b"-5", b"1.5", b"9" * 25, b"null", b'"7"', b"{}"))
                )
            case 7:
                return _replaced(_TEXT, body, at, random.choice(self._tokens).rstrip(b":"))
        return body[:at] + random.randbytes(length) + body[at:]

    @staticmethod
    def _packed(random: Random, head: list[bytes], body: bytes) -> bytes:
        if b"amazon" in head[1] and random.random() < 0.8:
            body = _reframed(body)
        pack_body = PACKERS.get(head[2].decode("latin-1"))
        return body if pack_body is None or random.random() < 0.2 else pack_body(body)


def _parts(data: bytes) -> tuple[list[bytes], bytes]:
    head, _, body = data.partition(b"\n")
    return [*head.split(b" "), b"-", b"-", b"-", b"-"][:4], body


def _unpacked(head: list[bytes], body: bytes) -> tuple[list[bytes], bytes]:
    if head[2] in {b"gzip", b"deflate"}:
        with suppress(zlib.error):  # an input that once broke something may be no such thing
            body = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, LONGEST)
    return head, body


def _replaced(pattern: re.Pattern[bytes], body: bytes, at: int, put: bytes) -> bytes:
    """Put something in the place of what matches next."""
    found = pattern.search(body, at) or pattern.search(body)
    return body if found is None else body[: found.start()] + put + body[found.end() :]


def _reframed(body: bytes) -> bytes:
    """Restore the lengths and checksums of AWS event stream frames, as far as frames can be recognized."""
    frames, at = [], 0
    while len(body) - at >= _SMALLEST:
        total = int.from_bytes(body[at : at + 4])
        if not _SMALLEST <= total <= len(body) - at:
            total = len(body) - at
        frame = bytearray(body[at : at + total])
        pack_into("!I", frame, 0, total)
        pack_into("!I", frame, 8, zlib.crc32(frame[:8]))
        frame[-4:] = pack("!I", zlib.crc32(frame[:-4]))
        frames.append(bytes(frame))
        at += total
    return b"".join(frames) + body[at:]
