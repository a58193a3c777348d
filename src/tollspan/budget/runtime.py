"""How blocks, questions and paid tools find what is in force: `instrument()` connects them, `uninstrument()` no more.

A module of its own, and a small one: every `instrument()` loads it, and the rest of this package is loaded where there
is a budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.budget.guard import Guard
    from tollspan.model.records import Call


class BudgetRuntime(NamedTuple):
    """The ways to the process's guard and counters, and for paid tools to its spans and records."""

    guard: Callable[[], Guard | None]
    make: Callable[[], Guard]
    spend: Callable[[], tuple[int, int]]
    start_span: Callable[[str], Any]
    record: Callable[[Call, Any], None]


_wiring: BudgetRuntime | None = None


def connect(wiring: BudgetRuntime | None) -> None:
    """Connect this package with what is in force, or disconnect it."""
    global _wiring  # noqa: PLW0603 - one per process, as the hook is
    _wiring = wiring


def connected() -> BudgetRuntime | None:
    """Return the ways to what is in force, or None before `instrument()`."""
    return _wiring
