"""Joins framing and dialect: `feed(bytes)`, `close()`, and the facts are in `Facts`.

A reader is given the bytes of one response body as the application receives them, still content-encoded, cut
anywhere. It raises `WireError` where bytes do not follow their framing, and nothing else; its memory is bounded. No
clock, no I/O.

Until the first output is seen every event is read as it comes, so that the caller can take the time. After that pieces
wait until there are `BATCH` bytes of them, and most events are never parsed: one that differs from the one before by
nothing but its text costs three comparisons where it stands, one that counts or dates itself too some more, any other
a few substring searches. The text is kept aside, for estimates.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from tollspan.model.errors import WireError
from tollspan.tokens.estimates import Received, answer_of
from tollspan.wire.framing import LINE_END
from tollspan.wire.framing.document import parsed
from tollspan.wire.framing.encoding import decoder_for
from tollspan.wire.framing.eventstream import EventStream
from tollspan.wire.framing.jsonarray import JsonArray
from tollspan.wire.framing.ndjson import JsonLines
from tollspan.wire.framing.outline import outline
from tollspan.wire.framing.sse import ServerSentEvents

if TYPE_CHECKING:
    from tollspan.model.records import Facts
    from tollspan.wire.dialects.dialect import Dialect
    from tollspan.wire.framing import Framing
    from tollspan.wire.framing.encoding import Decoder

BATCH: Final = 4096
"""Bytes that may wait before they are read, once the first output was seen."""

MAX_DOCUMENT: Final = 64 * 1024 * 1024
"""Bytes of a plain JSON body that are kept to be read; of a longer one the usage stays unknown."""

BULK: Final = 64 * 1024
"""Bytes of a document from which on its big array, if its format has one, is left unparsed."""

_BLANK: Final = b" \t\r\n\xef\xbb\xbf"
_LINE_TYPES: Final = ("ndjson", "jsonl", "stream+json", "jsonlines")

_ARGUMENTS: Final = b'"arguments":'
_CALLED: Final = re.compile(rb'"name":\s?"[^"]')
"""A tool's name, which opens a call in OpenAI's streams; what follows of its arguments may be empty more than once."""
_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
"""What an event stream begins with (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing)."""

_LONGEST_FIELD: Final = max(map(len, _FIELDS))

_PARTIAL: Final = b'"partial_json":'
"""In Anthropic's streams the name is told before; empty arguments open the call."""

_NOT_COMPACT: Final = re.compile(rb'":[ \t\r\n]|"[ \t\r\n]:')
_NOT_SPACED: Final = re.compile(rb'":(?! [^ \t\r\n])|"[ \t\r\n]:')
"""White space around a key's colon that is not in the style of a stream. A text may hold it too; then an event is read
that need not be."""

_VARYING: Final = re.compile(
    rb'"(?:sequence_number|created|index|token_id)":\s?(?=\d)|"(?:obfuscation|created_at|item_id)":\s?"'
)
"""Where events of one kind differ besides their text: numbers and strings that count, name, date or pad them."""
_NUMBER: Final = re.compile(rb"\d++")

_LINES: Final = re.compile(rb"}\r?\n{")

_TRIES: Final = 4
"""How often holes are cut that no event fits into, before it is given up: events differ in another way."""

_TEXTUAL: Final = (ServerSentEvents, JsonLines)
"""Framings whose blocks are lines of text."""

# Possessive: without a way back the match keeps no memory of every byte of a long text.
_INSIDE: Final = rb'[^"\\]*+(?:\\.[^"\\]*+)*+'
"""The rest of a JSON string, up to its quote or to where it is cut."""
_IN_STRING: Final = re.compile(_INSIDE, re.DOTALL)
_TEXT_IN_DOCUMENT: Final = re.compile(
    rb'"(?:text|content|reasoning_content|reasoning|thinking|arguments|response|transcript|refusal|completion'
    rb'|generation|outputText|output_text|generated_text|tool_plan)"\s*:\s*"(' + _INSIDE + rb")"
)
"""Where plain answers keep their text, whole or cut off."""


class Reader:
    """Read one response body into `facts` (see the module's text)."""

    __slots__ = (
        "_decode",
        "_dialect",
        "_document",
        "_facts",
        "_framing",
        "_holes",
        "_kept",
        "_kind",
        "_marks",
        "_other_style",
        "_shape",
        "_size",
        "_start",
        "_texts",
        "_tries",
        "text",
        "waiting",
    )

    def __init__(
        self, dialect: Dialect, facts: Facts, content_type: str = "", content_encoding: str | None = None
    ) -> None:
        """Prepare to read; raises WireError for a content encoding that cannot be undone here."""
        self._dialect = dialect
        self._facts = facts
        self._kind = content_type.lower()
        self._decode = decoder_for(content_encoding) if content_encoding else None
        self._framing: Framing | None = None
        self._document: list[bytes] | None = None
        self._start = b""  # of a body, too little to tell its framing by
        self.waiting: list[bytes] = []  # the hook puts pieces here itself, once there was output
        self._size = 0
        self._kept = 0
        self._marks: tuple[bytes, ...] | None = None
        self._other_style = _NOT_COMPACT
        self._texts: tuple[bytes, ...] = ()
        self._shape: _Shape | None = None
        self._holes: _Holes | None = None
        self._tries = _TRIES
        self.text = Received()

    @property
    def framed(self) -> bool:
        """Return whether the body was a stream of events, and no plain document."""
        return self._framing is not None

    @property
    def silent(self) -> bool:
        """Return whether nothing but white space has come."""
        return self._framing is None and self._document is None

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self.waiting.append(piece)
        self._size += len(piece)
        if self._size >= BATCH or not self._facts.output_seen:
            self._drain()

    def catch_up(self) -> None:
        """Read what has been taken so far, now: pieces are otherwise read in batches."""
        self._drain()

    def close(self) -> None:
        """Read what is left: no more bytes come."""
        self._drain()
        if self._start:
            self._document = [self._start]
        if self._document is not None:
            body = b"".join(self._document)
            self._document.clear()
            self._read_document(body)
        elif self._framing is not None:
            self._read(self._framing.close())

    def take(self, body: bytes) -> None:
        """Read a body that is at hand whole."""
        plain = body.startswith(b"{") and self._kind.startswith("application/json") and len(body) <= MAX_DOCUMENT
        if plain and "stream" not in self._kind:
            self._document = []
            self._read_document(body)  # straight away: nearly every plain answer
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
        """Choose how the body is framed: by its first byte, for labels lie (errors as event-stream, events as JSON)."""
        if "amazon.eventstream" in self._kind:
            self._framing = EventStream()
        else:
            data = self._start + data if self._start else data.lstrip(_BLANK)  # keep-alive, which belongs to no event
            self._start = b""
            if not data:
                return
            if len(data) < _LONGEST_FIELD and any(field.startswith(data) and field != data for field in _FIELDS):
                self._start = data
                return
            self._framing = self._framing_for(data)
        if self._framing is None:
            self._document = []
            self._collect(data)
        else:
            self._advance(self._framing, data)

    def _framing_for(self, data: bytes) -> Framing | None:
        start = data[:1]
        if start == b"[" and self._dialect.element_stream:
            return JsonArray()
        if start == b"{" and any(word in self._kind for word in _LINE_TYPES):
            return JsonLines()
        if start in b"{[<" or ("event-stream" not in self._kind and not _begins_event(data)):
            return None
        return ServerSentEvents()

    def _collect(self, data: bytes) -> None:
        document = self._document
        if document is None:
            return
        document.append(data)
        self._kept += len(data)
        if self._kept > MAX_DOCUMENT:
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
        if self._facts.usage is not None:
            return
        if type(body) is dict:
            self.text = answer_of(body)
        else:  # cut off in the middle, or no JSON
            self.text.raw += _TEXT_IN_DOCUMENT.findall(data)
            self.text.settle()

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
        while (at := self._skip(text, at)) < size:
            end = framing.end(text, at)
            self._read_other(text[at:end])
            at = end + len(framing.gap)
        self.text.settle()

    def _skip(self, text: bytes, at: int) -> int:
        """Take the blocks from `at` on that differ by nothing but text from those before; give the end."""
        if self._shape is None:
            return at
        before = len(self.text.raw)
        shape, holes = self._shape, self._holes
        at = self._skip_texts(text, at, shape) if holes is None else self._skip_holes(text, at, holes)
        self._facts.output_events += len(self.text.raw) - before
        return at

    def _skip_holes(self, text: bytes, at: int, holes: _Holes) -> int:
        """Do as `_skip_texts` where events differ in more than that; give the end."""
        pieces, ending = holes
        texts = self.text.raw
        begin = at
        taken = b""
        while True:
            end = at
            for piece, width, delimiter, kind in pieces:
                start = end + width
                if text[end:start] != piece:
                    break
                end = text.find(delimiter, start)
                if kind != _DIGITS and text[end - 1] == _BACKSLASH:
                    end = _string_end(text, start)
                found = text[start:end]
                if kind == _TEXT:
                    taken = found
                if LINE_END in found or (kind == _DIGITS and not found.isdigit()):
                    break
            else:
                start, end = end, end + len(ending)
                if taken and start > 0 and text[start:end] == ending:
                    texts.append(taken)
                    at = end
                    continue
            break
        if at > begin:
            self._tries = _TRIES
        return at

    def _skip_texts(self, text: bytes, at: int, shape: _Shape) -> int:
        """Take the blocks from `at` on that differ from the shape by nothing but text, and padding; give the end."""
        head, tail, last = shape
        joint = last + head  # what stands between two events, but for text and padding
        width, behind, across = len(head), len(tail), len(joint)
        delimiter = last[:1]
        spaced = delimiter == _BRACE
        texts = self.text.raw
        start = at + width
        # Slices that are compared take half the time of `startswith`, whose arguments are parsed anew each time.
        goes_on = text[at:start] == head
        while goes_on:
            quote = text.find(b'"', start)
            if quote <= start:
                break  # no text
            end = quote + behind
            if text[quote:end] != tail:
                quote = _string_end(text, start)  # that quote was escaped, or there are other fields
                end = quote + behind
                if text[quote:end] != tail:
                    break
            if last:
                padding = end
                end = text.find(delimiter, padding)
                if text[padding:end].strip(b" ") if spaced else LINE_END in text[padding:end]:
                    break
            word = text[start:quote]
            goes_on = text[end : end + across] == joint
            if (not goes_on and text[end : end + len(last)] != last) or LINE_END in word:
                break  # other fields, or a line end, which is no JSON and may end the event
            texts.append(word)
            start = end + across
            at = start - width
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
                    self._marks, self._texts = None, ()  # somebody between has put it in: learn anew
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
        name, payload = framing.split(block)
        if payload == b"[DONE]":
            self._facts.complete = True
            return  # to parse it would fail, twice
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
                self.text.told = self.text.size

    def _take_text(self, block: bytes, *, learn: bool = False) -> None:
        """Keep the output text of an event, under whichever of the dialect's keys it has some."""
        for key in self._texts:
            if block.find(key) < 0:
                continue  # as nearly all keys in nearly all events: it costs least to see that here
            strings = _strings(block, key)
            if key.startswith(_ARGUMENTS) and (opened := len(_CALLED.findall(block))):
                self.text.calls += opened
                learn = False  # others that open one are to be counted too
            found = [(start, end) for start, end in strings if end > start]
            if key.startswith(_PARTIAL):
                self.text.calls += len(strings) - len(found)
            if found:
                self.text.raw += [block[start:end] for start, end in found]
                if learn and len(found) == 1:
                    self._learn_shape(block, *found[0])
                return  # some servers send the same text once more under a second name

    def _learn_shape(self, block: bytes, start: int, end: int) -> None:
        """Remember what a block has before and after its text; its padding is left out once it was seen to differ.

        Blocks whose end never differs are told by half as many steps.
        """
        if not isinstance(self._framing, _TEXTUAL) or block[end : end + 1] != b'"':
            return
        gap, known = self._framing.gap, self._shape
        head, tail = block[:start], block[end:] + gap
        if known is None:
            self._shape = _Shape(head, tail)
            return
        if self._tries and (self._holes is not None or head != known.head or known.last):
            self._tries -= 1  # to leave out the padding was not enough
            self._holes = _holes(block, start, end, gap, self._texts) if self._tries else None
        if head != known.head or (tail == known.tail and not known.last):
            self._shape = _Shape(head, tail)
        else:
            self._shape = _padded(head, tail, known, _BRACE + gap)

    def _learn_style(self, payload: bytes) -> None:
        """See how the server writes JSON, and search in that style; in an unknown style read every event."""
        if self._texts:
            return
        dialect = self._dialect
        if b'":"' in payload:
            facts, texts, self._other_style = dialect.facts_in, dialect.text_in, _NOT_COMPACT
        elif b'": "' in payload:
            facts, texts = (
                tuple(mark.replace(b'":', b'": ') for mark in marks) for marks in (dialect.facts_in, dialect.text_in)
            )
            self._other_style = _NOT_SPACED
        else:
            return
        self._marks, self._texts = facts or None, texts


class _Shape(NamedTuple):
    """An event: what stands before its text, what behind, and, where that is padded, what is behind the padding."""

    head: bytes
    tail: bytes
    last: bytes = b""


def _padded(head: bytes, tail: bytes, known: _Shape, closing: bytes) -> _Shape:
    """Return the shape of events that are padded: with spaces before the last brace (Anthropic) or in the last string.

    OpenAI pads to one length, so that a listener cannot tell that of the text. `known` is the shape so far.
    """
    stem = tail.removesuffix(closing).rstrip(b" ")
    if stem == known.tail.removesuffix(closing).rstrip(b" ") and tail.endswith(closing):
        return _Shape(head, stem, closing)
    before, opened, padding = tail.rpartition(b'":"')
    last = padding[_string_end(padding, 0) :]
    return _Shape(head, before + opened, last) if opened and last else _Shape(head, tail)


_BACKSLASH: Final = 0x5C
_BRACE: Final = b"}"

_TEXT, _WORDS, _DIGITS = range(3)
"""What may stand in a hole: the text, another string, a number."""


class _Holes(NamedTuple):
    """An event with holes: what stands before each, its size, what ends the hole, its kind; and what comes last."""

    pieces: tuple[tuple[bytes, int, bytes, int], ...]
    ending: bytes


def _holes(block: bytes, start: int, end: int, gap: bytes, texts: tuple[bytes, ...]) -> _Holes | None:
    """Cut an event at its text, from `start` to `end`, and where events differ besides; None where none is known to.

    Some servers send a text once more under another of the keys `texts`; what stands there is no fact either.
    """
    found = [(start, end, _TEXT)]
    for key in texts:
        found += [(begin, finish, _WORDS) for begin, finish in _strings(block, key) if finish > begin != start]
    for match in _VARYING.finditer(block):
        begin = match.end()
        if block[begin - 1 : begin] == b'"':
            found.append((begin, _string_end(block, begin), _WORDS))
        elif (number := _NUMBER.match(block, begin)) is not None:
            found.append((begin, number.end(), _DIGITS))
    if len(found) == 1:
        return None
    pieces, at = [], 0
    for begin, finish, kind in sorted(found):
        pieces.append((block[at:begin], begin - at, block[finish : finish + 1] or gap, kind))
        at = finish
    return _Holes(tuple(pieces), block[at:] + gap)


def _begins_event(data: bytes) -> bool:
    """Return whether a body begins as an event stream does."""
    return data.startswith(_FIELDS)


def _decoded(decode: Decoder, data: bytes) -> bytes:
    try:
        return decode(data)
    except Exception as error:
        message = f"body does not follow its content encoding: {error}"
        raise WireError(message) from error


def _strings(block: bytes, key: bytes) -> list[tuple[int, int]]:
    """Return where the strings start and end that stand behind a key, which ends with their quote; empty ones too."""
    found = []
    at = block.find(key)
    while at >= 0:
        start = at + len(key)
        end = _string_end(block, start)
        found.append((start, end))
        at = block.find(key, end)
    return found


def _string_end(block: bytes, start: int) -> int:
    """Return where the JSON string that starts at `start` ends, quote not included; the block's end where it is cut."""
    found = _IN_STRING.match(block, start)
    end = start if found is None else found.end()
    return end if block[end : end + 1] == b'"' else len(block)
