"""What a forked child begins anew: locks that a thread of the parent may have held, and what is only the parent's.

Only the forking thread lives on in the child, so a lock that another one held is never released there. The interpreter
keeps what it is told to call after a fork for ever; here objects are held weakly, so that they can go.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

Kept = TypeVar("Kept")

_renewed: Final[WeakKeyDictionary[Any, Callable[[Any], None]]] = WeakKeyDictionary()


def renew_in_child(one: Kept, renew: Callable[[Kept], None]) -> None:
    """Call `renew(one)` in every forked child, for as long as there is `one`, which must not be held by `renew`."""
    _renewed[one] = renew


def _renew() -> None:
    for one, renew in list(_renewed.items()):
        renew(one)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
