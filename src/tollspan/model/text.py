"""Texts that are safe to print, addresses without their secrets, and counts as words."""

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
    control the terminal of its reader; one of text direction (Unicode TR36, "Bidirectional Text Spoofing") would show
    a name as another one.
    """
    if text.isprintable():
        return text
    return text.encode("utf-8", "replace").decode().translate(_CONTROLS)


_DIRECTIONS: Final = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_LINE_ENDS: Final = (0x2028, 0x2029)
_CONTROLS: Final = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), *_LINE_ENDS, *_DIRECTIONS), "?")


def without_secrets(address: str) -> str:
    """Return an address without user, password, query and fragment: messages are logged, and pasted into reports.

    What stands before the last "@" is left out, for a password that contains a slash is not recognized as one.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "", address
    rest = rest.rpartition("@")[2]
    for mark in "?#":
        rest = rest.partition(mark)[0]
    return f"{scheme}{separator}{rest}"
