"""The AWS event stream: length-prefixed frames with two checksums."""

from __future__ import annotations

import contextlib
from struct import pack
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.cuts import CUTS, cut, split
from tests.wire.frames import frame, header, raw_frame
from tollspan.model.errors import WireError
from tollspan.wire.framing import MAX_BLOCK
from tollspan.wire.framing.eventstream import EventStream

NAMES = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=9)
FRAMES = st.lists(
    st.builds(
        lambda name, payload: (name, payload, raw_frame(header(":event-type", name), payload)), NAMES, st.binary()
    ),
    max_size=5,
)


@given(frames=FRAMES, cuts=CUTS)
def test_cutting_makes_no_difference(frames: list[tuple[str, bytes, bytes]], cuts: list[int]) -> None:
    """Each frame yields its event's name and its payload, however the bytes were cut."""
    body = b"".join(whole for _, _, whole in frames)
    assert split(EventStream(), cut(body, cuts)) == [(name, payload) for name, payload, _ in frames]


@given(frames=FRAMES, at=st.integers(0, 2_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_read(frames: list[tuple[str, bytes, bytes]], at: int, bit: int) -> None:
    """Bytes that do not fit their checksums are refused; the frames before them stand."""
    body = bytearray(b"".join(whole for _, _, whole in frames))
    if not body:
        return
    body[at % len(body)] ^= 1 << bit
    framing, found = EventStream(), []
    with contextlib.suppress(WireError):
        for byte in body:
            found += [framing.split(block) for block in framing.feed(bytes((byte,)))]
    assert found == [(name, payload) for name, payload, _ in frames][: len(found)]
    assert len(found) < len(frames)


@given(body=st.binary(max_size=300), cuts=CUTS)
def test_any_bytes_raise_wire_error_or_nothing(body: bytes, cuts: list[int]) -> None:
    """Bytes that are no frames are refused, not read."""
    with contextlib.suppress(WireError):
        assert split(EventStream(), cut(body, cuts)) == []


@given(headers=st.binary(max_size=60), payload=st.binary(max_size=60))
def test_any_headers_raise_wire_error_or_nothing(headers: bytes, payload: bytes) -> None:
    """Headers that cannot be read are refused, though the checksums fit."""
    with contextlib.suppress(WireError):
        ((_, found),) = split(EventStream(), [raw_frame(headers, payload)]) or [("", b"")]
        assert found == payload


@pytest.mark.parametrize("length", [0, 15, MAX_BLOCK + 1, 2**32 - 1])
def test_a_frame_of_impossible_length_is_refused(length: int) -> None:
    """No frame is shorter than its own lengths and checksums, and none so long that memory would not be bounded."""
    prelude = pack("!II", length, 0)
    with pytest.raises(WireError, match="prelude"):
        EventStream().feed(prelude + pack("!I", crc32(prelude)) + b"1234")


def test_an_unfinished_frame_is_dropped() -> None:
    """A stream that broke off in the middle of a frame yields the frames before it."""
    body = frame("a", {"x": 1}) + frame("b", {"y": 2})
    assert split(EventStream(), [body[:-1]]) == [("a", b'{"x":1}')]


def test_headers_of_every_type_are_passed_over() -> None:
    """Only strings are read; a header of another type has its own length."""
    others = b"".join(
        bytes((1,)) + b"h" + bytes((kind,)) + b"\0" * size
        for kind, size in {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}.items()
    )
    data = others + b"\x01h\x06\x00\x02\xff\xff" + header(":event-type", "metadata")
    assert split(EventStream(), [raw_frame(data, b"{}")]) == [("metadata", b"{}")]


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        (header(":exception-type", "throttlingException"), "throttlingException"),
        (header(":error-code", "InternalError") + header(":error-message", "?"), "InternalError"),
        (header(":message-type", "event"), ""),
    ],
)
def test_an_error_is_named_by_its_own_header(headers: bytes, name: str) -> None:
    """Exceptions and errors have headers of their own for their names."""
    assert EventStream().split(raw_frame(headers, b"{}"))[0] == name
