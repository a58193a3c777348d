"""The members around the one big array of a JSON document: vectors take long to parse, and say nothing of the call.

    outline(b'{"model": "m", "data": [...3 MB...], "usage": {...}}', b"data") == {"model": "m", "usage": {...}}

The members before the array are parsed directly. Those behind it are the longest end of the document that parses as
members of an object: an end that starts inside the array has too many brackets, one that starts inside a string has too
many quotes.
"""

from __future__ import annotations

import re
from typing import Any, Final

from tollspan.wire.framing.document import parsed

_BEHIND: Final = 16 * 1024
"""Bytes at the end of a document in which the members behind the array are searched for."""

_TRIES: Final = 64
"""Closing brackets that are tried: a vector has one."""

_SPACE: Final = b" \t\r\n,"
_OPENS: Final = re.compile(rb"\s*:\s*\[")


def outline(document: bytes, key: bytes) -> dict[str, Any] | None:
    """Return the members of the object in `document` without its array at `key`, or None if that is not possible."""
    name = b'"' + key + b'"'
    start = document.find(name)
    if start < 0 or not _OPENS.match(document, start + len(name)):
        return None
    # This fails if the name is a value, or a key of a nested object.
    before = _parsed(document[:start].rstrip(_SPACE) + b"}")
    behind = None if before is None else _behind(document, start + len(name))
    return None if before is None or behind is None else {**before, **behind}


def _behind(document: bytes, start: int) -> dict[str, Any] | None:
    floor, at, longest = max(start, len(document) - _BEHIND), len(document), None
    for _ in range(_TRIES):
        at = document.rfind(b"]", floor, at)
        if at < 0:
            break
        members = _parsed(b"{" + document[at + 1 :].lstrip(_SPACE))
        longest = longest if members is None else members
    return longest


def _parsed(text: bytes) -> dict[str, Any] | None:
    value = parsed(text)
    return value if type(value) is dict else None
