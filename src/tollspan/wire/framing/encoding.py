"""Content encodings (RFC 9110 8.4.1), decoded piece by piece, as the HTTP client does in parallel.

The bytes are tapped below the client's own decoder, so encoded bodies have to be decoded a second time to be read.
"""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from tollspan.model.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Callable


class Decoder(Protocol):
    """Decodes one content encoding."""

    def __call__(self, data: bytes, /) -> bytes:
        """Decode the next piece."""
        ...


MOST: Final = 64 * 1024 * 1024
"""Bytes that a piece may decode to; one that exceeds this was made to fill memory, and is read no further.

The application may pass pieces on encoded, so it need not hold their contents. The decoders of zlib, of brotli from 1.2
on and of the zstd in Python 3.14 and `backports.zstd` can be stopped at a limit.
"""


def _inflated(bits: int) -> Decoder:
    decoder = zlib.decompressobj(bits)

    def decode(data: bytes) -> bytes:
        out = decoder.decompress(data, MOST)
        if decoder.unconsumed_tail:
            raise WireError(_BOMB)
        return out

    return decode


_BOMB: Final = "a piece of the response body is too large once decoded"


def _gzip() -> Decoder:
    return _inflated(zlib.MAX_WBITS | 16)


def _deflate() -> Decoder:
    """Return a decoder for zlib or raw deflate, which some servers send under the same name (RFC 9110 8.4.1.2)."""
    chosen: Decoder | None = None
    head = b""

    def decode(data: bytes) -> bytes:
        nonlocal chosen, head
        if chosen is None:
            head += data
            if len(head) < _ZLIB_HEADER:
                return b""
            data = head
            chosen = _inflated(zlib.MAX_WBITS if _is_zlib(head) else -zlib.MAX_WBITS)
        return chosen(data)

    return decode


_ZLIB_HEADER: Final = 2


def _is_zlib(head: bytes) -> bool:
    """Return whether two bytes are a zlib header: method 8 in the first, together divisible by 31 (RFC 1950 2.2)."""
    return head[0] & 0x0F == zlib.DEFLATED and (head[0] << 8 | head[1]) % 31 == 0


def _brotli() -> Decoder:
    decoder = _first_of("brotli", "brotlicffi").Decompressor()
    process: Callable[..., bytes] = decoder.decompress if hasattr(decoder, "decompress") else decoder.process
    if not hasattr(decoder, "can_accept_more_data"):  # before 1.2
        return process

    def decode(data: bytes) -> bytes:
        out = process(data, output_buffer_limit=MOST)
        if not decoder.can_accept_more_data():
            raise WireError(_BOMB)
        return out

    return decode


def _zstd() -> Decoder:
    """Return a decoder for one zstd frame after another (RFC 8878 3.1: a stream is one or more frames)."""
    module = _first_of("compression.zstd", "backports.zstd", "zstandard")
    plain: bool = module.__name__ != "zstandard"

    def begin() -> Any:
        return module.ZstdDecompressor() if plain else module.ZstdDecompressor().decompressobj()

    frame = begin()

    def decode(data: bytes) -> bytes:
        nonlocal frame
        out = b""
        while data:
            if frame.eof:
                frame = begin()
            out += frame.decompress(data, MOST) if plain else frame.decompress(data)
            if len(out) >= MOST:
                raise WireError(_BOMB)
            data = frame.unused_data if frame.eof else b""
        return out

    return decode


def _first_of(*names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    # Then the client cannot decode it, either: the application reads the encoded bytes.
    message = f"no decoder installed for this content encoding (tried {', '.join(names)})"
    raise WireError(message)


_DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}


def decoder_for(content_encoding: str | None) -> Decoder | None:
    """Return the decoder for a `Content-Encoding` header, or None if nothing is encoded; several are undone in reverse.

    Raises:
        WireError: an encoding is unknown, or no decoder for it is installed.
    """
    names = [name.strip().lower() for name in (content_encoding or "").split(",")]
    chain = [_decoder(name) for name in reversed(names) if name not in {"", "identity"}]
    if not chain:
        return None
    if len(chain) == 1:
        return chain[0]

    def decode(data: bytes) -> bytes:
        for step in chain:
            data = step(data)
        return data

    return decode


def _decoder(name: str) -> Decoder:
    make = _DECODERS.get(name)
    if make is None:
        message = f"unknown content encoding {name!r}"
        raise WireError(message)
    return make()
