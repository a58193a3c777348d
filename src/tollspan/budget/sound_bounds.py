"""The upper bounds of speech and of transcriptions: `sound_of(...) -> Sound`, in characters or seconds, and in tokens.

Speech is as long as its text: `SPEECH_SECONDS` for each character, `SPEECH_TOKENS` of sound each. A transcription is
bounded by the length of its sound, which the file's header says: `WORDS` tokens of text for each second. The
length of the text and of the file are facts, the rates are allowances.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.budget.request_parts import FILE_BY_URL
from tollspan.tokens.media.attachments import SLOWEST_SOUND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.budget.request_parts import Parts, Unbounded
    from tollspan.model.money import Number

SPEECH: Final = "openai_speech"
SOUND_DIALECTS: Final = frozenset({SPEECH, "openai_transcription", "deepgram"})
"""The formats whose calls are bounded here."""

SPEECH_SECONDS: Final = 0.25
"""Seconds of speech per character: a third of a normal pace is a fifteenth, and four times as slow is possible."""
SPEECH_TOKENS: Final = 5
"""Tokens of speech per character: 20 per second (https://developers.openai.com/api/docs/guides/realtime-costs)."""
WORDS: Final = 20
"""Tokens of text per second of sound: four times what fast speech has."""
LONGEST: Final = 14_400.0
"""Seconds of a sound whose size is not known either: four hours."""


class Sound(NamedTuple):
    """The upper bound of a call: tokens in and out, the units that it may be charged, and what cannot be bounded."""

    input: int
    output: int
    units: Mapping[str, Number]
    unbounded: Unbounded | None


def sound_of(dialect: str, body: Mapping[str, Any], size: int | None, parts: Parts | None) -> Sound:
    """Return the upper bound of a call for speech, or for a transcription.

    Args:
        dialect: one of `SOUND_DIALECTS`.
        body: its JSON body, or the fields of its form.
        size: the length of its body in bytes; None if it is not known.
        parts: what it has besides text, if that was looked at.
    """
    unbounded = None if parts is None else parts.unbounded
    if dialect == SPEECH:
        text = body.get("input")
        characters = len(text) if type(text) is str else size or 0
        units = {"input_characters": characters, "output_seconds": characters * SPEECH_SECONDS}
        return Sound(size or characters, characters * SPEECH_TOKENS, units, unbounded)
    if type(body.get("url")) is str:
        seconds, unbounded = LONGEST, FILE_BY_URL
    elif parts is not None and parts.seconds:
        seconds = parts.seconds
    else:
        seconds = LONGEST if size is None else size / SLOWEST_SOUND
    heard = ceil(seconds)
    text_size = 0 if size is None or parts is None else max(size - parts.encoded, 0)
    tokens = parts.tokens if parts is not None and parts.tokens else heard * WORDS
    return Sound(tokens + text_size, heard * WORDS + WORDS, {"input_seconds": heard}, unbounded)
