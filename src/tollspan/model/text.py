"""Texts that are safe to print, and counts as words."""

from __future__ import annotations

from typing import Final


def many(count: int, one: str, several: str | None = None) -> str:
    """Return a number of things: 1 call, 2 calls; 1 retry, 2 retries."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def as_text(text: str) -> str:
    """Return a text as everybody takes it: what is no Unicode, and what steers a terminal, is a question mark.

    JSON can say half of a surrogate pair, and an environment variable that is no UTF-8 holds some: one in a span's name
    would keep every span of its batch from being exported. A control character (of Unicode's category Cc) would reach
    the terminal of whoever reads a log or a table.
    """
    if text.isascii() and text.isprintable():
        return text
    return text.encode("utf-8", "replace").decode().translate(_CONTROLS)


_CONTROLS: Final = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "?")
