"""Server-sent events, by the rules of WHATWG HTML 9.2.6."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.cuts import CUTS, cut, split
from tollspan.wire.framing import sse
from tollspan.wire.framing.sse import ServerSentEvents

TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8).map(str.encode)
FIELDS = st.sampled_from([b"data", b"event", b"id", b"retry", b"", b"date"])
LINE = st.builds(lambda name, space, value: name + b":" + space + value, FIELDS, st.sampled_from([b"", b" "]), TEXT)
BLOCK = st.lists(LINE, min_size=1, max_size=4)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 7, 10**9])
def test_lines_end_in_any_of_three_ways(end: bytes, size: int) -> None:
    """LF, CRLF and CR end a line; a comment is no event, several data lines are one text."""
    lines = [b": hello", b"", b"event: delta", b"data: one", b"data:two", b"id: 7", b"", b"data: [DONE]", b"", b""]
    body = end.join(lines)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert split(ServerSentEvents(), pieces) == [("delta", b"one\ntwo"), ("", b"[DONE]")]


def test_a_byte_order_mark_is_no_part_of_a_field() -> None:
    """One mark may stand before the stream."""
    assert split(ServerSentEvents(), [b"\xef\xbb\xbfdata: x\n\n"]) == [("", b"x")]


def test_a_last_event_without_a_blank_line_is_given() -> None:
    """Unlike the standard: providers end their streams that way, and the last event is the one that counts."""
    assert split(ServerSentEvents(), [b"data: a\n\nevent: end\ndata: b"]) == [("", b"a"), ("end", b"b")]


def test_one_space_after_the_colon_is_no_part_of_the_value() -> None:
    """One is dropped, a second one is the value's own."""
    assert split(ServerSentEvents(), [b"event: e\ndata:  x\n\n"]) == [("e", b" x")]


@given(blocks=st.lists(BLOCK, max_size=6), end=ENDS, cuts=CUTS)
def test_cutting_makes_no_difference(blocks: list[list[bytes]], end: bytes, cuts: list[int]) -> None:
    """The same events come out however the bytes were cut, in the middle of a CRLF too."""
    body = b"".join(end.join(block) + end + end for block in blocks)
    whole = split(ServerSentEvents(), [body])
    assert split(ServerSentEvents(), cut(body, cuts)) == whole


@given(body=st.binary(max_size=300) | st.text("\r\n:datevn ", max_size=300).map(str.encode), cuts=CUTS)
def test_blocks_stand_in_the_text_as_they_are_given_one_by_one(body: bytes, cuts: list[int]) -> None:
    """Who looks for the ends of blocks in the text comes to the same blocks, with as many blank lines as there are."""
    one, other = ServerSentEvents(), ServerSentEvents()
    for piece in cut(body, cuts):
        text, found, at = one.whole(piece), [], 0
        while at < len(text):
            end = one.end(text, at)
            found.append(text[at:end])
            at = end + len(one.gap)
        assert found == other.feed(piece)
    assert one.close() == other.close()


@given(body=st.binary(max_size=300) | st.text("\r\n:datevn ", max_size=300).map(str.encode), cuts=CUTS)
def test_any_bytes_raise_nothing(body: bytes, cuts: list[int]) -> None:
    """Bytes that are no event stream are blocks without data."""
    split(ServerSentEvents(), cut(body, cuts))


@pytest.mark.parametrize("piece", [b"x" * 50, b"x\n" * 25, b"x\r" * 25])
def test_an_event_without_an_end_is_dropped(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: of an event that grows beyond the limit nothing is kept, and the next one is read."""
    monkeypatch.setattr(sse, "MAX_BLOCK", 200)
    framing = ServerSentEvents()
    for _ in range(20):
        assert framing.feed(piece) == []
        assert sum(map(len, framing._pieces)) <= 200 + len(piece)
    assert ("", b"next") in split(framing, [b"\n\n", b"data: next\n\n"])


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_without_end_take_their_time_only(end: bytes) -> None:
    """A block of ever more lines is joined once: what it takes grows with its bytes, and not with their square."""
    line = b"data: " + b"x" * 100 + end
    framing = ServerSentEvents()
    for _ in range(30_000):  # minutes, where every line has all before it joined again
        assert framing.feed(line) == []
    (block,) = framing.feed(end)[:1] or framing.close()
    assert len(framing.split(block)[1]) == 30_000 * 101 - 1


def test_lines_without_blank_ones_are_joined_once() -> None:
    """A server that never sends a blank line makes no piece be looked at twice: all wait for the end."""
    framing = ServerSentEvents()
    assert [framing.feed(b"data: {}\n") for _ in range(1000)] == [[]] * 1000
    assert len(framing._pieces) == 1000
    assert framing.close() == [b"\n".join([b"data: {}"] * 1000)]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n"])
def test_blank_line_is_seen_across_pieces(end: bytes) -> None:
    """A blank line ends a block wherever it is cut."""
    for at in range(1, len(end)):
        framing = ServerSentEvents()
        blocks = [*framing.feed(b"data: a" + end[:at]), *framing.feed(end[at:] + b"data: b"), *framing.feed(end)]
        assert [framing.split(block)[1] for block in [*blocks, *framing.close()]] == [b"a", b"b"]


@given(st.lists(st.one_of(BLOCK.map(b"\n".join), st.sampled_from([b"data: {}", b'event: x\ndata:{"a":1}', b"", b":"]))))
def test_every_block_that_may_have_an_object_is_found(blocks: list[bytes]) -> None:
    """What `start` passes over has no payload that is an object, and no end mark."""
    framing = ServerSentEvents()
    text = framing.whole(b"".join(block + b"\n\n" for block in blocks))
    at, found = 0, []
    while (at := framing.start(text, at)) < len(text):
        end = framing.end(text, at)
        found.append(framing.split(text[at:end]))
        at = end + len(framing.gap)
    every = [framing.split(block) for block in text.split(sse.GAP)[:-1]]
    wanted = [event for event in every if event[1].lstrip().startswith(b"{") or event[1] == b"[DONE]"]
    assert [event for event in found if event in wanted] == wanted
