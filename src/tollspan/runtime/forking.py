"""What a fork needs: before it, SQLite and our imports at rest; in the child, new locks and nothing of the parent's.

Only the forking thread lives on in the child, so a lock that another thread held is never released there. A child
that inherits an open connection of SQLite does not lock the file, so that its parent, when it is the last to close
the file, deletes the log that the child writes to (https://www.sqlite.org/howtocorrupt.html, 2.6). Therefore a fork
waits until no thread is in SQLite, and connections are closed before it; the parent opens them again when it needs
them.

A module that another thread is importing can never be imported in the child, because its import lock stays held there.
The first call imports many modules, so a fork waits for imports too.

The interpreter keeps callbacks around a fork forever. Here objects are held weakly, so that they can be freed.
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
_inside: Final[dict[int, int]] = {}  # by thread: how deep. No lock, because a signal handler may run at any point.
_forking: Final[set[int]] = set()  # threads


def renew_in_child(one: Kept, renew: Callable[[Kept], None]) -> None:
    """Call `renew(one)` in every forked child as long as `one` exists; `renew` must not hold `one`."""
    _renewed[one] = renew


def close_before_fork(one: Kept, close: Callable[[Kept], None]) -> None:
    """Call `close(one)` before every fork, with no thread in SQLite, as long as `one` exists."""
    _closed[one] = close


class _InSqlite:
    """Held while a thread is in SQLite, by any number of threads; only a fork waits for them, and they for it.

    A connection that stays open after it must be closed by `close_before_fork`.
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
        log.warning("the process forks while a thread writes to SQLite; the calls of the child may not be recorded")
    _wait(lambda: _is_importing(me), deadline)


def _each(actions: WeakKeyDictionary[Any, Callable[[Any], None]]) -> None:
    """Call the action of each object; one that raises does not keep the others from being called."""
    for one, action in list(actions.items()):
        try:
            action(one)
        except Exception:
            log.exception("tollspan could not prepare %s for a fork", type(one).__name__)


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
    _inside.pop(me, None)  # a signal handler that raised at the end of a block leaves it counted: for one fork only
    _forking.discard(me)


def _in_child() -> None:
    _forking.clear()
    _inside.clear()
    _each(_renewed)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
