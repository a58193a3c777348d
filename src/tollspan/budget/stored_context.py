"""What is known of context that the provider stores: conversations, files, prompts and caches, by id.

A call that has ended shows their size: no more of its input can have come from what it named than all of it. A
conversation has the response in it as well.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tollspan.model.records import Call

MAX_REMEMBERED: Final = 4096
"""Ids that are remembered; of more, the oldest are forgotten."""


class StoredContext:
    """The sizes of stored context in tokens, by id."""

    def __init__(self) -> None:
        """Start with nothing known."""
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def size(self, ids: Iterable[str]) -> int | None:
        """Return the most tokens that these have together; None if one of them is not known."""
        total = 0
        for each in ids:
            known = self._sizes.get(each)
            if known is None:
                return None
            total += known
        return total

    def learn(self, call: Call, named: Iterable[str]) -> None:
        """Remember the size of a response's conversation, and of what its request `named`."""
        usage = call.usage
        if usage is None or usage.input is None or call.usage_quality != "measured":
            return
        tokens = usage.input + (usage.output or 0)
        self.know((each, tokens) for each in (call.response_id, *named) if each is not None)

    def know(self, sizes: Iterable[tuple[str, int]]) -> None:
        """Remember the sizes of stored context, as ids and tokens."""
        for each, tokens in sizes:
            self._sizes[each] = tokens
            self._sizes.move_to_end(each)
        while len(self._sizes) > MAX_REMEMBERED:
            with contextlib.suppress(KeyError):  # another thread may have removed the last one
                self._sizes.popitem(last=False)
