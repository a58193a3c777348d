"""Puts the guard in its place: `start(recorder)` reads the budgets, `stop(recorder)` takes them away.

Budgets that cannot be read lift no limit. Given in code they are an error at once; found in a variable or a file, where
nobody is there to catch it, they are logged, and every call is refused with the same words until they are mended.
"""

from __future__ import annotations

import atexit
import logging
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from opentelemetry.trace import SpanKind

from tollspan.budget import scope, tools
from tollspan.budget.bounds import Bounds
from tollspan.budget.configuration import budgets_of, store_of
from tollspan.budget.guard import Guard
from tollspan.budget.stores.memory import MemoryStore
from tollspan.errors import SettingsError
from tollspan.telemetry import budgets as gauges
from tollspan.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span

    from tollspan.attempts.recorder import Recorder

log = logging.getLogger("tollspan")

_OPTIONS: Final = ("budget", "budgets", "budget_store", "budget_estimate")


def start(recorder: Recorder, given: Mapping[str, Any]) -> None:
    """Set up the guard, where there is a budget, and let `tollspan.budget` find it.

    Raises:
        SettingsError: a budget `given` in code cannot be read.
    """
    try:
        budgets = budgets_of(recorder.settings)
        if budgets:
            recorder.guard = _guard(recorder, budgets)
    except SettingsError as error:
        if any(option in given for option in _OPTIONS):
            raise
        log.error("%s. Every call is refused until this is mended.", error)  # noqa: TRY400 - it says all there is to say
        recorder.guard = _new(recorder, (), MemoryStore())
        recorder.guard.refusing = f"The budget refused this call, because budgets cannot be read: {error}."
    scope.wire(scope.Wiring(lambda: recorder.guard, lambda: _made(recorder), lambda: _spend(recorder)))
    tools.wire(tools.Hooks(lambda: recorder.guard, lambda name: _tool_span(recorder, name), recorder.record))
    known = ref(recorder)  # a meter keeps its callbacks for ever
    gauges.observe(recorder.meter, lambda: getattr(known(), "guard", None))


def stop(recorder: Recorder) -> None:
    """Take the guard away, once it has settled what is left."""
    scope.wire(None)
    tools.wire(None)
    guard, recorder.guard = recorder.guard, None
    if guard is not None:
        guard.close()


def _guard(recorder: Recorder, budgets: tuple[Any, ...]) -> Guard:
    guard = _new(recorder, budgets, store_of(recorder.settings.budget_store, budgets))
    if guard.store.remote:
        atexit.register(guard.settler.flush, 5.0)
    return guard


def _new(recorder: Recorder, budgets: tuple[Any, ...], store: Any) -> Guard:
    settings = recorder.settings
    return Guard(
        budgets,
        store,
        Bounds(recorder.table),
        session=settings.session,
        run=settings.run_id,
        failed=recorder.failed,
    )


def _made(recorder: Recorder) -> Guard:
    """Give the guard in force; make one without budgets where there is none, for the first block."""
    if recorder.guard is None:
        recorder.guard = _new(recorder, (), MemoryStore())
    return recorder.guard


def _tool_span(recorder: Recorder, name: str) -> Span:
    attributes = {names.OPERATION: tools.OPERATION, names.TOOL_NAME: name}
    return recorder.tracer.start_span(f"{tools.OPERATION} {name}", kind=SpanKind.INTERNAL, attributes=attributes)


def _spend(recorder: Recorder) -> tuple[int, int]:
    return recorder.accumulator.spend, recorder.accumulator.calls
