"""Joins framing and dialect: `feed(bytes)` and `close()` write what a response body says into `Facts`.

A reader takes the bytes of one response body as the application receives them, still content-encoded, cut anywhere. It
raises `WireError` if the bytes do not follow their framing, and nothing else. Its memory is bounded. No clock, no I/O.

Until the first output every event is read as it comes, so that the caller can take the time. After that, pieces wait
until there are `READ_SIZE` bytes of them, and most events are never parsed: an event that differs from the one before
by its text alone costs three comparisons in place, one that also counts or dates itself a few more (`skimmer.py`), any
other a few substring searches. The text is kept, for estimates.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

from tollspan.model.errors import WireError
from tollspan.tokens.estimates import Received, has_response_text, response_text
from tollspan.wire.framing import LINE_END
from tollspan.wire.framing.document import parsed
from tollspan.wire.framing.encoding import decoder_for
from tollspan.wire.framing.eventstream import EventStream
from tollspan.wire.framing.jsonarray import JsonArray
from tollspan.wire.framing.ndjson import JsonLines
from tollspan.wire.framing.outline import outline
from tollspan.wire.framing.sse import ServerSentEvents
from tollspan.wire.skimmer import INSIDE, Skimmer, strings_behind

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.model.records import Facts
    from tollspan.wire.dialects.dialect import Dialect
    from tollspan.wire.framing import Framing
    from tollspan.wire.framing.encoding import Decoder

READ_SIZE: Final = 4096
"""Bytes that may wait before they are read, once the first output was seen."""

MAX_DOCUMENT: Final = 64 * 1024 * 1024
"""Bytes of a plain JSON body that are kept to be read; the usage of a longer one stays unknown."""

BULK: Final = 64 * 1024
"""Bytes of a document from which on its big array, if its format has one, is left unparsed."""

SMALL: Final = 64
"""Bytes of an event below which it is small: parsing it takes more time for each of its bytes than others."""

MOST_SMALL: Final = 10_000
"""Small events of a stream that are parsed. Of more, only those with a mark of facts are: a body may have millions."""

_BLANK: Final = b" \t\r\n\xef\xbb\xbf"
_LINE_TYPES: Final = ("ndjson", "jsonl", "stream+json", "jsonlines")

_ARGUMENTS: Final = b'"arguments":'
_CALLED: Final = re.compile(rb'"name":\s?"[^"]')
"""A tool's name, which opens a call in OpenAI's streams; the arguments that follow may be empty more than once."""
_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
"""The first bytes of an event stream (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing)."""

_LONGEST_FIELD: Final = max(map(len, _FIELDS))

_PARTIAL: Final = b'"partial_json":'
"""In Anthropic's streams the name comes in an earlier event; empty arguments open the call."""

_NOT_COMPACT: Final = re.compile(rb'":[ \t\r\n]|"[ \t\r\n]:')
_NOT_SPACED: Final = re.compile(rb'":(?! [^ \t\r\n])|"[ \t\r\n]:')
"""White space around a key's colon that is not in the style of a stream. A text may contain it, too; then an event is
parsed needlessly."""

_LINES: Final = re.compile(rb"}\r?\n{")

_TEXTUAL: Final = (ServerSentEvents, JsonLines)
"""Framings whose blocks are lines of text."""


class Reader:
    """Reads one response body into `facts` (see the module's docstring)."""

    __slots__ = (
        "_content_type",
        "_decode",
        "_dialect",
        "_document",
        "_document_size",
        "_facts",
        "_framing",
        "_head",
        "_marks",
        "_other_style",
        "_size",
        "_skimmer",
        "_small",
        "_texts",
        "text",
        "waiting",
    )

    def __init__(
        self, dialect: Dialect, facts: Facts, content_type: str = "", content_encoding: str | None = None
    ) -> None:
        """Prepare to read; `content_encoding` is None if the bytes come decoded.

        Raises:
            WireError: the content encoding is unknown, or no decoder for it is installed.
        """
        self._dialect = dialect
        self._facts = facts
        self._content_type = content_type.lower()
        self._decode = decoder_for(content_encoding) if content_encoding else None
        self._framing: Framing | None = None
        self._document: list[bytes] | None = None
        self._size = self._document_size = self._small = 0
        self._head = b""  # the first bytes of a body, as long as they are too few to choose its framing by
        self.waiting: list[bytes] = []  # the hook appends pieces itself, once there was output
        self._marks: tuple[bytes, ...] | None = None
        self._other_style = _NOT_COMPACT
        self._texts: tuple[bytes, ...] = ()
        self._skimmer: Skimmer | None = None
        self.text = Received()

    @property
    def framed(self) -> bool:
        """Return whether the body was a stream of events, and not a plain document."""
        return self._framing is not None

    @property
    def silent(self) -> bool:
        """Return whether nothing but white space has come."""
        return self._framing is None and self._document is None

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self.waiting.append(piece)
        self._size += len(piece)
        if self._size >= READ_SIZE or not self._facts.output_seen:
            self._drain()

    def catch_up(self) -> None:
        """Read all that was taken so far, now: pieces otherwise wait until there are `READ_SIZE` bytes."""
        self._drain()

    def close(self) -> None:
        """Read the rest: no more bytes come."""
        self._drain()
        if self._head:
            self._document = [self._head]
        if self._document is not None:
            body = b"".join(self._document)
            self._document.clear()
            self._read_document(body)
        elif self._framing is not None:
            self._read(self._framing.close())

    def take(self, body: bytes) -> None:
        """Read a body that is complete, and decoded."""
        plain = (
            body.startswith(b"{") and self._content_type.startswith("application/json") and len(body) <= MAX_DOCUMENT
        )
        if plain and "stream" not in self._content_type and not self._dialect.framings:
            self._document = []
            self._read_document(body)  # straight away: nearly every plain response
        else:
            self.feed(body)
            self.close()

    def _drain(self) -> None:
        waiting = self.waiting
        if not waiting:
            return
        data = waiting[0] if len(waiting) == 1 else b"".join(waiting)
        waiting.clear()
        self._size = 0
        if self._decode is not None:
            data = _decoded(self._decode, data)
        if self._framing is not None:
            self._advance(self._framing, data)
        elif self._document is not None:
            self._collect(data)
        else:
            self._open(data)

    def _open(self, data: bytes) -> None:
        """Choose how the body is framed, by its first byte: labels lie (errors as event-stream, events as JSON).

        Only the label of an AWS event stream, or one that the dialect lists, is believed.
        """
        if (make := _labelled_framing(self._dialect, self._content_type)) is not None:
            self._framing = make()
        else:
            data = self._head + data if self._head else data.lstrip(_BLANK)  # keep-alive, which belongs to no event
            self._head = b""
            if not data:
                return
            if len(data) < _LONGEST_FIELD and any(field.startswith(data) and field != data for field in _FIELDS):
                self._head = data
                return
            self._framing = _framing_for(data, self._dialect, self._content_type)
        if self._framing is None:
            self._document = []
            self._collect(data)
        else:
            self._advance(self._framing, data)

    def _collect(self, data: bytes) -> None:
        document = self._document
        if document is not None:
            document.append(data)
            self._document_size += len(data)
            if self._document_size > MAX_DOCUMENT:
                document.clear()

    def _read_document(self, data: bytes) -> None:
        bulk = self._dialect.bulk
        body = (outline(data, bulk) if bulk and len(data) > BULK else None) or parsed(data)
        if body is None and self._facts.stream and _LINES.search(data):  # events that are labelled as a document
            self._document, self._framing = None, JsonLines()
            self._advance(self._framing, data)
            self._read(self._framing.close())
            return
        if type(body) is dict:
            self._dialect.read_response(self._facts, body)
        usage = self._facts.usage
        if usage is None or (usage.output is None and usage.input is not None and self._dialect.text_in):
            self.text = _text_of_document(data, body, self._dialect)

    def _advance(self, framing: Framing, data: bytes) -> None:
        if isinstance(framing, _TEXTUAL):
            self._read_text(framing, framing.whole(data))
        else:
            self._read(framing.feed(data))

    def _read(self, blocks: list[bytes]) -> None:
        for block in blocks:
            self._read_other(block)
        self.text.settle()

    def _read_text(self, framing: ServerSentEvents | JsonLines, text: bytes) -> None:
        at, size = 0, len(text)
        anything = self._dialect.unwrap is not None  # else a payload that is no object says nothing
        while (at := self._skip(text, at)) < size:
            if self._small > MOST_SMALL:
                at = _before_mark(text, at, framing.gap, self._dialect.facts_in + self._dialect.text_in)
            if not anything and (at := framing.start(text, at)) >= size:
                break
            end = framing.end(text, at)
            self._read_other(text[at:end])
            at = end + len(framing.gap)
        self.text.settle()

    def _skip(self, text: bytes, at: int) -> int:
        """Skip the events from `at` on that differ by their text alone from those before; return the end."""
        if self._skimmer is None:
            return at
        texts = self.text.raw
        before = len(texts)
        at = self._skimmer.skip(text, at, texts)
        self._facts.output_events += len(texts) - before
        return at

    def _read_other(self, block: bytes) -> None:
        if (block[:1] == b":" and LINE_END not in block) or not block:
            return  # a comment or blank lines, which keep the connection alive
        if self._facts.output_seen and self._marks is not None:
            for mark in self._marks:
                if block.find(mark) >= 0:
                    break
            else:
                if self._other_style.search(block):
                    self._marks, self._texts = None, ()  # a proxy has inserted it: learn the style again
                    self._read_block(block)
                    return
                self._facts.output_events += 1
                self._take_text(block, learn=True)
                return
        self._read_block(block)

    def _read_block(self, block: bytes) -> None:
        framing = self._framing
        if framing is None:
            return
        if len(block) < SMALL:
            self._small += 1
        name, payload = framing.split(block)
        if payload == b"[DONE]":
            self._facts.complete = True
            return  # parsing it would fail, twice
        if self._dialect.unwrap is not None:
            payload = self._dialect.unwrap(payload)
        event = parsed(payload)
        if type(event) is dict:
            self._learn_style(payload)
            before = self._facts.usage
            self._dialect.read_event(self._facts, name, event)
            self._facts.output_events += 1
            self._take_text(payload)
            if self._facts.usage is not before:
                self.text.reported_size = self.text.size

    def _take_text(self, block: bytes, *, learn: bool = False) -> None:
        """Keep the output text of an event, under the first of the dialect's keys that has any."""
        for key in self._texts:
            if block.find(key) < 0:
                continue  # as nearly all keys in nearly all events: the cheapest check comes first
            strings = strings_behind(block, key)
            if key.startswith(_ARGUMENTS) and (opened := len(_CALLED.findall(block))):
                self.text.calls += opened
                learn = False  # further events that open a call are to be counted, too
            filled = [(start, end) for start, end in strings if end > start]
            if key.startswith(_PARTIAL):
                self.text.calls += len(strings) - len(filled)
            if filled:
                self.text.raw += [block[start:end] for start, end in filled]
                if learn and len(filled) == 1:
                    self._learn_shape(block, *filled[0])
                return  # some servers send the same text once more under a second name

    def _learn_shape(self, block: bytes, start: int, end: int) -> None:
        framing = self._framing
        if not isinstance(framing, _TEXTUAL) or block[end : end + 1] != b'"':
            return
        if self._skimmer is None:
            self._skimmer = Skimmer(framing.gap)
        self._skimmer.learn(block, start, end, self._texts)

    def _learn_style(self, payload: bytes) -> None:
        """Detect how the server writes JSON, and search in that style; in an unknown style every event is parsed."""
        if self._texts:
            return
        if b'":"' in payload:
            self._marks, self._texts = self._dialect.facts_in or None, self._dialect.text_in
            self._other_style = _NOT_COMPACT
        elif b'": "' in payload:
            self._marks, self._texts = _spaced(self._dialect.facts_in) or None, _spaced(self._dialect.text_in)
            self._other_style = _NOT_SPACED


def _before_mark(text: bytes, at: int, gap: bytes, marks: tuple[bytes, ...]) -> int:
    """Return where the next block starts that has a mark, in either style; the text's end if none has."""
    found = _any_of(marks).search(text, at)
    if found is None:
        return len(text)
    before = text.rfind(gap, at, found.start())
    return at if before < 0 else before + len(gap)


@cache
def _any_of(marks: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """Return a pattern for marks in either style; a mark without a quote may be in every event, and says too little."""
    words = [re.escape(mark) for style in (marks, _spaced(marks)) for mark in style if b'"' in mark or b"[" in mark]
    return re.compile(b"|".join(words) or rb"(?!)")


def _spaced(marks: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return marks in the style of a server that writes a space behind each colon."""
    return tuple(mark.replace(b'":', b'": ') for mark in marks)


def _labelled_framing(dialect: Dialect, content_type: str) -> Callable[[], Framing] | None:
    """Return the framing of an AWS event stream, or the one that the dialect lists for a content type, if any."""
    if "amazon.eventstream" in content_type:
        return EventStream
    if not dialect.framings:
        return None  # nearly all
    name = dialect.framings.get(content_type.partition(";")[0].strip())
    if name is None:
        return None
    from tollspan.wire.framing.named import framing_named  # late: no format that is built in needs it

    return framing_named(name)


def _framing_for(data: bytes, dialect: Dialect, content_type: str) -> Framing | None:
    """Return the framing of a body that starts with `data`; None for a plain document."""
    start = data[:1]
    if start == b"[" and dialect.element_stream:
        return JsonArray()
    if start == b"{" and any(word in content_type for word in _LINE_TYPES):
        return JsonLines()
    if start in b"{[<" or ("event-stream" not in content_type and not data.startswith(_FIELDS)):
        return None
    return ServerSentEvents()


def _text_of_document(data: bytes, body: object, dialect: Dialect) -> Received:
    """Return the output text of a plain response that states no usage.

    If `body` was cut off, or has none of the keys under which the known formats keep text, the strings under the
    dialect's own keys are that text.
    """
    if type(body) is dict and has_response_text(body):
        return response_text(body)
    text = Received()
    keys = dialect.text_in + dialect.document_text_in
    if keys:
        text.raw += _text_in_document(keys).findall(data)
        text.settle()
    return text


@cache
def _text_in_document(keys: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """Return a pattern that finds the strings under these keys in a JSON document, complete or cut off."""
    names = b"|".join(re.escape(key.rstrip(b'"').rstrip(b": ")) for key in keys)
    return re.compile(rb"(?:" + names + rb')\s*:\s*"(' + INSIDE + rb")")


def _decoded(decode: Decoder, data: bytes) -> bytes:
    try:
        return decode(data)
    except Exception as error:
        message = f"the response body does not follow its content encoding: {error}"
        raise WireError(message) from error
