"""Gauges and counters of budgets, observed when they are read. They wait for no store, so that reading cannot hang.

A gauge shows the state of a budget that this process has used; for a budget with one counter per user or session, that
of the fullest one. The state of a shared store is shown as of the previous reading: each reading refreshes it in the
background. Past periods are not shown: until a budget is used again, other processes show its state. Denials are
counted here, where no sampling of spans can lose them. A warning is an event on the span of the call that it came with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation
from opentelemetry.trace import set_span_in_context

from tollspan.model.money import usd
from tollspan.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Meter
    from opentelemetry.trace import Span, Tracer

    from tollspan.budget.alerts.warning import BudgetWarning
    from tollspan.budget.guard import Guard
    from tollspan.budget.policy.budget import Budget

    State = tuple[int, int, int]
    """Spent, reserved and limit."""


def observe(meter: Meter, guard: Callable[[], Guard | None]) -> None:
    """Create the instruments of the guard that `guard` returns; they observe nothing if it returns None."""
    _observe_gauges(meter, guard)
    _observe_counters(meter, guard)


def _observe_gauges(meter: Meter, guard: Callable[[], Guard | None]) -> None:
    def gauge(name: str, unit: str, description: str, value: Callable[[int, int, int], float]) -> None:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(value(*state) if unit == "1" else _shown(value(*state), budget.limit.unit), _labels(budget))
                for state, budget in _fullest(guard())
            ]

        meter.create_observable_gauge(name, [read], unit, description)

    gauge(names.BUDGET_LIMIT, "", "Limit of a budget, in its unit", lambda _s, _r, limit: limit)
    gauge(names.BUDGET_SPENT, "", "Spent of a budget", lambda spent, _r, _l: spent)
    gauge(names.BUDGET_RESERVED, "", "Reserved for calls under way", lambda _s, reserved, _l: reserved)
    gauge(names.BUDGET_REMAINING, "", "Left of a budget", lambda spent, _r, limit: max(limit - spent, 0))
    gauge(
        names.BUDGET_UTILIZATION,
        "1",
        "Share of a budget that is spent",
        lambda spent, _r, limit: spent / limit if limit else 1,
    )


def _observe_counters(meter: Meter, guard: Callable[[], Guard | None]) -> None:
    def denied(_: CallbackOptions) -> Iterable[Observation]:
        counts = [] if (current := guard()) is None else list(current.observed.denied.items())
        return [Observation(n, {names.BUDGET: budget, names.BUDGET_REASON: reason}) for (budget, reason), n in counts]

    def overshoot(_: CallbackOptions) -> Iterable[Observation]:
        amounts = [] if (current := guard()) is None else list(current.observed.overshoot.items())
        return [Observation(float(usd(amount)), {names.BUDGET: budget}) for budget, amount in amounts]

    def errors(_: CallbackOptions) -> Iterable[Observation]:
        counts = [] if (current := guard()) is None else list(current.observed.store_errors.items())
        return [Observation(n, {names.KIND: kind}) for kind, n in counts]

    meter.create_observable_counter(names.BUDGET_DENIED, [denied], "{call}", "Calls that a budget did not let through")
    meter.create_observable_counter(
        names.BUDGET_OVERSHOOT, [overshoot], "{USD}", "Spent past a limit, beyond what was reserved"
    )
    meter.create_observable_counter(names.BUDGET_STORE_ERRORS, [errors], "{error}", "Failures of the budgets' store")


def _fullest(guard: Guard | None) -> Iterable[tuple[State, Budget]]:
    """Return the state of each budget's fullest counter."""
    if guard is None:
        return []
    from tollspan.budget.policy.counter_names import is_block, period_of  # every `instrument()` loads this module

    guard.refresh()
    now = guard.clock()
    fullest: dict[str, tuple[State, Budget]] = {}
    for key, (budget, (spent, reserved, limit)) in list(guard.observed.states.items()):
        if limit is None or is_block(key):  # blocks come and go by the thousand
            continue
        if period_of(key) != budget.period.window(now).name:  # the budget was renewed since
            continue
        known = fullest.get(budget.name)
        if known is None or spent * known[0][2] > known[0][0] * limit:
            fullest[budget.name] = (spent, reserved, limit), budget
    return fullest.values()


def note_warning(tracer: Tracer, span: Span | None, warning: BudgetWarning) -> None:
    """Add a warning to a call's span as an event, or to a span below it if that has ended already.

    A store across a network is settled after the call, so that its warning may come when the span has ended.
    """
    attributes: dict[str, str | float] = {
        names.BUDGET: warning.budget,
        names.BUDGET_COUNTER: warning.counter,
        names.BUDGET_UNIT: warning.unit,
        names.BUDGET_SHARE: float(warning.share),
        names.BUDGET_SPENT: _shown(warning.spent, warning.unit),
        names.BUDGET_LIMIT: _shown(warning.limit, warning.unit),
    }
    if span is not None and span.is_recording():
        span.add_event(names.BUDGET_THRESHOLD, attributes)
        return
    context = None if span is None else set_span_in_context(span)
    warning_span = tracer.start_span(names.BUDGET_THRESHOLD, context)
    warning_span.add_event(names.BUDGET_THRESHOLD, attributes)
    warning_span.end()


def _labels(budget: Budget) -> dict[str, str]:
    # With the period, so that alert rules know how fast a budget may be spent.
    return {
        names.BUDGET: budget.name,
        names.BUDGET_UNIT: budget.limit.unit,
        names.BUDGET_PERIOD: str(budget.period),
    }


def _shown(value: float, unit: str) -> float:
    return float(usd(int(value))) if unit == "usd" else value
