"""What a fork needs: SQLite and our imports at rest, and in the child new locks and none of what is the parent's alone.

Only the forking thread lives on in the child, so a lock that another one held is never released there; and a child that
inherits an open connection of SQLite takes it for its own and locks nothing, so that its parent, closing the file as
the last one, deletes the log that the child writes to (https://www.sqlite.org/howtocorrupt.html, 2.6). Therefore a fork
waits until no thread is in SQLite, and what is open is closed before it; the parent opens it again when it needs it.

A module that another thread is importing can never be imported in the child, for the interpreter keeps its lock. We
import much with the first call, so a fork waits for that too.

The interpreter keeps what it is told to call around a fork for ever; here objects are held weakly, so that they can go.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from importlib import _bootstrap  # whose locks of modules are not public
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("tollspan")

Kept = TypeVar("Kept")

PATIENCE: Final = 5.0
"""Seconds that a fork waits for other threads."""

_PAUSE: Final = 0.0005

_renewed: Final[WeakKeyDictionary[Any, Callable[[Any], None]]] = WeakKeyDictionary()
_closed: Final[WeakKeyDictionary[Any, Callable[[Any], None]]] = WeakKeyDictionary()
_inside: Final[dict[int, int]] = {}  # by thread: how deep. No lock, for a signal's handler may come in at any point.
_forking: Final[set[int]] = set()  # threads


def renew_in_child(one: Kept, renew: Callable[[Kept], None]) -> None:
    """Call `renew(one)` in every forked child, for as long as there is `one`, which must not be held by `renew`."""
    _renewed[one] = renew


def close_before_fork(one: Kept, close: Callable[[Kept], None]) -> None:
    """Call `close(one)` before every fork, with no thread in SQLite, for as long as there is `one`."""
    _closed[one] = close


class _InSqlite:
    """Held while a thread is in SQLite, by as many threads as like; only a fork waits for them, and they for it.

    Whoever keeps a connection beyond it has it closed by `close_before_fork`.
    """

    def __enter__(self) -> None:
        me = threading.get_ident()
        depth = _inside.get(me, 0)
        _inside[me] = depth + 1
        try:
            while not depth and _forking and _forking != {me}:
                del _inside[me]
                time.sleep(_PAUSE)
                _inside[me] = 1
        except BaseException:  # interrupted while waiting
            _inside.pop(me, None)
            raise

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        depth = _inside.get(me, 0)
        if depth > 1:
            _inside[me] = depth - 1
        else:
            _inside.pop(me, None)


in_sqlite: Final = _InSqlite()


def _before() -> None:
    me = threading.get_ident()
    _forking.add(me)
    deadline = time.monotonic() + PATIENCE
    _wait(lambda: bool(_inside.keys() - {me}), deadline)
    if not _inside:
        _each(_closed)
    elif _closed:
        log.warning("a process is forked in the middle of writing to SQLite; what the child spends may not be kept")
    _wait(lambda: _is_importing(me), deadline)


def _each(told: WeakKeyDictionary[Any, Callable[[Any], None]]) -> None:
    """Call for each what was told to be called; one that raises keeps no other from its turn."""
    for one, action in list(told.items()):
        try:
            action(one)
        except Exception:
            log.exception("tollspan could not make %s ready for a fork", type(one).__name__)


def _wait(others: Callable[[], bool], deadline: float) -> None:
    while others() and time.monotonic() < deadline:
        time.sleep(_PAUSE)


def _is_importing(me: int) -> bool:
    """Return whether a thread that is not `me` imports one of our modules."""
    for name, known in list(getattr(_bootstrap, "_module_locks", {}).items()):
        lock = known() if name.partition(".")[0] == "tollspan" else None
        if lock is not None and lock.owner not in {None, me}:
            return True
    return False


def _in_parent() -> None:
    me = threading.get_ident()
    _inside.pop(me, None)  # a signal's handler that raised at the end of a block leaves it counted: for one fork only
    _forking.discard(me)


def _in_child() -> None:
    _forking.clear()
    _inside.clear()
    _each(_renewed)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
