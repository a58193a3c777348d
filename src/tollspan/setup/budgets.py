"""Puts the guard in its place: `start(recorder)` reads the budgets, `stop(recorder)` takes them away.

What budgets are made of is loaded where there is one (`setup/guards.py`), and with the first block.
"""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from opentelemetry.trace import SpanKind

from tollspan.attribution import current_attribution
from tollspan.budget import instruments as gauges
from tollspan.budget.runtime import BudgetRuntime, connect
from tollspan.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span

    from tollspan.budget.guard import Guard
    from tollspan.capture.recorder import Recorder

_GRACE: Final = 5.0
"""Seconds that the end of a process waits for settlements at most."""


def start(recorder: Recorder, given: Mapping[str, Any]) -> None:
    """Set up the guard, where there is a budget, and let `tollspan.budget` find it.

    Raises:
        SettingsError: a budget `given` in code cannot be read.
    """
    if recorder.settings.budget is not None or recorder.settings.budgets not in ((), []):
        from tollspan.setup.guards import configured

        recorder.guard = configured(recorder, given)
    connect(
        BudgetRuntime(
            guard=lambda: recorder.guard,
            make=lambda: _made(recorder),
            spend=lambda: _spend(recorder),
            start_span=lambda name: _tool_span(recorder, name),
            record=recorder.record,
        )
    )
    recorder.on_reset.append(lambda session: _reset(recorder, session))
    atexit.register(_finish, ref(recorder))
    known = ref(recorder)  # a meter keeps its callbacks for ever
    gauges.observe(recorder.meter, lambda: getattr(known(), "guard", None))


def add(recorder: Recorder, given: Mapping[str, Any]) -> None:
    """Put budgets in force that are given later, beside those that are.

    Raises:
        SettingsError: one of them cannot be read, or has the name of another one.
    """
    from tollspan.setup.guards import added

    recorder.guard = added(recorder, given)


def stop(recorder: Recorder) -> None:
    """Let go of the guard, once it has settled what is left; calls under way settle with it when they end."""
    connect(None)
    if recorder.guard is not None:
        recorder.guard.close()


def _reset(recorder: Recorder, session: str | None) -> None:
    if recorder.guard is not None:
        recorder.guard.reset_session(session)


def _finish(known: ref[Recorder]) -> None:
    """Wait for what is still to be settled: the process is about to end."""
    recorder = known()
    if recorder is not None and recorder.guard is not None:
        recorder.guard.settler.flush(_GRACE)


def _made(recorder: Recorder) -> Guard:
    """Return the guard in force; make one without budgets where there is none, for the first block."""
    if recorder.guard is None:
        from tollspan.setup.guards import new

        recorder.guard = new(recorder)
    return recorder.guard


def _tool_span(recorder: Recorder, name: str) -> Span:
    from tollspan.budget.tools import OPERATION  # it asks for this: it is there

    attributes = {names.OPERATION: OPERATION, names.TOOL_NAME: name}
    return recorder.tracer.start_span(f"{OPERATION} {name}", kind=SpanKind.INTERNAL, attributes=attributes)


def _spend(recorder: Recorder) -> tuple[int, int]:
    """Return what was spent, in atto-dollars, and the calls: of the session in force here, else of this process."""
    session = current_attribution().get("session") or recorder.settings.session
    figures = recorder.summary(session).figures
    return figures.spend, figures.calls
