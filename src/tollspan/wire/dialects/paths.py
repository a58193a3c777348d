"""What a request's path says: several APIs name the model there and nowhere else.

Clients hand paths on as they stand on the wire or already decoded, with a query or without: every reader here takes
all.
"""

from __future__ import annotations

import re
from typing import Final

from tollspan.wire.dialects.fields import label

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


def unescaped(text: str) -> str:
    """Return `text` with its percent-escapes undone (RFC 3986 2.1), as a label; what is no escape stays as it is."""
    if "%" not in text:
        return label(text)
    raw = _ESCAPE.sub(lambda found: bytes((int(found[1], 16),)), text.encode("utf-8", "surrogatepass"))
    return label(raw.decode("utf-8", "replace"))


def segment(pattern: re.Pattern[str], path: str) -> str | None:
    """Return what the first group of `pattern` finds in `path`, its escapes undone, or None."""
    found = pattern.search(path)
    return unescaped(found[1]) if found else None


def parameter(path: str, name: str) -> str | None:
    """Return the value of a query parameter, or None where the path has no query or the query not this name."""
    _, _, query = path.partition("?")
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key == name and value:
            return unescaped(value.replace("+", " "))
    return None
