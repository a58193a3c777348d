"""The names of counters: budget, period, and the values that a budget is kept by.

    per-user daily/2026-11-22/user=alice        5 USD%2Fsession/session/session=chat-17

Stores sort and look up counters by these names. The names of blocks' counters begin with `#`; these are counted in one
process only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

BLOCK = "#"
"""The prefix of the counters of `with` blocks, and of no others."""


def prefix_of(budget: str) -> str:
    """Return the prefix of a budget's counters."""
    return quote(budget, safe=" $")


def key_of(prefix: str, period: str, values: Iterable[tuple[str, str]]) -> str:
    """Return the name of the counter of a budget's `prefix`, in a period, for these keys and values."""
    return "/".join([prefix, period, *(f"{name}={quote(value, safe='')}" for name, value in values)])


def is_block(key: str) -> bool:
    """Return whether a counter belongs to a `with` block."""
    return key.startswith(BLOCK)


def period_of(key: str) -> str:
    """Return the name of a counter's period."""
    return key.split("/", 2)[1]


def values_of(key: str) -> dict[str, str]:
    """Return the values that a counter is kept by, by key."""
    pairs = (part.partition("=") for part in key.split("/")[2:])
    return {name: unquote(value) for name, _, value in pairs}


def of_sessions(counters: Iterable[str], sessions: Collection[str] | None) -> list[str]:
    """Return the counters of these sessions alone, by their period or values; None = the counters of every session."""
    values = {key: values_of(key).get("session") for key in counters if not is_block(key)}
    return [key for key, value in values.items() if value is not None and (sessions is None or value in sessions)]
