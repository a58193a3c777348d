"""Framings by name, and dialects that list the framing of a content type."""

from __future__ import annotations

import json

import pytest

from tollspan.model.records import Facts, Usage
from tollspan.wire.dialects.dialect import Dialect
from tollspan.wire.framing.jsonarray import JsonArray
from tollspan.wire.framing.named import add_framing, framing_named, is_built_in
from tollspan.wire.framing.ndjson import JsonLines
from tollspan.wire.reader import Reader


def _read_event(facts: Facts, name: str, event: dict[str, object], /) -> None:
    facts.finish_reasons = [*facts.finish_reasons, name or "event"]
    if type(tokens := event.get("tokens")) is int:
        facts.usage = Usage(output=tokens)


def _read_response(facts: Facts, body: dict[str, object], /) -> None:
    facts.finish_reasons = ["document"]
    if type(tokens := body.get("tokens")) is int:
        facts.usage = Usage(output=tokens)


MADE = Dialect(
    name="made",
    read_event=_read_event,
    read_response=_read_response,
    framings={"text/plain": "ndjson", "application/json": "jsonarray"},
)
"""A format that sends lines under the label of plain text, and arrays under that of JSON."""

EVENTS = [{"word": "a"}, {"word": "b"}, {"tokens": 2}]


def read(body: bytes, content_type: str, size: int, *, whole: bool = False) -> Facts:
    """Return the facts of a body that comes in pieces of this size, or at once."""
    facts = Facts()
    reader = Reader(MADE, facts, content_type)
    if whole:
        reader.take(body)
        return facts
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    reader.close()
    return facts


@pytest.mark.parametrize("size", [1, 7, 10**9])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("parameters", ["", "; charset=utf-8", " ;x=1"])
def test_a_dialect_decides_the_framing_of_its_content_types(size: int, parameters: str, *, whole: bool) -> None:
    """The listed framing is used for a content type with any parameters, for pieces of any size."""
    lines = b"".join(json.dumps(event).encode() + b"\n" for event in EVENTS)
    for body, content_type in ((lines, "text/plain"), (json.dumps(EVENTS).encode(), "Application/JSON")):
        facts = read(body, content_type + parameters, size, whole=whole)
        assert facts.finish_reasons == ["event"] * 3
        assert facts.usage == Usage(output=2)


@pytest.mark.parametrize("size", [1, 7, 10**9])
def test_other_content_types_are_framed_by_their_first_bytes(size: int) -> None:
    """A content type that is not listed is chosen by its bytes: an error, for example, is a document."""
    facts = read(b'{"tokens": 3}', "application/problem+json", size)
    assert (facts.finish_reasons, facts.usage) == (["document"], Usage(output=3))
    facts = read(b'data: {"tokens": 4}\n\n', "text/event-stream", size)
    assert (facts.finish_reasons, facts.usage) == (["event"], Usage(output=4))


def test_framings_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built-in framings keep their names; one of another package is found once it was added."""
    monkeypatch.setattr("tollspan.wire.framing.named._ADDED", {})
    assert framing_named("ndjson") is JsonLines
    assert framing_named("jsonarray") is JsonArray
    with pytest.raises(LookupError, match="no framing named 'acme'"):
        framing_named("acme")
    add_framing("acme", JsonArray)
    add_framing("ndjson", JsonArray)
    assert framing_named("acme") is JsonArray
    assert framing_named("ndjson") is JsonLines
    assert is_built_in("ndjson")
    assert not is_built_in("acme")
