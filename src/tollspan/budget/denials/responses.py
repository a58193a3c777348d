"""What an application receives in the place of a provider's response, in that provider's own format.

    error(dialect, text)                the body for HTTP 402, from which an SDK makes its own error
    reply(dialect, text, request)       a normal response that says `text`, plain or streamed; its usage is zero
    cuttable(dialect, sse=...)          whether a stream can be ended in the middle
    Ending(dialect)                     ends one: adds the events that close it, with the finish reason for length

Each format is written by its dialect (`refuse`, `reply` and `ending` in `wire/dialects/dialect.py`); what they have in
common is here. A format without responses in text (embeddings, images...) has no reply, and one whose streams cannot be
ended cleanly has no ending: the call is refused instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.model.errors import REFUSED_STATUS
from tollspan.wire.dialects import load, openai_requests
from tollspan.wire.dialects.replies import dump

if TYPE_CHECKING:
    from tollspan.wire.dialects.dialect import Json
    from tollspan.wire.dialects.replies import Reply, ReplyTo

STATUS: Final = REFUSED_STATUS


def error(dialect: str, text: str) -> bytes:
    """Return the body of a refusal: an error object as the provider would send it."""
    return dump((load(dialect).refuse or _refuse)(text))


def plain_error(text: str) -> bytes:
    """Return the body of a refusal in a format that cannot be loaded."""
    return dump(_refuse(text))


def _refuse(text: str) -> Json:
    """Return an error object for a format without one: OpenAI's, with the text also where others have it."""
    return {**openai_requests.refuse(text), "message": text}


def reply(dialect: str, text: str, request: ReplyTo) -> Reply | None:
    """Return a normal response that says `text`; None if the request asks for something that is not a text."""
    write = load(dialect).reply
    if write is None or request.structured or request.operation in _WITHOUT_TEXT:
        return None
    return write(text, request)


_WITHOUT_TEXT: Final = frozenset({"embeddings", "rerank"})
"""Operations that some formats have beside their chats, and whose responses have no place for a text."""


def cuttable(dialect: str, *, sse: bool) -> bool:
    """Return whether a stream of this format can be ended cleanly in the middle.

    `sse` says whether the query asks for server-sent events, which matters for formats that also stream a JSON array.
    """
    chosen = load(dialect)
    return chosen.ending is not None and (sse or not chosen.element_stream)


class Ending:
    """Ends a stream of server-sent events that is cut.

    It takes each piece as it passes, and knows where events end. `pass_on(piece)` returns the part of a piece up to its
    last complete event and keeps the rest; `note(events)` remembers what passed; `last()` returns the events that close
    the stream. Only complete events are passed on, so that the closing ones can follow at any time.
    """

    def __init__(self, dialect: str) -> None:
        """Prepare to end a stream of `dialect`. Raises ValueError if it is not `cuttable`."""
        make = load(dialect).ending
        if make is None:
            raise ValueError(f"a stream of {dialect} cannot be cut")
        self._format = make()
        self._kept = b""
        self.ended = False

    def pass_on(self, piece: bytes) -> bytes:
        """Return what may be handed over now."""
        data = self._kept + piece
        end = max(
            data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0, data.rfind(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else 0
        )
        self._kept = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """Return what was kept: the stream ended by itself."""
        rest, self._kept = self._kept, b""
        return rest

    def note(self, data: bytes) -> None:
        """Remember what the closing events have to repeat. Raises ValueError if an event is not in the format."""
        if not data:
            return
        self.ended = self.ended or any(mark in data for mark in self._format.ended_by)
        for line in data.splitlines():
            if line.startswith(b"data:") and line[5:].strip().startswith(b"{"):
                self._format.note(line[5:])

    def last(self, output_tokens: int) -> bytes:
        """Return the events that end the stream with the finish reason for length."""
        return self._format.last(output_tokens)
