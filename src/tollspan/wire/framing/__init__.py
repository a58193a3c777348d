"""Sans-I/O framing: bytes in, blocks out, one module for each framing.

A framing has three methods, which raise only `WireError`:

- `feed(data) -> list[bytes]`: the blocks that are now complete, raw. An empty list means "not yet".
- `close() -> list[bytes]`: the rest, when no more bytes come.
- `split(block) -> (name, payload)`: the event's name ("" if the framing has none) and its payload, JSON.

A block is not empty and does not start with a colon, unless it is a comment: both are skipped. Blocks stay raw until
they are needed: most events of a stream carry no facts and are never taken apart.

If blocks are lines of text, `feed` has a twin that does not even cut them: `whole(data) -> text`, in which every block
is followed by `gap`; `start(text, at)` returns the start of the next block that may have a JSON object, and
`end(text, at)` the end of the block that starts at `at`. Framings of other packages need only the three methods.
"""

from __future__ import annotations

from typing import Protocol

MAX_BLOCK = 32 * 1024 * 1024
"""Bytes of an unfinished block; a larger one (no provider sends any) is dropped, so that memory stays bounded."""

# `0x0A in data` and `data.find(b"xy") >= 0` take a fifth of the time of `b"\n" in data` and `b"xy" in data`, for which
# Python first tries to convert the operand to a number, which raises.
LINE_END = 0x0A


class Framing(Protocol):
    """Cuts a stream of bytes into blocks (see the package's docstring for the contract)."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the blocks that are now complete."""
        ...

    def close(self) -> list[bytes]:
        """Return the rest, when no more bytes come."""
        ...

    def split(self, block: bytes) -> tuple[str, bytes]:
        """Return a block's event name and payload."""
        ...
