"""The files of a form that is about to be sent, for the bounds of its cost: `files_of(request) -> attachments`.

A file in memory is read where it is. Of an open file, which the client is about to read from its start, at most a few
pieces are read, and its position is as before. A file that cannot be sought, such as a pipe, is left alone.
"""

from __future__ import annotations

import os
from typing import Any

from tollspan.budget.request_parts import Attachment
from tollspan.tokens.media.source import Plain
from tollspan.wire.forms import form_parts


def files_of(request: Any) -> tuple[Attachment, ...]:
    """Return the files of a request's form; empty if it has none."""
    fields = getattr(request.stream, "fields", None)
    if isinstance(fields, list):
        return tuple([each for field in fields if (each := _attachment(field)) is not None])
    try:
        content = request.content
    except Exception:  # noqa: BLE001 - a body that streams: RequestNotRead of either library
        return ()
    if not content.startswith(b"--"):
        return ()  # nearly all
    parts = form_parts(content, request.headers.get("content-type", ""))
    files = [part for part in parts if part.filename is not None]
    return tuple(
        [Attachment(Plain(content, file.start, file.end), _kind(file.media_type, file.filename)) for file in files]
    )


def _attachment(field: Any) -> Attachment | None:
    content = getattr(field, "file", None)
    if isinstance(content, str):
        content = content.encode(errors="replace")
    if isinstance(content, bytes):
        return Attachment(Plain(content), _media_type(field))
    size = _size_of(content)
    return None if size is None else Attachment(_Open(content, size), _media_type(field))


def _media_type(field: Any) -> str:
    """Return the media type of a file, else the ending of its name."""
    headers = getattr(field, "headers", None)
    return _kind(headers.get("Content-Type") if isinstance(headers, dict) else None, getattr(field, "filename", None))


def _kind(stated: str | None, name: str | None) -> str:
    if stated and not stated.startswith("application/octet-stream"):
        return stated
    return name.rpartition(".")[2].lower() if name else ""


def _size_of(file: Any) -> int | None:
    """Return the size of an open file; None if it cannot be sought, or is no file."""
    try:
        before = file.tell()
        size = file.seek(0, os.SEEK_END)
        file.seek(before)
    except Exception:  # noqa: BLE001 - the application's object: a pipe, a closed file, or no file
        return None
    return size if type(size) is int else None


class _Open:
    """An open file of the application."""

    __slots__ = ("_file", "size")

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """Return at most `length` bytes from `offset` on; none if the file cannot be read."""
        file = self._file
        try:
            before = file.tell()
            file.seek(offset)
            data = file.read(length)
            file.seek(before)
        except Exception:  # noqa: BLE001 - the application's object; it is counted by its size
            return b""
        return data if isinstance(data, bytes) else b""
