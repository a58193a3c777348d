"""Texts that are safe to print, and counts as words."""

from __future__ import annotations

from typing import Final

LONGEST_NAME: Final = 256
"""Characters that a session's or user's name, or another value of attribution, may have; longer ones are cut."""


def many(count: int, one: str, several: str | None = None) -> str:
    """Return a count with its noun: 1 call, 2 calls; 1 retry, 2 retries."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def as_text(text: str) -> str:
    """Return a text in which lone surrogates and control characters are replaced by question marks.

    JSON can contain half of a surrogate pair, as can an environment variable that is not UTF-8: one in a span's name
    would prevent the export of its whole batch. A control character (Unicode category Cc) in a log or a table would
    control the terminal of its reader.
    """
    if text.isascii() and text.isprintable():
        return text
    return text.encode("utf-8", "replace").decode().translate(_CONTROLS)


_CONTROLS: Final = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "?")
