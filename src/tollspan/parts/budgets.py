"""Puts the guard in its place: `start(recorder)` reads the budgets, `stop(recorder)` takes them away.

Budgets that cannot be read lift no limit. Given in code they are an error at once; found in a variable or a file, where
nobody is there to catch it, they are logged, and every call is refused with the same words until they are mended.
"""

from __future__ import annotations

import atexit
import functools
import logging
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from opentelemetry.trace import SpanKind

from tollspan.attribution import values_in_force
from tollspan.budget import scope, tools
from tollspan.budget.bounds import Bounds
from tollspan.budget.configuration import budgets_of, store_of
from tollspan.budget.guard import Guard
from tollspan.budget.stores.memory import MemoryStore
from tollspan.errors import SettingsError
from tollspan.ledger.resets import News
from tollspan.settings import ledger_path
from tollspan.telemetry import budgets as gauges
from tollspan.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span

    from tollspan.attempts.recorder import Recorder
    from tollspan.budget.thresholds import Warned

log = logging.getLogger("tollspan")

_GRACE: Final = 5.0
"""Seconds that the end of a process waits for settlements at most."""

_OPTIONS: Final = ("budget", "budgets", "budget_store", "budget_estimate")


def start(recorder: Recorder, given: Mapping[str, Any]) -> None:
    """Set up the guard, where there is a budget, and let `tollspan.budget` find it.

    Raises:
        SettingsError: a budget `given` in code cannot be read.
    """
    try:
        budgets = budgets_of(recorder.settings)
        if budgets:
            recorder.guard = _new(recorder, budgets, store_of(recorder.settings.budget_store, budgets))
    except SettingsError as error:
        if any(option in given for option in _OPTIONS):
            raise
        told = "This" if isinstance(recorder.settings.budgets, str) else str(error)  # the settings have said the first
        log.error("%s: every call is refused until it is mended", told)  # noqa: TRY400 - it says all there is to say
        recorder.guard = _new(recorder, (), MemoryStore())
        recorder.guard.refusing = f"The budget refused this call, because budgets cannot be read: {error}."
    scope.wire(scope.Wiring(lambda: recorder.guard, lambda: _made(recorder), lambda: _spend(recorder)))
    tools.wire(tools.Hooks(lambda: recorder.guard, lambda name: _tool_span(recorder, name), recorder.record))
    recorder.on_reset.append(lambda session: _reset(recorder, session))
    atexit.register(_finish, ref(recorder))
    known = ref(recorder)  # a meter keeps its callbacks for ever
    gauges.observe(recorder.meter, lambda: getattr(known(), "guard", None))


def stop(recorder: Recorder) -> None:
    """Take the guard away, once it has settled what is left."""
    scope.wire(None)
    tools.wire(None)
    guard, recorder.guard = recorder.guard, None
    if guard is not None:
        guard.close()


def _new(recorder: Recorder, budgets: tuple[Any, ...], store: Any) -> Guard:
    settings = recorder.settings
    guard = Guard(
        budgets,
        store,
        Bounds(recorder.table),
        session=settings.session,
        run=settings.run_id,
        failed=recorder.failed,
    )
    guard.thresholds.note = functools.partial(_note, ref(recorder))
    path = ledger_path(settings)
    if path is not None and guard.store is guard.local:
        guard.was_reset = News(path).reset  # who resets a session elsewhere cannot reach this process's memory
    return guard


def _note(known: ref[Recorder], warned: Warned, span: Any) -> None:
    if (recorder := known()) is not None:
        gauges.note_warning(recorder.tracer, span, warned)


def _reset(recorder: Recorder, session: str | None) -> None:
    if recorder.guard is not None:
        recorder.guard.reset_session(session)


def _finish(known: ref[Recorder]) -> None:
    """Wait for what is still to be settled: the process is about to end."""
    recorder = known()
    if recorder is not None and recorder.guard is not None:
        recorder.guard.settler.flush(_GRACE)


def _made(recorder: Recorder) -> Guard:
    """Give the guard in force; make one without budgets where there is none, for the first block."""
    if recorder.guard is None:
        recorder.guard = _new(recorder, (), MemoryStore())
    return recorder.guard


def _tool_span(recorder: Recorder, name: str) -> Span:
    attributes = {names.OPERATION: tools.OPERATION, names.TOOL_NAME: name}
    return recorder.tracer.start_span(f"{tools.OPERATION} {name}", kind=SpanKind.INTERNAL, attributes=attributes)


def _spend(recorder: Recorder) -> tuple[int, int]:
    """Give what was spent, in atto-dollars, and the calls: of the session in force here, else of this process."""
    session = values_in_force().get("session") or recorder.settings.session
    figures = recorder.summary(session).figures
    return figures.spend, figures.calls
