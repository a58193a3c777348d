"""Blocks that apply to the code inside a `with` statement, in each thread and task its own, in whatever order they end.

    blocks = Blocks[Entry[Owner]]("name")
    blocks.enter(entry)     # the block of `entry.owner` begins here
    blocks.get()            # the innermost one that applies here; `around(entry)` also has those around it
    blocks.leave(entry)     # it ends

A block is usually left where it was entered, after all blocks inside it. Then threads and tasks that were started
inside keep it. A `yield` inside a block breaks both: its generator may be closed in another task or thread, by the
garbage collector, or after a block that was entered later. Such a block ends everywhere at once, contexts that still
have it skip it, and the blocks of whoever closes it stay as they are (https://peps.python.org/pep-0568/).
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextvars import Token

Owner = TypeVar("Owner")
Entered = TypeVar("Entered", bound="Entry[Any]")


class Entry(Generic[Owner]):
    """One time that a block was entered; the same block may be entered again, and in several threads at once.

    Attributes:
        owner: the object of the `with` statement.
        outer: the block around it, where it was entered.
        ended: whether it has ended for every context.
    """

    __slots__ = ("_token", "ended", "outer", "owner")

    def __init__(self, owner: Owner) -> None:
        """Prepare an entry; it applies after `Blocks.enter`."""
        self.owner = owner
        self.outer: Self | None = None
        self.ended = False
        self._token: Token[Self | None] | None = None


class Blocks(Generic[Entered]):
    """The blocks of one kind."""

    def __init__(self, name: str) -> None:
        """Keep the current block in a context variable of this name."""
        self._current: ContextVar[Entered | None] = ContextVar(name, default=None)
        self.last_entered = self._current.get  # as fast as can be: None = no block, else it may have ended

    def get(self) -> Entered | None:
        """Return the innermost block that applies here; None if there is none."""
        entry = self._current.get()
        while entry is not None and entry.ended:
            entry = entry.outer
        return entry

    def enter(self, entry: Entered) -> None:
        """Apply a block from here on."""
        entry.outer = self.get()  # without those that have ended, which need not be kept
        entry._token = self._current.set(entry)  # noqa: SLF001 - of this module

    def leave(self, entry: Entered) -> bool:
        """End a block; return whether it was left where it was entered, after the blocks inside it."""
        token, entry._token = entry._token, None  # noqa: SLF001 - as above
        is_innermost = self._current.get() is entry
        if is_innermost and token is not None:
            try:
                self._current.reset(token)
            except ValueError:  # another context than that in which it was entered, which may still have it
                self._current.set(entry.outer)
            else:
                return True
        entry.ended = True
        return False

    def left_here(self, entries: Sequence[Entered]) -> Entered:
        """Return which of a block's entries is left: the innermost one here, else the latest."""
        entry = self._current.get()
        while entry is not None:
            if entry in entries:
                return entry
            entry = entry.outer
        return entries[-1]


def around(entry: Entered | None) -> Iterator[Entered]:
    """Return a block and those around it that apply, innermost first; one that was entered twice is returned once."""
    owners: list[object] = []
    while entry is not None:
        if not entry.ended and not any(owner is entry.owner for owner in owners):
            owners.append(entry.owner)
            yield entry
        entry = entry.outer
