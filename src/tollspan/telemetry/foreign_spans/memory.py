"""A bounded memory of spans and responses: `remember(memory, key, value)` drops the oldest entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections import OrderedDict

REMEMBERED: Final = 10_000
"""Span ids and response ids that are remembered: older ones were exported long ago."""


def remember(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    """Set an entry, and drop the oldest ones beyond `REMEMBERED`."""
    memory[key] = value
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)
