"""Guards: `configured(recorder, given)` creates the one of the settings, `new(recorder)` one for blocks alone.

Invalid budgets never lift a limit. Given in code, they raise an error at once. In a variable or a file, where no code
can catch the error, it is logged, and every call is refused with the same message until it is fixed.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from tollspan.budget import instruments as gauges
from tollspan.budget.bounds import Bounds
from tollspan.budget.guard import Guard
from tollspan.budget.habits import ANY, HabitKey, Sample, experience_of
from tollspan.budget.policy.budget import checked
from tollspan.budget.policy.settings import budgets_of, leaves_hard_unsaid
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.stores.opening import check_kept, store_of
from tollspan.capture import budget_gate
from tollspan.model.errors import LedgerError, SettingsError
from tollspan.settings import BUDGET_OPTIONS, ledger_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tollspan.budget.alerts.warning import BudgetWarning
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.stores import Store
    from tollspan.capture.recorder import Recorder

log = logging.getLogger("tollspan")


def configured(recorder: Recorder, given: Mapping[str, Any]) -> Guard | None:
    """Return the guard of the configured budgets; None if there are none.

    Raises:
        SettingsError: a budget `given` in code is invalid.
    """
    settings = recorder.settings
    try:
        budgets = budgets_of(settings)
        guard = new(recorder, budgets, store_of(settings.budget_store, budgets)) if budgets else None
    except SettingsError as error:
        if any(option in given for option in BUDGET_OPTIONS):
            raise
        problem = "invalid budgets" if isinstance(settings.budgets, str) else str(error)  # the settings log the first
        log.error("%s: all calls are refused until this is fixed", problem)  # noqa: TRY400 - the text says it all
        return _refusing(recorder, str(error))
    except Exception as error:
        if any(option in given for option in BUDGET_OPTIONS):
            raise
        log.exception("budgets could not be set up: all calls are refused until this is fixed")
        return _refusing(recorder, type(error).__name__)
    if guard is not None and leaves_hard_unsaid(settings):
        log.info("%s", _NOT_HARD)
    return guard


_NOT_HARD: Final = (
    "budgets are used to their end: calls are sent until the limit is spent, and the last of them may pass it (earlier "
    "versions refused each call that might pass it); with budget_hard = true no call passes a limit"
)


def _refusing(recorder: Recorder, problem: str) -> Guard:
    """Return a guard that refuses every call, because no limit may be lifted."""
    guard = new(recorder)
    guard.refuse_all = (
        f"tollspan refused this call: the budgets could not be set up ({problem}). All calls are refused until this is "
        "fixed."
    )
    return guard


def added(recorder: Recorder, given: Mapping[str, Any]) -> Guard:
    """Return the active guard with the budgets that are `given` added, or a guard of these alone.

    Raises:
        SettingsError: one of them is invalid, or has the name of another one.
    """
    settings = {name: given[name] for name in BUDGET_OPTIONS if given.get(name) not in (None, "", (), [])}
    wanted = budgets_of(replace(recorder.settings, **{"budget": None, "budgets": (), **settings}))
    guard = recorder.guard
    if guard is None:
        return new(recorder, wanted, store_of(settings.get("budget_store", recorder.settings.budget_store), wanted))
    check_kept(recorder.settings.budget_store, wanted)
    active = guard.budgets
    guard.configure(checked([*active, *(budget for budget in wanted if budget not in active)], "budget"))
    return guard


def new(recorder: Recorder, budgets: tuple[Budget, ...] = (), store: Store | None = None) -> Guard:
    """Return a new guard; without a store it counts in memory."""
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
    if path is not None:
        _learn_from_ledger(guard, path)
    if path is not None and guard.store is guard.local:
        from tollspan.ledger.resets import ResetWatcher  # here, for it brings SQLite

        weak = ref(guard)
        watcher = ResetWatcher(path, lambda session, _: _reset(weak, session))
        guard.poll_resets = watcher.look  # a reset by another process cannot reach this process's memory
    return guard


def _learn_from_ledger(guard: Guard, path: Path) -> None:
    """Have the guard start with what the ledger knows of models: a new process, or a new store, knows nothing."""
    from tollspan.ledger.outputs import recent_outputs  # here, for it brings SQLite

    samples: dict[str, list[Sample]] = {}
    try:
        for output in recent_outputs(path):
            key = HabitKey(output.provider, output.model, output.operation, ANY)
            samples.setdefault(str(key), []).append(Sample(output.tokens))
    except LedgerError as error:
        log.debug("budgets start without the experience of the ledger: %s", error)
    guard.habits.put({key: experience_of(group) for key, group in samples.items()})


def _reset(weak: ref[Guard], session: str) -> None:
    if (guard := weak()) is not None:
        guard.reset_session(session)


def _note(weak: ref[Recorder], warning: BudgetWarning, span: Any) -> None:
    if (recorder := weak()) is not None:
        gauges.note_warning(recorder.tracer, span, warning)
