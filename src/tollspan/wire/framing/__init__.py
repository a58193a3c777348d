"""Sans-I/O framing: bytes in, blocks out, one module a framing.

A framing has three methods, and raises only `WireError`:

- `feed(data) -> list[bytes]`: the blocks that are now whole, raw. An empty list means "not yet".
- `close() -> list[bytes]`: what is left when no more bytes come.
- `split(block) -> (name, payload)`: the event's name ("" where the framing has none) and its payload.

Blocks stay raw until somebody wants them: most events of a stream carry no facts and are never taken apart. Where
blocks are lines of text, `feed` has a twin that does not even cut them: `whole(data) -> text`, with its `gap` behind
every block in it; `end(text, at)` tells where the one that starts at `at` ends.
"""

from __future__ import annotations

from typing import Protocol

MAX_BLOCK = 32 * 1024 * 1024
"""Bytes one unfinished block may hold; a larger one (no provider sends any) is dropped: memory stays bounded."""

# `0x0A in data` and `data.find(b"xy") >= 0` take a fifth of what `b"\n" in data` and `b"xy" in data` do: there Python
# tries first to take what is looked for as a number, which raises.
LINE_END = 0x0A


class Framing(Protocol):
    """Cuts a stream of bytes into blocks (see the module's text for the contract)."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; give the blocks that are now whole."""
        ...

    def close(self) -> list[bytes]:
        """Return what is left when no more bytes come."""
        ...

    def split(self, block: bytes) -> tuple[str, bytes]:
        """Return a block's event name and payload."""
        ...
