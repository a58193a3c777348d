"""Newline-delimited JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tests.wire.cuts import CUTS, cut, split
from tollspan.wire.framing import ndjson
from tollspan.wire.framing.ndjson import JsonLines

if TYPE_CHECKING:
    import pytest


@given(body=st.lists(st.binary(max_size=9), max_size=9).map(b"\n".join), cuts=CUTS)
def test_cutting_makes_no_difference(body: bytes, cuts: list[int]) -> None:
    """Each line that is not blank is a block, the last one too, however the bytes were cut."""
    expected = [("", line) for line in body.split(b"\n") if line.strip()]
    assert split(JsonLines(), cut(body, cuts)) == expected


def test_a_line_without_an_end_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: of a line that grows beyond the limit nothing is kept, and the next one is read."""
    monkeypatch.setattr(ndjson, "MAX_BLOCK", 200)
    framing = JsonLines()
    for _ in range(20):
        assert framing.feed(b"x" * 50) == []
        assert sum(map(len, framing._pieces)) <= 250
    assert split(framing, [b"\n{}\n"])[-1] == ("", b"{}")
