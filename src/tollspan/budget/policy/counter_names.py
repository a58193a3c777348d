"""The names of counters: budget, period, and the values that tell a budget's counters apart.

    per-user daily/2026-11-22/user=alice        5 USD%2Fsession/session/session=chat-17

Stores sort and find counters by these names. Those of `with` blocks begin with `#`, and belong to one process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK = "#"
"""What the names of blocks' counters begin with; no other one does."""


def prefix_of(budget: str) -> str:
    """Return what the names of a budget's counters begin with."""
    return quote(budget, safe=" $")


def key_of(prefix: str, period: str, values: Iterable[tuple[str, str]]) -> str:
    """Return the name of a counter: of a budget's `prefix`, in a period, for these keys and values."""
    return "/".join([prefix, period, *(f"{name}={quote(value, safe='')}" for name, value in values)])


def is_block(key: str) -> bool:
    """Return whether a counter is that of a `with` block."""
    return key.startswith(BLOCK)


def period_of(key: str) -> str:
    """Return the name of the period that a counter is of."""
    return key.split("/", 2)[1]


def values_of(key: str) -> dict[str, str]:
    """Return the values that a counter is kept by."""
    pairs = (part.partition("=") for part in key.split("/")[2:])
    return {name: unquote(value) for name, _, value in pairs}


def of_session(counters: Iterable[str], session: str | None) -> list[str]:
    """Return the counters that are kept for this session alone, by their period or their values; None = for any."""
    kept = {key: values_of(key).get("session") for key in counters if not is_block(key)}
    return [key for key, value in kept.items() if value is not None and session in {None, value}]
