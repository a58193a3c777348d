"""The contract of a wire format: `Dialect`, one constant in a module of its own for each format.

A dialect reads a request's body, a plain response's body and the events of a stream into `Facts`. It never raises on
unexpected input (the readers in `fields.py` return None for a value that is absent or of another type), and it never
reads text: only counts, names and states.

Most events of a stream carry nothing but a piece of text. They are not even parsed: `facts_in` lists byte strings, one
of which is in every event that does carry facts. JSON escapes quotes inside strings, so `"usage":` can never be part of
a text.

A dialect also writes, for budgets: the body of a refusal, a request with a lower limit of output tokens, a reply in the
place of a response, and the end of a stream that is cut. Those functions run only when a budget intervenes, so what
they need is imported inside them (`replies.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tollspan.model.records import Facts
    from tollspan.wire.dialects.replies import Reply, ReplyTo, StreamEnding

Json = dict[str, Any]


class ReadBody(Protocol):
    """Reads a request's or a plain response's JSON object."""

    def __call__(self, facts: Facts, body: Json, /) -> None:
        """Write what the body says into `facts`."""
        ...


class ReadEvent(Protocol):
    """Reads one event of a stream."""

    def __call__(self, facts: Facts, name: str, event: Json, /) -> None:
        """Write what the event says into `facts`; `name` is the framing's event name, "" if it has none."""
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
    """Unpacks the JSON that an event's payload wraps."""

    def __call__(self, payload: bytes, /) -> bytes:
        """Return the JSON, or the payload itself if it wraps nothing."""
        ...


class Refuse(Protocol):
    """Writes the body of a refusal, from which an SDK of this format makes its own error."""

    def __call__(self, text: str, /) -> Json:
        """Return the error object, as the provider would send it, with `text` as its message."""
        ...


class MakeReply(Protocol):
    """Writes a response that a budget sends in the place of the provider's."""

    def __call__(self, text: str, request: ReplyTo, /) -> Reply | None:
        """Return a normal response that says `text` and states a usage of zero, plain or streamed as requested.

        None means that there is no such response; then the call is refused.
        """
        ...


class LimitOutput(Protocol):
    """Lowers the limit of output tokens in a request."""

    def __call__(self, body: Json, limit: int, provider: str, model: str, /) -> Json:
        """Return the request's JSON object with this limit for each text, and everything else as it was."""
        ...


def read_nothing(facts: Facts, body: Any, name: Any = None, /) -> None:
    """Read nothing: the default for parts that a format does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A wire format.

    Attributes:
        name: the name of the module, or of the entry point, that has it.
        operation: `gen_ai.operation.name` of its calls, unless a request says otherwise.
        paths: regular expressions for the paths that speak it, of a dialect from another package. They are searched
            for in paths at the hosts of each provider that lists the dialect. `ROUTES` has those of the built-in ones.
        read_request: reads the request's body.
        read_response: reads a plain response's body.
        read_event: reads an event of a stream.
        read_headers: reads the response's headers.
        read_path: reads the request's path.
        facts_in: byte strings in compact JSON (`"usage":{`); an event that carries facts contains one of them. Empty:
            every event is parsed.
        text_in: keys in compact JSON (`"content":"`) whose string values are output text, in the events of a stream
            and in documents. Text is measured if the wire states no usage. Empty: the output is not text.
        document_text_in: further such keys, for documents only.
        ends: a stream has a last event, after which `Facts.complete` is true.
        element_stream: a JSON array as the body is a stream of its elements.
        bulk: the key of an array in plain responses that may be very long and says nothing of the call (vectors).
        framings: how streams of a content type (lower case, without parameters) are framed: `sse`, `ndjson`,
            `jsonarray`, `eventstream`, or the name of a framing from another package. For other content types the
            first bytes of the body decide.
        unwrap: unpacks an event's JSON, if it is sent inside something else (base64, on Bedrock).
        refuse: writes the body of a refusal; None stands for an error object that most SDKs understand.
        limit_output: lowers the limit of output tokens in a request, for budgets with `fit`; None if the format has no
            such limit, or signs its requests.
        reply: writes a reply; None if the format has no responses in text, so that calls are refused instead.
        ending: makes what ends one stream that is cut, sent as server-sent events; None if that is not possible, so
            that streams are not cut.
    """

    name: str
    operation: str = "chat"
    paths: tuple[str, ...] = ()
    read_request: ReadBody = read_nothing
    read_response: ReadBody = read_nothing
    read_event: ReadEvent = read_nothing
    read_headers: ReadHeaders = read_nothing
    read_path: ReadPath = read_nothing
    facts_in: tuple[bytes, ...] = ()
    text_in: tuple[bytes, ...] = ()
    document_text_in: tuple[bytes, ...] = ()
    ends: bool = True
    element_stream: bool = False
    bulk: bytes = b""
    framings: Mapping[str, str] = field(default_factory=dict)
    unwrap: Unwrap | None = None
    refuse: Refuse | None = None
    limit_output: LimitOutput | None = None
    reply: MakeReply | None = None
    ending: Callable[[], StreamEnding] | None = None
