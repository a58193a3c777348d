"""Content encodings, undone piece by piece."""

from __future__ import annotations

import gzip
import sys
import zlib
from importlib import import_module
from typing import TYPE_CHECKING

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.cuts import CUTS, cut
from tollspan.model.errors import WireError
from tollspan.model.records import Facts, Usage
from tollspan.wire.dialects import load
from tollspan.wire.framing import encoding
from tollspan.wire.framing.encoding import decoder_for
from tollspan.wire.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable


def raw_deflate(data: bytes) -> bytes:
    """Return the data without zlib's header and checksum, as some servers send `deflate`."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ENCODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", brotli.compress),
    ("zstd", zstandard.ZstdCompressor().compress),
    ("gzip, deflate", lambda data: zlib.compress(gzip.compress(data))),
    (" GZIP , identity", gzip.compress),
    ("zstd", lambda data: b"".join(zstandard.compress(half) for half in (data[:9], data[9:]))),
]
NAMES = ["gzip", "x-gzip", "deflate", "raw-deflate", "br", "zstd", "two", "spelling", "frames"]


@pytest.mark.parametrize("zstd", ["compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd", "zstandard"])
def test_zstd_is_undone_by_whichever_package_is_there(zstd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own module, its backport and the older package are one to us."""
    found = import_module(zstd)

    def only(module: str) -> object:
        if module == zstd:
            return found
        raise ImportError(module)

    monkeypatch.setattr(encoding, "import_module", only)
    decode = decoder_for("zstd")
    assert decode is not None
    body = zstandard.compress(b"one ") + zstandard.compress(b"two")
    assert b"".join(decode(bytes((byte,))) for byte in body) + decode(b"") == b"one two"


@pytest.mark.parametrize(("name", "encode"), ENCODINGS, ids=NAMES)
@given(data=st.binary(max_size=400), cuts=CUTS)
def test_what_was_encoded_comes_out(name: str, encode: Callable[[bytes], bytes], data: bytes, cuts: list[int]) -> None:
    """Every encoding is undone however it was cut, after its first byte too; several are undone in reverse."""
    decode = decoder_for(name)
    assert decode is not None
    assert b"".join(decode(piece) for piece in cut(encode(data), cuts)) == data


@pytest.mark.parametrize("name", [None, "", "identity", " identity , "])
def test_nothing_is_to_be_undone(name: str | None) -> None:
    """Without an encoding there is no decoder."""
    assert decoder_for(name) is None


def test_an_unknown_encoding_is_named() -> None:
    """An unknown encoding is refused by name."""
    with pytest.raises(WireError, match="compress"):
        decoder_for("gzip, compress")


@pytest.mark.parametrize("name", ["br", "zstd"])
def test_a_missing_decoder_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no package is installed for an encoding, the error says which were looked for."""

    def missing(module: str) -> None:
        raise ImportError(module)

    monkeypatch.setattr(encoding, "import_module", missing)
    with pytest.raises(WireError, match="no decoder installed"):
        decoder_for(name)


@pytest.mark.parametrize(("name", "encode"), ENCODINGS[:6], ids=NAMES[:6])
@given(at=st.integers(0, 2_000), bit=st.integers(0, 7))
def test_damage_raises_wire_error_or_nothing(name: str, encode: Callable[[bytes], bytes], at: int, bit: int) -> None:
    """A body that does not follow its encoding is refused by the reader, never with the library's own error."""
    body = bytearray(encode(b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}' * 5))
    body[at % len(body)] ^= 1 << bit
    reader = Reader(load("openai_chat"), Facts(), "application/json", name)
    try:
        reader.feed(bytes(body))
        reader.close()
    except WireError as error:
        assert "encoding" in str(error)  # noqa: PT017 - most damage is not noticed: then nothing is raised


@pytest.mark.parametrize(("name", "encode"), ENCODINGS, ids=NAMES)
@pytest.mark.parametrize("size", [1, 7, 10**9])
def test_an_encoded_body_is_read(name: str, encode: Callable[[bytes], bytes], size: int) -> None:
    """The reader is given encoded bytes, as the client is, and reads what is in them."""
    facts = Facts()
    reader = Reader(load("openai_chat"), facts, "application/json", name)
    body = encode(b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}')
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    reader.close()
    assert facts.usage == Usage(input=3, output=4)


# brotli can be stopped from 1.2 on, zstd where it is not the package `zstandard` that undoes it.
STOPPABLE = [
    (name, encode) for name, encode in ENCODINGS if name != "br" or hasattr(brotli.Decompressor, "can_accept_more_data")
]


@pytest.mark.parametrize(("name", "encode"), STOPPABLE)
def test_what_fills_memory_is_read_no_further(
    name: str, encode: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few bytes that would become very many are an error, and what is just below comes out."""
    monkeypatch.setattr(encoding, "MOST", 1_000_000)
    decode = decoder_for(name)
    assert decode is not None
    with pytest.raises(WireError, match="too large"):
        decode(encode(b"a" * 50_000_000))
    decode = decoder_for(name)
    assert decode is not None
    assert decode(encode(b"a" * 999_999)) == b"a" * 999_999
