"""Budgets: a call is only sent if every budget that applies to it can pay for it.

    with tollspan.budget("2 USD") as b: ...        tollspan.budget.status()        tollspan.budget.remaining()

- `api`: the functions and blocks that programs use.
- `policy`: what a budget is, its periods, and which calls it applies to.
- `bounds`, `amounts`: what a call may cost, and what it reserves.
- `guard`: the check before a call and the settlement after it, with `counter_updates`, `admission`, `reservations`,
  `refusals`, `settlements`, `charges`, `current_states` and `observations`.
- `stores`: the counters.
- `denials`, `alerts`: what a refused application gets, and warnings.
- `tools`: paid tools.

This module can be called, so that `tollspan.budget` is both the function and the package. Its names are loaded when
they are first used, because most programs have no budget.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tollspan.budget.alerts.warning import BudgetWarning
    from tollspan.budget.api import BudgetBlock, Status, exhausted, line, on_warning, remaining, status

    Warned = BudgetWarning

__all__ = ["BudgetBlock", "BudgetWarning", "Status", "Warned", "exhausted", "line", "on_warning", "remaining", "status"]

_WARNINGS = {"BudgetWarning", "Warned"}
"""The names of the class of warnings; `Warned` is its earlier one."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _WARNINGS:
        return import_module(f"{__name__}.alerts.warning").BudgetWarning
    return getattr(import_module(f"{__name__}.api"), name)


class _Module(ModuleType):
    """This module, callable."""

    if not TYPE_CHECKING:

        def __call__(self, limit: str, **options: Any) -> BudgetBlock:
            from tollspan.budget.api import block

            return block(limit, **options)


sys.modules[__name__].__class__ = _Module
budget = sys.modules[__name__]
