"""A document's outline: all its members but the one big array, without parsing that."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.wire.framing.outline import outline

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\[]{},: ', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "usage", "x"]), inner),
    max_leaves=12,
)
MEMBERS = st.dictionaries(st.sampled_from(["object", "model", "usage", "meta", "]"]), VALUES)


@given(before=MEMBERS, array=st.lists(VALUES), behind=MEMBERS, indent=st.sampled_from([None, 1]))
def test_it_has_every_other_member(
    before: dict[str, Any], array: list[Any], behind: dict[str, Any], indent: int | None
) -> None:
    """An outline is the document without the array, with any members before, in and behind it, or there is none."""
    others = {**before, **{name: value for name, value in behind.items() if name not in before}}
    whole = {**before, "data": array, **others}
    assert outline(json.dumps(whole, indent=indent).encode(), b"data") in (others, None)


def test_vectors_are_left_out() -> None:
    """The usual shapes of an answer with vectors have an outline."""
    head, tail = {"object": "list"}, {"model": "m", "usage": {"prompt_tokens": 8}}
    for vectors in ([], [{"embedding": [0.5, 0.25], "index": 0}] * 100, [{"embedding": "AACAPw==", "index": 0}], [[1]]):
        for members in ({**head, "data": vectors, **tail}, {**tail, **head, "data": vectors}):
            for separators in ((",", ":"), (", ", ": ")):
                document = json.dumps(members, separators=separators).encode()
                assert outline(document, b"data") == {**head, **tail}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b'{"model": "m"}',
        b'{"result": {"data": [1], "model": "m"}}',
        b'{"object": "data", "model": "m"}',
        b'{"data": {"a": [1]}, "model": "m"}',
        b'{"model": "m", "data": [1, 2',
        b'{"data": ' + b"[" * 100_000,
    ],
)
def test_what_cannot_be_told_apart_has_none(document: bytes) -> None:
    """Where the array is absent, further down, no array, or cut off, there is no outline: the document is parsed."""
    assert outline(document, b"data") is None
