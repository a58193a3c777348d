"""The guard of an instrumented process: `start(recorder)` sets it up, `stop(recorder)` closes it.

The modules that budgets need are loaded only if there is a budget (`setup/guards.py`), or with the first block.
"""

from __future__ import annotations

import atexit
import logging
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from opentelemetry.trace import SpanKind

from tollspan.attribution import current_attribution
from tollspan.budget import instruments as gauges
from tollspan.budget.runtime import BudgetRuntime, connect
from tollspan.model.errors import BudgetExceeded, TollspanError
from tollspan.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from opentelemetry.trace import Span

    from tollspan.budget.guard import Guard
    from tollspan.budget.policy.settings import Defaults
    from tollspan.capture.recorder import Recorder

log = logging.getLogger("tollspan")

_GRACE: Final = 5.0
"""Seconds that the end of a process waits for settlements and webhooks."""


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
            refused=recorder.refusals.add,
            defaults=lambda: _defaults(recorder),
        )
    )
    recorder.on_reset.append(lambda sessions: _reset(recorder, sessions))
    atexit.register(_finish, ref(recorder))
    weak = ref(recorder)  # a meter keeps its callbacks forever
    try:
        gauges.observe(recorder.meter, lambda: None if (alive := weak()) is None else alive.guard)
    except Exception as error:  # noqa: BLE001 - a meter of the application's; budgets do not depend on it
        recorder.failed("metrics", error)


def add(recorder: Recorder, given: Mapping[str, Any]) -> None:
    """Apply options of budgets that are given later: budgets are added to the active ones.

    Raises:
        SettingsError: a budget is invalid or has the name of another one, or the store or the estimate cannot be
            changed any more.
        TollspanError: a client could not be hooked, so no budget would hold.
    """
    from tollspan.setup.guards import added

    _check_hooks()
    recorder.settings, recorder.guard = added(recorder, given)


def hook_failed(recorder: Recorder, lib: ModuleType, error: Exception) -> None:
    """Raise for each request of a client that could not be hooked, if there is a budget: none would hold there.

    Budgets and blocks that come later raise for the same reason.
    """
    text = f"tollspan cannot meter {lib.__name__} ({type(error).__name__}; see its log), so no budget holds there"
    _unhooked.append((lib, lib.Client.send, lib.AsyncClient.send, text))
    if recorder.guard is None or not recorder.guard.limits:
        return

    def send(*_: Any, **__: Any) -> Any:
        raise BudgetExceeded(f"The budget refused this call: {text}")

    lib.Client.send = lib.AsyncClient.send = send


_unhooked: Final[list[tuple[Any, Any, Any, str]]] = []
"""The clients that could not be hooked, their functions, and why no budget holds there."""


def _check_hooks() -> None:
    if _unhooked:
        raise TollspanError(_unhooked[0][-1])


def stop(recorder: Recorder) -> None:
    """Settle what is left, and close the guard. Calls under way still settle with it when they end."""
    connect(None)
    while _unhooked:
        lib, send, send_async, _ = _unhooked.pop()
        lib.Client.send, lib.AsyncClient.send = send, send_async
    if recorder.guard is not None:
        recorder.guard.close()


def _reset(recorder: Recorder, sessions: tuple[str, ...] | None) -> None:
    """Reset the budgets of sessions; None = of those in which this process has made calls, and of calls without one."""
    guard = recorder.guard
    if guard is None:
        return
    from tollspan.budget.stores import StoreError  # loaded: there is a guard

    if sessions is None and guard.store is not guard.local:  # others count in it, too
        sessions = (*recorder.live.sessions, guard.session)
    try:
        guard.reset_sessions(sessions)
    except StoreError as error:
        log.warning("%s; the session is reset, and its budgets are not", error)


def _finish(weak: ref[Recorder]) -> None:
    """Wait for settlements and webhooks: the process is about to end."""
    recorder = weak()
    if recorder is not None and recorder.guard is not None:
        recorder.guard.finish(_GRACE)


def _ensure_guard(recorder: Recorder) -> Guard:
    """Return the active guard; if there is none, create one without budgets, for the first block."""
    _check_hooks()
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
