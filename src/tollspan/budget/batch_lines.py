"""Reads a file of requests for a batch, in pieces, line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tollspan.budget.batch_contents import BatchContents
from tollspan.wire.batch_requests import request_of
from tollspan.wire.framing.document import parsed
from tollspan.wire.framing.ndjson import JsonLines

if TYPE_CHECKING:
    from tollspan.budget.batch_contents import Pricing


class RequestLines:
    """Reads the lines of a file, in the order in which they were sent; a file that is sent again is read again."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._restart()

    def _restart(self) -> None:
        self._framing = JsonLines()
        self._contents = BatchContents()
        self._offset = 0
        self._ignored = False

    def feed(self, data: bytes, offset: int, pricing: Pricing) -> None:
        """Read bytes that start at `offset`; if some are missing before them, the file is not known."""
        if offset == 0:
            self._restart()
        if offset != self._offset:
            self._ignored = True
        self._offset += len(data)
        if not self._ignored:
            self._read(self._framing.feed(data), pricing)

    def _read(self, lines: list[bytes], pricing: Pricing) -> None:
        for line in lines:
            request = request_of(parsed(line))
            if request is None:
                self._ignored = True
                return
            self._contents.add(request, line, pricing)

    def close(self, pricing: Pricing) -> BatchContents | None:
        """Return what is in the file; None if it has no requests, or something else."""
        if not self._ignored:
            self._read(self._framing.close(), pricing)
        return None if self._ignored or not self._contents.requests else self._contents
