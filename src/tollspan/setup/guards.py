"""Guards: `configured(recorder, given)` creates the one of the settings, `new(recorder)` one for blocks alone.

Invalid budgets never lift a limit. Given in code, they raise an error at once. In a variable or a file, where no code
can catch the error, it is logged, and every call is refused with the same message until it is fixed.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import replace
from time import monotonic
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
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tollspan.budget.alerts.warning import BudgetWarning
    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.stores import Store
    from tollspan.capture.recorder import Recorder
    from tollspan.settings import Settings

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
    guard.refuse_all = f"tollspan refused this call: the budgets could not be set up ({problem})."
    return guard


def added(recorder: Recorder, given: Mapping[str, Any]) -> tuple[Settings, Guard | None]:
    """Return settings and guard with the options of budgets that are `given` later.

    Budgets are added to the active ones. The active ones are counted in the store that is given, too, if they are
    counted in memory and nothing has been spent: as if everything had been given at once.

    Raises:
        SettingsError: a budget is invalid or has the name of another one, or the active budgets would have to be
            counted elsewhere or to reserve otherwise.
    """
    now, guard = recorder.settings, recorder.guard
    settings = replace(now, **{"budget": None, "budgets": (), **given})
    wanted = budgets_of(settings)
    active = () if guard is None else guard.budgets
    changed = [name for name in _DEFAULTS if getattr(settings, name) != getattr(now, name)]
    if not wanted and active and changed:
        raise _too_late(changed[0], "the active budgets keep theirs")
    source = now if wanted else settings
    kept = replace(now, budget_store=settings.budget_store, **{name: getattr(source, name) for name in _DEFAULTS})
    budgets = checked([*active, *(budget for budget in wanted if budget not in active)], "budget")
    if guard is None or not budgets:
        return kept, new(recorder, budgets, store_of(kept.budget_store, budgets)) if budgets else guard
    if kept.budget_store == (now.budget_store if active else _MEMORY):
        check_kept(kept.budget_store, budgets)
        guard.configure(budgets)
        return kept, guard
    if guard.store is not guard.local or guard.has_counted():
        raise _too_late("budget_store", f"the active budgets are counted in {now.budget_store.partition(':')[0]}")
    return kept, new(recorder, budgets, store_of(kept.budget_store, budgets), before=guard)


_MEMORY: Final = "memory"
_DEFAULTS: Final = ("budget_hard", "budget_estimate", "budget_wait")
"""The settings for budgets that do not say it themselves."""


def _too_late(name: str, why: str) -> SettingsError:
    return SettingsError(f"instrument(): {name} cannot be changed any more: {why}. Set TOLLSPAN_{name.upper()} instead")


def new(
    recorder: Recorder, budgets: tuple[Budget, ...] = (), store: Store | None = None, before: Guard | None = None
) -> Guard:
    """Return a new guard; without a store it counts in memory. It goes on with the calls and blocks of one before."""
    recorder.budget_gate = budget_gate
    settings = recorder.settings
    guard = Guard(
        budgets,
        store or MemoryStore(),
        Bounds(recorder.table),
        session=settings.session,
        run=settings.run_id,
        failed=recorder.failed,
        before=before,
    )
    guard.thresholds.note = functools.partial(_note, ref(recorder))
    path = ledger_path(settings)
    if path is not None:
        _know_responses(guard, path)
        _learn_from_ledger(guard, path)
    if path is not None and guard.store is guard.local:
        from tollspan.ledger.resets import ResetWatcher  # here, for it brings SQLite

        weak = ref(guard)
        watcher = ResetWatcher(path, lambda session: _reset(weak, session))
        watcher.look()  # what was reset before is not this process's
        # A reset by another process cannot reach this process's memory.
        guard.poll_resets = _Polling(watcher.look, recorder.background.put)
    return guard


class _Polling:
    """Has something looked at in the background, at most every `LOOK_EVERY` seconds: calls must not wait for a disk."""

    def __init__(self, look: Callable[[], object], put: Callable[[Callable[[], object]], object]) -> None:
        self._look = look
        self._put = put
        self._due = 0.0

    def __call__(self) -> None:
        now = monotonic()
        if now >= self._due:
            self._due = now + LOOK_EVERY
            self._put(self._look)


LOOK_EVERY: Final = 0.2
"""Seconds after which a session that another process has reset begins anew in this process's memory."""


def _know_responses(guard: Guard, path: Path) -> None:
    """Have the guard know the conversations that other processes have had: a request may continue one of them."""
    from tollspan.ledger.recent import recent_responses  # here, for it brings SQLite

    try:
        guard.bounds.stored.know(recent_responses(path))
    except LedgerError as error:
        log.debug("budgets start without the conversations of the ledger: %s", error)


def _learn_from_ledger(guard: Guard, path: Path) -> None:
    """Have the guard start with what the ledger knows of models: a new process, or a new store, knows nothing."""
    from tollspan.ledger.recent import recent_outputs  # here, for it brings SQLite

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
        guard.reset_sessions((session,))


def _note(weak: ref[Recorder], warning: BudgetWarning, span: Any) -> None:
    if (recorder := weak()) is not None:
        gauges.note_warning(recorder.tracer, span, warning)
