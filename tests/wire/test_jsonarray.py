"""A JSON array that arrives element by element."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.cuts import CUTS, cut, split
from tollspan.wire.framing import jsonarray
from tollspan.wire.framing.jsonarray import JsonArray

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT = st.text(max_size=6) | st.sampled_from(['"', "\\", '\\"', "{", "}", "]", "[{", '\\\\"}'])
VALUE = st.recursive(
    st.none() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)
ELEMENTS = st.lists(st.dictionaries(TEXT, VALUE, max_size=3), max_size=5)


@given(elements=ELEMENTS, indent=st.sampled_from([None, 1]), plain=st.booleans(), cuts=CUTS)
def test_elements_come_out_as_they_went_in(
    elements: list[dict[str, Any]],
    indent: int | None,
    plain: bool,
    cuts: list[int],
) -> None:
    """Quotes, escapes and brackets inside strings end nothing; the bytes may be cut anywhere."""
    body = json.dumps(elements, indent=indent, ensure_ascii=not plain).encode("utf-8", "surrogatepass")
    found = split(JsonArray(), cut(body, cuts))
    assert [json.loads(payload) for _, payload in found] == elements


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b"[1, null, true]", b"[[1],[2]]", b'["{"]', b"]}{", b'[{"a": 1'])
def test_what_is_no_object_is_passed_over(body: bytes) -> None:
    """Only whole objects are elements; an unfinished one cannot be read."""
    found = split(JsonArray(), [body])
    assert all(type(json.loads(payload)) is dict for _, payload in found)


@given(body=st.binary(max_size=200) | st.text('[]{}"\\,x', max_size=200).map(str.encode), cuts=CUTS)
def test_any_bytes_raise_nothing(body: bytes, cuts: list[int]) -> None:
    """Bytes that are no JSON raise nothing, and cutting them makes no difference either."""
    assert split(JsonArray(), cut(body, cuts)) == split(JsonArray(), [body])


@pytest.mark.parametrize("pieces", [[b'[{"a":"', b"x" * 50], [b'[{"a":"', b'x\\"' * 17], [b"[", b" ," * 25]])
def test_an_element_without_an_end_is_dropped(pieces: Sequence[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: of an element that grows beyond the limit nothing is kept."""
    monkeypatch.setattr(jsonarray, "MAX_BLOCK", 200)
    framing = JsonArray()
    framing.feed(pieces[0])
    for _ in range(20):
        framing.feed(pieces[1])
        assert len(framing._buffer) <= 200
