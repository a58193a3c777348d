"""What stands around the one big array of a JSON document: vectors take long to parse, and say nothing of the call.

    outline(b'{"model": "m", "data": [...3 MB...], "usage": {...}}', b"data") == {"model": "m", "usage": {...}}

The members before the array are parsed as they stand. Those behind it are the longest end of the document that parses
as members of an object: an end that starts inside the array has brackets too many, one that starts inside a string has
quotes too many.
"""

from __future__ import annotations

import re
from typing import Any, Final

from tollspan.wire.framing.document import parsed

_BEHIND: Final = 16 * 1024
"""Bytes at the end of a document among which the members behind the array are looked for."""

_TRIES: Final = 64
"""Closing brackets looked at: a vector has one."""

_SPACE: Final = b" \t\r\n,"
_OPENS: Final = re.compile(rb"\s*:\s*\[")


def outline(document: bytes, key: bytes) -> dict[str, Any] | None:
    """Return the members of the object in `document` without its array at `key`, or None where that is not possible."""
    name = b'"' + key + b'"'
    start = document.find(name)
    if start < 0 or not _OPENS.match(document, start + len(name)):
        return None
    # This fails where the name that was found is a value, or a key further down.
    before = _parsed(document[:start].rstrip(_SPACE) + b"}")
    behind = None if before is None else _behind(document, start + len(name))
    return None if before is None or behind is None else {**before, **behind}


def _behind(document: bytes, start: int) -> dict[str, Any] | None:
    floor, at, found = max(start, len(document) - _BEHIND), len(document), None
    for _ in range(_TRIES):
        at = document.rfind(b"]", floor, at)
        if at < 0:
            break
        members = _parsed(b"{" + document[at + 1 :].lstrip(_SPACE))
        found = found if members is None else members
    return found


def _parsed(text: bytes) -> dict[str, Any] | None:
    value = parsed(text)
    return value if type(value) is dict else None
