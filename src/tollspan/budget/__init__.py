"""Budgets: no call is sent that a budget cannot pay.

    with tollspan.budget("2 USD") as b: ...        tollspan.budget.status()        tollspan.budget.remaining()

`policy` and `periods` say what a budget is, `bounds` what a call may cost, `guard` asks and settles, `stores` count,
`denial` and `answers` say no, `scope` is what users touch. This module can be called, so that `tollspan.budget` is the
function and the package at once; its names are loaded when they are first used, for most programs have no budget.
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
"""The class of warnings, under its name and its earlier one."""


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
