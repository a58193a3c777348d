"""Gauges and counters of budgets, observed when they are read; no store is waited for, so that reading cannot hang.

A gauge shows how full a budget is that this process has used; of one with a counter per user or session, the fullest.
What a shared store has is shown as of the reading before: each reading has it looked at again, in the background. A
period that is over is shown no more: until a budget is used again, other processes tell how full it is. Denials are
counted here, where no sampling of spans can lose them. A warning is an event on the span of the call that it came with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry.metrics import Observation
from opentelemetry.trace import set_span_in_context

from tollspan.model.money import usd
from tollspan.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from decimal import Decimal

    from opentelemetry.metrics import CallbackOptions, Meter
    from opentelemetry.trace import Span, Tracer


class BudgetWarning(Protocol):
    """What is read of a warning."""

    @property
    def budget(self) -> str:
        """Return the budget's name."""
        ...

    @property
    def counter(self) -> str:
        """Return the counter's name."""
        ...

    @property
    def share(self) -> Decimal:
        """Return the share that was passed."""
        ...

    @property
    def spent(self) -> int:
        """Return what is spent, dollars as atto-dollars."""
        ...

    @property
    def limit(self) -> int:
        """Return the limit, dollars as atto-dollars."""
        ...

    @property
    def unit(self) -> str:
        """Return the unit of both."""
        ...


class Source(Protocol):
    """What is read of a guard."""

    def refresh(self) -> None:
        """Look at the levels again, without waiting for a store."""
        ...

    @property
    def clock(self) -> Callable[[], float]:
        """Return what gives Unix time in seconds."""
        ...

    @property
    def levels(self) -> Mapping[str, tuple[Any, Any]]:
        """Return budget and level by counter."""
        ...

    @property
    def denied(self) -> Mapping[tuple[str, str], int]:
        """Return denials by budget and reason."""
        ...

    @property
    def overshoot(self) -> Mapping[str, int]:
        """Return what was spent beyond reservations and limits, by budget."""
        ...

    @property
    def store_errors(self) -> Mapping[str, int]:
        """Return failures of the store, by kind."""
        ...


def observe(meter: Meter, source: Callable[[], Source | None]) -> None:
    """Create the instruments over the guard that `source` gives."""

    def gauge(name: str, unit: str, description: str, value: Callable[[int, int, int], float]) -> None:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(
                    value(spent, reserved, limit) if unit == "1" else _shown(value(spent, reserved, limit), kind),
                    labels,
                )
                for (spent, reserved, limit), kind, labels in _fullest(source())
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

    def denied(_: CallbackOptions) -> Iterable[Observation]:
        guard = source()
        counts = [] if guard is None else list(guard.denied.items())
        return [Observation(n, {names.BUDGET: budget, names.BUDGET_REASON: reason}) for (budget, reason), n in counts]

    def overshoot(_: CallbackOptions) -> Iterable[Observation]:
        guard = source()
        return (
            []
            if guard is None
            else [Observation(float(usd(n)), {names.BUDGET: b}) for b, n in list(guard.overshoot.items())]
        )

    def errors(_: CallbackOptions) -> Iterable[Observation]:
        guard = source()
        return (
            []
            if guard is None
            else [Observation(n, {names.KIND: kind}) for kind, n in list(guard.store_errors.items())]
        )

    meter.create_observable_counter(names.BUDGET_DENIED, [denied], "{call}", "Calls that a budget did not let through")
    meter.create_observable_counter(
        names.BUDGET_OVERSHOOT, [overshoot], "{USD}", "Spent past a limit, beyond what was reserved"
    )
    meter.create_observable_counter(names.BUDGET_STORE_ERRORS, [errors], "{error}", "Failures of the budgets' store")


def _fullest(guard: Source | None) -> Iterable[tuple[tuple[int, int, int], str, dict[str, str]]]:
    """Return each budget's fullest counter, its unit and its attributes."""
    if guard is None:
        return []
    guard.refresh()
    now = guard.clock()
    found: dict[str, tuple[tuple[int, int, int], Any]] = {}
    for key, (budget, level) in list(guard.levels.items()):
        if level.limit is None or key.startswith("#"):  # blocks come and go by the thousand
            continue
        if key.split("/")[1] != budget.period.window(now).name:  # it has begun anew since
            continue
        known = found.get(budget.name)
        if known is None or level.spent * known[0][2] > known[0][0] * level.limit:
            found[budget.name] = (level.spent, level.reserved, level.limit), budget
    return [(level, budget.limit.unit, _labels(budget)) for level, budget in found.values()]


def note_warning(tracer: Tracer, span: Span | None, warned: BudgetWarning) -> None:
    """Put a warning on a call's span as an event; on a span below it, where that has ended already.

    A store across a network is settled with after the call: its answer comes when the span is gone.
    """
    attributes: dict[str, str | float] = {
        names.BUDGET: warned.budget,
        names.BUDGET_COUNTER: warned.counter,
        names.BUDGET_UNIT: warned.unit,
        names.BUDGET_SHARE: float(warned.share),
        names.BUDGET_SPENT: _shown(warned.spent, warned.unit),
        names.BUDGET_LIMIT: _shown(warned.limit, warned.unit),
    }
    if span is not None and span.is_recording():
        span.add_event(names.BUDGET_THRESHOLD, attributes)
        return
    context = None if span is None else set_span_in_context(span)
    own = tracer.start_span(names.BUDGET_THRESHOLD, context)
    own.add_event(names.BUDGET_THRESHOLD, attributes)
    own.end()


def _labels(budget: Any) -> dict[str, str]:
    # The period is there so that rules can tell how fast a budget may be spent.
    return {
        names.BUDGET: budget.name,
        names.BUDGET_UNIT: budget.limit.unit,
        names.BUDGET_PERIOD: str(budget.period),
    }


def _shown(value: float, unit: str) -> float:
    return float(usd(int(value))) if unit == "usd" else value
