"""Skips the events of a stream that differ from earlier ones by their text alone, without taking them apart.

    skimmer = Skimmer(gap)                          # `gap`: the bytes behind every event of this framing
    skimmer.learn(event, start, end, keys)          # an event that was looked at; its text is event[start:end]
    end = skimmer.skip(text, at, texts)             # appends the texts of the events from `at` on to `texts`

Most events of a stream carry a piece of text and no facts. `learn` remembers the shape of such an event: the bytes
before its text and those behind it. `skip` compares the following events with the shape in the bytes that hold them. It
stops at the first event that differs in anything else, and the reader looks at that one. Two more differences are
allowed for: padding, whose length varies so that a listener cannot infer the length of the text; and holes, fields that
count, name or date each event.

An event that is skipped is never parsed, so nothing but a known variation may be passed over: a hole for a number holds
digits only, one for a string ends at the string's own quote, and neither holds a line end.

Pure: no I/O, and nothing here raises.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from tollspan.wire.framing import LINE_END

TRIES: Final = 4
"""How often holes are cut that no event fits into before that is given up: these events differ in another way."""

_VARYING: Final = re.compile(
    rb'"(?:sequence_number|created|index|token_id)":\s?(?=\d)|"(?:obfuscation|created_at|item_id)":\s?"'
)
"""Fields besides the text in which similar events differ: numbers and strings that count, name, date or pad them."""
_NUMBER: Final = re.compile(rb"\d++")

# Possessive: a match that never backtracks keeps no memory of every byte of a long text.
INSIDE: Final = rb'[^"\\]*+(?:\\.[^"\\]*+)*+'
"""The rest of a JSON string, up to its quote or to the end of the bytes."""
_IN_STRING: Final = re.compile(INSIDE, re.DOTALL)

_BACKSLASH: Final = 0x5C
_BRACE: Final = b"}"

_TEXT, _WORDS, _DIGITS = range(3)
"""The contents of a hole: the text, another string, a number."""


class _Shape(NamedTuple):
    """An event: the bytes before its text, those behind it and, if it is padded, those behind the padding."""

    head: bytes
    tail: bytes
    last: bytes = b""


class _Holes(NamedTuple):
    """An event with holes: for each the bytes before it, their number, its delimiter, its content; then the end."""

    pieces: tuple[tuple[bytes, int, bytes, int], ...]
    ending: bytes


class Skimmer:
    """The shape of a stream's events so far (see the module's docstring for the methods)."""

    __slots__ = ("_gap", "_holes", "_shape", "_tries")

    def __init__(self, gap: bytes) -> None:
        self._gap = gap
        self._shape: _Shape | None = None
        self._holes: _Holes | None = None
        self._tries = TRIES

    def skip(self, text: bytes, at: int, texts: list[bytes]) -> int:
        """Skip the events from `at` on that have the shape, append their texts to `texts`, and return the end."""
        holes = self._holes
        if holes is not None:
            end = _skip_holes(text, at, holes, texts)
            if end > at:
                self._tries = TRIES
            return end
        return at if self._shape is None else _skip_texts(text, at, self._shape, texts)

    def learn(self, block: bytes, start: int, end: int, keys: tuple[bytes, ...]) -> None:
        """Remember the bytes before and behind an event's text; padding is left out once it was seen to differ.

        Shapes are tried before holes: events whose end never differs are compared in half as many steps.

        Args:
            block: the event, without its gap.
            start: where its text starts.
            end: where its text ends, at the closing quote.
            keys: the keys under which the dialect has output text, as they are written in this stream.
        """
        gap, known = self._gap, self._shape
        head, tail = block[:start], block[end:] + gap
        if known is None:
            self._shape = _Shape(head, tail)
            return
        if self._tries and (self._holes is not None or head != known.head or known.last):
            self._tries -= 1  # to leave out the padding was not enough
            self._holes = _holes(block, start, end, gap, keys) if self._tries else None
        if head != known.head or (tail == known.tail and not known.last):
            self._shape = _Shape(head, tail)
        else:
            self._shape = _padded(head, tail, known, _BRACE + gap)


def _skip_texts(text: bytes, at: int, shape: _Shape, texts: list[bytes]) -> int:
    """Skip the events from `at` on that differ from the shape by their text and padding alone; return the end."""
    head, tail, last = shape
    joint = last + head  # the bytes between two events, without text and padding
    width, behind, across = len(head), len(tail), len(joint)
    delimiter = last[:1]
    spaced = delimiter == _BRACE
    start = at + width
    # Comparing slices takes half the time of `startswith`, which parses its arguments each time.
    goes_on = text[at:start] == head
    while goes_on:
        quote = text.find(b'"', start)
        if quote <= start:
            break  # no text
        end = quote + behind
        if text[quote:end] != tail:
            quote = string_end(text, start)  # that quote was escaped, or there are other fields
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
            break  # other fields, or a line end, which is invalid in JSON and may end the event
        texts.append(word)
        start = end + across
        at = start - width
    return at


def _skip_holes(text: bytes, at: int, holes: _Holes, texts: list[bytes]) -> int:
    """Skip the events from `at` on that differ by what is in their holes alone; return the end."""
    pieces, ending = holes
    taken = b""
    while True:
        end = at
        for piece, width, delimiter, content in pieces:
            start = end + width
            if text[end:start] != piece:
                break
            end = text.find(delimiter, start)
            if content != _DIGITS and text[end - 1] == _BACKSLASH:
                end = string_end(text, start)
            value = text[start:end]
            if content == _TEXT:
                taken = value
            if LINE_END in value or (content == _DIGITS and not value.isdigit()):
                break
        else:
            start, end = end, end + len(ending)
            if taken and start > 0 and text[start:end] == ending:
                texts.append(taken)
                at = end
                continue
        return at


def _padded(head: bytes, tail: bytes, known: _Shape, closing: bytes) -> _Shape:
    """Return the shape of events that are padded: with spaces before the last brace (Anthropic) or in the last string.

    OpenAI pads events to one length, so that a listener cannot infer that of the text. `known` is the shape so far.
    """
    stem = tail.removesuffix(closing).rstrip(b" ")
    if stem == known.tail.removesuffix(closing).rstrip(b" ") and tail.endswith(closing):
        return _Shape(head, stem, closing)
    before, opened, padding = tail.rpartition(b'":"')
    last = padding[string_end(padding, 0) :]
    return _Shape(head, before + opened, last) if opened and last else _Shape(head, tail)


def _holes(block: bytes, start: int, end: int, gap: bytes, keys: tuple[bytes, ...]) -> _Holes | None:
    """Cut an event at its text and at every field that is known to vary; None if it has no such field.

    Some servers send a text once more under another of the keys; that second copy is a hole, too.
    """
    cuts = [(start, end, _TEXT)]
    for key in keys:
        cuts += [(begin, finish, _WORDS) for begin, finish in strings_behind(block, key) if finish > begin != start]
    for match in _VARYING.finditer(block):
        begin = match.end()
        if block[begin - 1 : begin] == b'"':
            cuts.append((begin, string_end(block, begin), _WORDS))
        elif (number := _NUMBER.match(block, begin)) is not None:
            cuts.append((begin, number.end(), _DIGITS))
    if len(cuts) == 1:
        return None
    pieces, at = [], 0
    for begin, finish, content in sorted(cuts):
        pieces.append((block[at:begin], begin - at, block[finish : finish + 1] or gap, content))
        at = finish
    return _Holes(tuple(pieces), block[at:] + gap)


def strings_behind(block: bytes, key: bytes) -> list[tuple[int, int]]:
    """Return the start and end of each string behind `key`, which ends with the opening quote; empty ones, too."""
    spans = []
    at = block.find(key)
    while at >= 0:
        start = at + len(key)
        end = string_end(block, start)
        spans.append((start, end))
        at = block.find(key, end)
    return spans


def string_end(block: bytes, start: int) -> int:
    """Return where the JSON string that starts at `start` ends, without its quote; the block's end if it is cut."""
    match = _IN_STRING.match(block, start)
    end = start if match is None else match.end()
    return end if block[end : end + 1] == b'"' else len(block)
