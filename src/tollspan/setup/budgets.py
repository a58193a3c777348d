"""The guard of an instrumented process: `start(recorder)` sets it up, `stop(recorder)` closes it.

The modules that budgets need are loaded only if there is a budget (`setup/guards.py`), or with the first block.
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
    from tollspan.budget.policy.settings import Defaults
    from tollspan.capture.recorder import Recorder

_GRACE: Final = 5.0
"""Seconds that the end of a process waits for settlements."""


def start(recorder: Recorder, given: Mapping[str, Any]) -> None:
    """Set up the guard if there is a budget, and connect `tollspan.budget` to it.

    Raises:
        SettingsError: a budget `given` in code is invalid.
    """
    if recorder.settings.budget is not None or recorder.settings.budgets not in ((), []):
        from tollspan.setup.guards import configured

        recorder.guard = configured(recorder, given)
    connect(
        BudgetRuntime(
            guard=lambda: recorder.guard,
            ensure_guard=lambda: _ensure_guard(recorder),
            spend=lambda: _spend(recorder),
            start_span=lambda name: _tool_span(recorder, name),
            record=recorder.record,
            defaults=lambda: _defaults(recorder),
        )
    )
    recorder.on_reset.append(lambda session: _reset(recorder, session))
    atexit.register(_finish, ref(recorder))
    weak = ref(recorder)  # a meter keeps its callbacks forever
    gauges.observe(recorder.meter, lambda: None if (alive := weak()) is None else alive.guard)


def add(recorder: Recorder, given: Mapping[str, Any]) -> None:
    """Add budgets that are given later to the active ones.

    Raises:
        SettingsError: one of them is invalid, or has the name of another one.
    """
    from tollspan.setup.guards import added

    recorder.guard = added(recorder, given)


def stop(recorder: Recorder) -> None:
    """Settle what is left, and close the guard. Calls under way still settle with it when they end."""
    connect(None)
    if recorder.guard is not None:
        recorder.guard.close()


def _reset(recorder: Recorder, session: str | None) -> None:
    if recorder.guard is not None:
        recorder.guard.reset_session(session)


def _finish(weak: ref[Recorder]) -> None:
    """Wait for settlements: the process is about to end."""
    recorder = weak()
    if recorder is not None and recorder.guard is not None:
        recorder.guard.finish(_GRACE)


def _ensure_guard(recorder: Recorder) -> Guard:
    """Return the active guard; if there is none, create one without budgets, for the first block."""
    if recorder.guard is None:
        from tollspan.setup.guards import new

        recorder.guard = new(recorder)
    return recorder.guard


def _defaults(recorder: Recorder) -> Defaults:
    from tollspan.budget.policy.settings import defaults_of  # loaded: a block calls this

    return defaults_of(recorder.settings)


def _tool_span(recorder: Recorder, name: str) -> Span:
    from tollspan.budget.tools import OPERATION  # loaded: it calls this

    attributes = {names.OPERATION: OPERATION, names.TOOL_NAME: name}
    return recorder.tracer.start_span(f"{OPERATION} {name}", kind=SpanKind.INTERNAL, attributes=attributes)


def _spend(recorder: Recorder) -> tuple[int, int]:
    """Return atto-dollars spent and calls made, of the current session or else of this process."""
    session = current_attribution().get("session") or recorder.settings.session
    figures = recorder.summary(session).figures
    return figures.spend, figures.calls
