"""Readers of a request's path: several APIs name the model there and nowhere else.

Clients pass paths percent-encoded or decoded, with a query or without: every reader here takes all of these.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tollspan.wire.dialects.fields import label

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.model.records import Facts

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


def unescaped(text: str) -> str:
    """Return `text` with its percent-escapes decoded (RFC 3986 2.1), as a label; anything else stays unchanged."""
    if "%" not in text:
        return label(text)
    raw = _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), text.encode("utf-8", "surrogatepass"))
    return label(raw.decode("utf-8", "replace"))


def segment(pattern: re.Pattern[str], path: str) -> str | None:
    """Return the first group of `pattern` in `path`, its escapes decoded, or None if it does not match."""
    match = pattern.search(path)
    return unescaped(match[1]) if match else None


def operation_reader(operations: tuple[tuple[re.Pattern[str], str], ...]) -> Callable[[Facts, str], None]:
    """Return a `read_path` for an API whose paths name the operation: the last pattern that matches counts."""

    def read_path(facts: Facts, path: str) -> None:
        for pattern, operation in operations:
            if pattern.search(path):
                facts.operation = operation

    return read_path


def parameter(path: str, name: str) -> str | None:
    """Return the value of a query parameter, or None if the path has no query or the query has no such parameter."""
    _, _, query = path.partition("?")
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key == name and value:
            return unescaped(value.replace("+", " "))
    return None
