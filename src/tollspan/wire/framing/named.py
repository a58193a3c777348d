"""Framings by name, for dialects that list the framing of a content type (`Dialect.framings`).

    framing_named("sse")            # ServerSentEvents, the class: calling it makes a framing for one body
    add_framing("acme", AcmeFrames) # one from another package

`framing_named` raises LookupError for an unknown name. Names that are built in cannot be replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tollspan.wire.framing.eventstream import EventStream
from tollspan.wire.framing.jsonarray import JsonArray
from tollspan.wire.framing.ndjson import JsonLines
from tollspan.wire.framing.sse import ServerSentEvents

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tollspan.wire.framing import Framing

_BUILT_IN: Final[Mapping[str, Callable[[], Framing]]] = {
    "eventstream": EventStream,
    "jsonarray": JsonArray,
    "ndjson": JsonLines,
    "sse": ServerSentEvents,
}
_ADDED: Final[dict[str, Callable[[], Framing]]] = {}


def is_built_in(name: str) -> bool:
    """Return whether tollspan itself has a framing of this name."""
    return name in _BUILT_IN


def add_framing(name: str, make: Callable[[], Framing]) -> None:
    """Add a framing from another package; `make()` returns one for a new body."""
    _ADDED[name] = make


def framing_named(name: str) -> Callable[[], Framing]:
    """Return what makes a framing. Raises LookupError if there is none of this name."""
    make = _BUILT_IN.get(name) or _ADDED.get(name)
    if make is None:
        raise LookupError(f"no framing named {name!r}")
    return make
