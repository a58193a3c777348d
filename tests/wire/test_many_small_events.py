"""A body of many tiny events, which a few kilobytes of gzip can be, takes few steps: the application waits for each."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from tollspan.capture.stream_usage import UsageChunkFilter
from tollspan.model.records import Facts
from tollspan.wire.dialects import load
from tollspan.wire.reader import MOST_SMALL, Reader

if TYPE_CHECKING:
    from collections.abc import Callable

MEGABYTE = 1_000_000
EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'


def steps(work: Callable[[], object]) -> int:
    """Return how many functions are called by some work, of Python and of C."""
    count = 0

    def count_calls(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(count_calls)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def read(content_type: str, *pieces: bytes) -> Facts:
    """Return what a stream says."""
    facts = Facts()
    facts.stream = True
    reader = Reader(load("openai_chat"), facts, content_type)
    for piece in pieces:
        reader.feed(piece)
    reader.close()
    return facts


@pytest.mark.parametrize("first", [b"", EVENT])
@pytest.mark.parametrize("unit", [b"\r", b"\n", b":\n\n", b"a\n\n", b"data\n\n", b"data: x\n\n", b"event: x\n\n"])
def test_events_without_an_object(first: bytes, unit: bytes) -> None:
    """Blank lines, comments and words are passed over together."""
    body = first + unit * (MEGABYTE // len(unit))
    assert steps(lambda: read("text/event-stream", body)) < 1000


@pytest.mark.parametrize("unit", [b"\n", b" \r\n", b"x\n", b"12\n"])
def test_lines_without_an_object(unit: bytes) -> None:
    """The same in JSON lines."""
    body = b'{"a":1}\n' + unit * (MEGABYTE // len(unit))
    assert steps(lambda: read("application/x-ndjson", body)) < 1000


@pytest.mark.parametrize("unit", [b"data: {}\n\n", b'data: {"a":1}\n\n', b"event: x\ndata: {}\n\n"])
def test_tiny_objects_are_parsed_up_to_a_number(unit: bytes) -> None:
    """After many of them, only events that can have facts are looked at; those are read as ever."""
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
    many = unit * (20 * MOST_SMALL)
    few = steps(lambda: read("text/event-stream", unit * MOST_SMALL))
    assert steps(lambda: read("text/event-stream", many)) < 1.1 * few
    found = read("text/event-stream", many + usage).usage
    assert found is not None
    assert (found.input, found.output) == (7, 2)


@pytest.mark.parametrize("unit", [b"\r", b"\n\n", b"data: {}\n\n", b"data: []\r\n\r\n"])
def test_the_filter_of_usage_passes_them_on_together(unit: bytes) -> None:
    """The filter that takes the chunk of usage out looks only at events that may be it."""
    body, chunk_filter = unit * (MEGABYTE // len(unit)), UsageChunkFilter()
    passed: list[bytes] = []
    assert steps(lambda: passed.append(chunk_filter.feed(body) + chunk_filter.close())) < 200
    assert passed == [body]
