"""Feeds bytes to a framing in pieces, and says what came out."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tollspan.wire.framing import Framing

CUTS = st.lists(st.integers(0, 2_000), max_size=30)
"""Places at which a network may cut a body."""


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    """Return the body in pieces that begin at these places."""
    marks = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(marks)]


def split(framing: Framing, pieces: Iterable[bytes]) -> list[tuple[str, bytes]]:
    """Return the names and payloads of all blocks; empty ones are nothing."""
    blocks = [block for piece in pieces for block in framing.feed(piece)]
    found = [framing.split(block) for block in (*blocks, *framing.close())]
    return [pair for pair in found if pair != ("", b"")]
