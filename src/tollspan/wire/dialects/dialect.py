"""What a wire format is to the reader: four functions and the words by which facts are found.

A dialect reads three things into `Facts`: the request's body, a plain response's body, and the events of a stream. It
never raises on strange input (the readers in `fields.py` give None for what is not there or not of its type), and it
never looks at text: only at counts, names and states.

Most events of a stream carry nothing but a piece of text. They are not even parsed: `facts_in` lists what the raw
bytes of an event contain when it does carry facts. JSON escapes quotes inside strings, so `"usage":` can never be
part of a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.model.records import Facts

Json = dict[str, Any]


class ReadBody(Protocol):
    """Reads a request's or a plain response's JSON object."""

    def __call__(self, facts: Facts, body: Json, /) -> None:
        """Write what the body says into `facts`."""
        ...


class ReadEvent(Protocol):
    """Reads one event of a stream."""

    def __call__(self, facts: Facts, name: str, event: Json, /) -> None:
        """Write what the event says into `facts`; `name` is the framing's event name, "" where it has none."""
        ...


class ReadHeaders(Protocol):
    """Reads a response's headers."""

    def __call__(self, facts: Facts, headers: Mapping[str, str], /) -> None:
        """Write what the headers say into `facts`; names are lower case."""
        ...


class ReadPath(Protocol):
    """Reads a request's path."""

    def __call__(self, facts: Facts, path: str, /) -> None:
        """Write what the path says (model, streaming) into `facts`."""
        ...


class Unwrap(Protocol):
    """Gives the JSON that an event's payload wraps."""

    def __call__(self, payload: bytes, /) -> bytes:
        """Return the payload itself where it wraps nothing."""
        ...


def read_nothing(facts: Facts, body: Any, name: Any = None, /) -> None:
    """Read nothing: the default of a dialect that has no such part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A wire format.

    `facts_in`: byte strings, written with compact JSON separators (`"usage":{`), one of which an event contains if it
    carries facts; empty = every event is read. `text_in`: keys whose string values are output text, for estimates.
    `ends`: a stream has a last event, after which `Facts.complete` is true. `element_stream`: a JSON array body is a
    stream of its elements. `bulk`: the key of an array in plain answers that may be very long and tells nothing
    (vectors). `unwrap` gives an event's JSON out of what it is sent in (base64, on Bedrock).
    """

    name: str
    operation: str = "chat"
    read_request: ReadBody = read_nothing
    read_response: ReadBody = read_nothing
    read_event: ReadEvent = read_nothing
    read_headers: ReadHeaders = read_nothing
    read_path: ReadPath = read_nothing
    facts_in: tuple[bytes, ...] = ()
    text_in: tuple[bytes, ...] = ()
    ends: bool = True
    element_stream: bool = False
    bulk: bytes = b""
    unwrap: Unwrap | None = None
