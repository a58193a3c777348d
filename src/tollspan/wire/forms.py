"""The parts of a form that is encoded already (`multipart/form-data`): `form_parts(content, content_type)`.

An empty list means that it is no such form. Parts are found by their boundary and never copied: a form may hold a
recording of an hour. https://www.rfc-editor.org/rfc/rfc7578
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MOST_PARTS: Final = 256
"""Parts that are looked for; a request of a model has a dozen."""

_BOUNDARY: Final = re.compile(r'^multipart/form-data\b.*?;\s*boundary="?([^";,]{1,200})"?', re.IGNORECASE)
_LONGEST_HEADER: Final = 8192
_NAME: Final = re.compile(rb'[;\s]name="([^"\r\n]*)"')
_FILENAME: Final = re.compile(rb'[;\s]filename="([^"\r\n]*)"')
_TYPE: Final = re.compile(rb"^content-type:\s*([^\r\n]+)", re.IGNORECASE | re.MULTILINE)


class FormPart(NamedTuple):
    """One part of a form; its content is `content[start:end]`. `filename` is None for a field."""

    name: str
    filename: str | None
    media_type: str
    start: int
    end: int


def form_parts(content: bytes, content_type: str) -> list[FormPart]:
    """Return the parts of a form, in their order; none if the body is no form."""
    match = _BOUNDARY.match(content_type)
    if match is None:
        return []
    boundary = b"--" + match[1].encode("latin-1", "replace")
    parts: list[FormPart] = []
    at = content.find(boundary)
    while at >= 0 and len(parts) < MOST_PARTS:
        head = at + len(boundary)
        at = content.find(b"\r\n" + boundary, head)
        start = content.find(b"\r\n\r\n", head, head + _LONGEST_HEADER) + 4
        if at < 0 or start < 4 or start > at:  # noqa: PLR2004 - not found
            break
        parts.append(_part(content[head:start], start, at))
        at += 2
    return parts


def _part(head: bytes, start: int, end: int) -> FormPart:
    name, filename, media_type = _NAME.search(head), _FILENAME.search(head), _TYPE.search(head)
    return FormPart(
        name=_text(name[1]) if name else "",
        filename=_text(filename[1]) if filename else None,
        media_type=_text(media_type[1]).strip() if media_type else "",
        start=start,
        end=end,
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
