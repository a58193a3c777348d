"""How blocks, `tollspan.budget` functions and paid tools reach the guard: `instrument()` connects them to it.

Every `instrument()` loads this small module; the rest of this package is loaded only if there is a budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.budget.guard import Guard
    from tollspan.budget.policy.settings import Defaults
    from tollspan.model.records import Call
    from tollspan.model.refusal import Refusal


class BudgetRuntime(NamedTuple):
    """The functions that reach the process's guard, counters, spans and records.

    Attributes:
        guard: returns the guard; None if there is no budget.
        ensure_guard: returns the guard, and creates one if there is none.
        spend: returns atto-dollars spent and calls made, of the current session or else of this process.
        start_span: starts the span of a paid tool of this name.
        record: records a call, with its span.
        refused: counts a call that a budget refused.
        defaults: returns what the settings say for budgets that do not say it themselves; raises SettingsError.
    """

    guard: Callable[[], Guard | None]
    ensure_guard: Callable[[], Guard]
    spend: Callable[[], tuple[int, int]]
    start_span: Callable[[str], Any]
    record: Callable[[Call, Any], None]
    refused: Callable[[Refusal], None]
    defaults: Callable[[], Defaults]


_runtime: BudgetRuntime | None = None


def connect(runtime: BudgetRuntime | None) -> None:
    """Connect this package with a runtime, or disconnect it."""
    global _runtime  # noqa: PLW0603 - one per process, as the hook is
    _runtime = runtime


def connected() -> BudgetRuntime | None:
    """Return the current runtime; None before `instrument()`."""
    return _runtime
