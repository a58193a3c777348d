"""Makes guards: `configured(recorder, given)` by the settings, `new(recorder)` one without budgets, for blocks.

Budgets that cannot be read lift no limit. Given in code they are an error at once; found in a variable or a file, where
nobody is there to catch it, they are logged, and every call is refused with the same words until they are mended.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import ref

from tollspan.budget import instruments as gauges
from tollspan.budget.bounds import Bounds
from tollspan.budget.guard import Guard
from tollspan.budget.policy.budget import checked
from tollspan.budget.policy.settings import budgets_of
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.stores.opening import store_of
from tollspan.capture import budget_gate
from tollspan.model.errors import SettingsError
from tollspan.settings import BUDGET_OPTIONS, ledger_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.budget.alerts.warning import BudgetWarning
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.stores import Store
    from tollspan.capture.recorder import Recorder

log = logging.getLogger("tollspan")


def configured(recorder: Recorder, given: Mapping[str, Any]) -> Guard | None:
    """Return the guard of the budgets that are configured; None where there turn out to be none.

    Raises:
        SettingsError: a budget `given` in code cannot be read.
    """
    settings = recorder.settings
    try:
        budgets = budgets_of(settings)
        return new(recorder, budgets, store_of(settings.budget_store, budgets)) if budgets else None
    except SettingsError as error:
        if any(option in given for option in BUDGET_OPTIONS):
            raise
        told = "This" if isinstance(settings.budgets, str) else str(error)  # the settings have said the first
        log.error("%s: every call is refused until it is mended", told)  # noqa: TRY400 - it says all there is to say
        return _refusing(recorder, str(error))
    except Exception as error:
        if any(option in given for option in BUDGET_OPTIONS):
            raise
        log.exception("budgets cannot be set up: every call is refused until it is mended")
        return _refusing(recorder, type(error).__name__)


def _refusing(recorder: Recorder, problem: str) -> Guard:
    """Return a guard that refuses every call: nobody is there to be told, and no limit may be lifted."""
    guard = new(recorder)
    guard.refusing = f"The budget refused this call, because budgets cannot be read: {problem}."
    return guard


def added(recorder: Recorder, given: Mapping[str, Any]) -> Guard:
    """Return the guard in force with the budgets that are `given` beside its own, or one of them alone.

    Raises:
        SettingsError: one of them cannot be read, or has the name of another one.
    """
    settings = {name: given[name] for name in BUDGET_OPTIONS if given.get(name)}
    wanted = budgets_of(replace(recorder.settings, **{"budget": None, "budgets": (), **settings}))
    guard = recorder.guard
    if guard is None:
        return new(recorder, wanted, store_of(settings.get("budget_store", recorder.settings.budget_store), wanted))
    known = guard.budgets
    guard.configure(checked([*known, *(budget for budget in wanted if budget not in known)], "budget"))
    return guard


def new(recorder: Recorder, budgets: tuple[Budget, ...] = (), store: Store | None = None) -> Guard:
    """Make a guard; it counts in memory where it is given no store."""
    recorder.budget_gate = budget_gate
    settings = recorder.settings
    guard = Guard(
        budgets,
        store or MemoryStore(),
        Bounds(recorder.table),
        session=settings.session,
        run=settings.run_id,
        failed=recorder.failed,
    )
    guard.thresholds.note = functools.partial(_note, ref(recorder))
    path = ledger_path(settings)
    if path is not None and guard.store is guard.local:
        from tollspan.ledger.resets import ResetWatcher  # here, for it brings SQLite

        known = ref(guard)
        news = ResetWatcher(path, lambda session, _: _reset(known, session))
        guard.hear = news.look  # who resets a session elsewhere cannot reach this process's memory
    return guard


def _reset(known: ref[Guard], session: str) -> None:
    if (guard := known()) is not None:
        guard.reset_session(session)


def _note(known: ref[Recorder], warned: BudgetWarning, span: Any) -> None:
    if (recorder := known()) is not None:
        gauges.note_warning(recorder.tracer, span, warned)
