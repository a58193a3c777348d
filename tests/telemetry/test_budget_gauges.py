"""Gauges of budgets show the period that is on, with the labels that rules of alerts need."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tollspan.budget import instruments
from tollspan.budget.alerts.warning import BudgetWarning
from tollspan.budget.bounds import Bounds
from tollspan.budget.guard import Guard
from tollspan.budget.policy.budget import parse_text
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.model.money import atto
from tollspan.model.records import Call, Cost, Usage
from tollspan.prices import bundled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY = 86_400.0
NOON = 20_000 * DAY + DAY / 2


@pytest.fixture
def gauges() -> Callable[[Guard], dict[tuple[str, str], float]]:
    """Return every gauge's value by its name and the budget's."""

    def read(guard: Guard) -> dict[tuple[str, str], float]:
        reader = InMemoryMetricReader()
        instruments.observe(MeterProvider([reader], shutdown_on_exit=False).get_meter("test"), lambda: guard)
        data = reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics if data and data.resource_metrics else []
        return {
            (metric.name, str((point.attributes or {})["tollspan.budget.period"])): getattr(point, "value", -1.0)
            for metric in metrics
            for point in metric.data.data_points
        }

    return read


def _call(name: str, cost: str) -> Call:
    return Call(
        id=name,
        operation_id=name,
        provider="openai",
        operation="chat",
        started_at=0,
        duration=1.0,
        usage=Usage(input=1, output=1),
        cost=Cost(amount=atto(cost), quality="measured"),
    )


def test_a_period_that_is_over_is_not_shown(gauges: Callable[[Guard], dict[tuple[str, str], float]]) -> None:
    """A day's budget that was spent yesterday is not shown as spent today; one without an end goes on."""
    now = [NOON]
    guard = Guard(parse_text("1 USD/day, 2 USD/total"), MemoryStore(), Bounds(bundled), clock=lambda: now[0])
    guard.settle(_call("yesterday", "1"))
    used = "tollspan.budget.utilization"
    assert gauges(guard)[used, "day"] == 1.0
    now[0] += DAY
    assert (used, "day") not in gauges(guard)
    guard.settle(_call("today", "0.25"))
    found = gauges(guard)
    assert (found[used, "day"], found[used, "total"]) == (0.25, 0.625)
    assert (found["tollspan.budget.spent", "day"], found["tollspan.budget.remaining", "day"]) == (0.25, 0.75)


def test_rolling_and_bound_budgets_are_shown(gauges: Callable[[Guard], dict[tuple[str, str], float]]) -> None:
    """Budgets of a session, of a run and of the last hour have no period that ends on the calendar, and are shown."""
    text = "1 USD/session, 2 USD/run, 4 USD/rolling 1h"
    guard = Guard(parse_text(text), MemoryStore(), Bounds(bundled), clock=lambda: NOON, session="one")
    guard.settle(_call("now", "1"))
    found = {period: value for (name, period), value in gauges(guard).items() if name.endswith("utilization")}
    assert found == {"session": 1.0, "run": 0.5, "rolling 1h": 0.25}


def test_a_rolling_budget_empties_by_itself(gauges: Callable[[Guard], dict[tuple[str, str], float]]) -> None:
    """What was spent leaves the gauges as time passes, without any call, and so does what another process resets."""
    now = [NOON]
    guard = Guard(parse_text("4 USD/rolling 1h, 4 USD/total"), MemoryStore(), Bounds(bundled), clock=lambda: now[0])
    guard.settle(_call("now", "1"))
    spent = "tollspan.budget.spent"
    assert gauges(guard)[spent, "rolling 1h"] == 1.0
    now[0] += 3700
    assert gauges(guard)[spent, "rolling 1h"] == 0.0
    guard.store.reset([counter.key for counter in guard.store.counters(now[0])])
    now[0] += 60
    assert gauges(guard)[spent, "total"] == 0.0


def test_a_reading_waits_for_no_store(gauges: Callable[[Guard], dict[tuple[str, str], float]], tmp_path: Path) -> None:
    """Gauges of a store that others share show what it said last, and have it asked again in the background."""
    now = [NOON]
    path = tmp_path / "b.sqlite"
    guard = Guard(parse_text("4 USD/total"), SqliteStore(path), Bounds(bundled), clock=lambda: now[0])
    guard.settle(_call("here", "1"))
    other = Guard(parse_text("4 USD/total"), SqliteStore(path), Bounds(bundled), clock=lambda: now[0])
    other.settle(_call("there", "2"))
    now[0] += 60
    gauges(guard)
    assert guard.settler.flush(30)
    assert gauges(guard)["tollspan.budget.spent", "total"] == 3.0
    guard.close()
    other.close()


def test_a_warning_after_the_span_has_ended() -> None:
    """A warning that comes when its call's span has ended is an event on a span below it."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    call = tracer.start_span("chat")
    call.end()
    warned = BudgetWarning(
        budget="b", counter="b/run", share=Decimal("0.5"), spent=atto("1"), limit=atto("2"), unit="usd"
    )
    instruments.note_warning(tracer, call, warned)
    instruments.note_warning(tracer, None, warned)
    _, below, alone = exporter.get_finished_spans()
    assert below.parent is not None
    assert below.parent.span_id == call.get_span_context().span_id
    assert alone.parent is None
    for span in (below, alone):
        (event,) = span.events
        assert event.name == span.name == "tollspan.budget.threshold"
        assert event.attributes is not None
        assert event.attributes["tollspan.budget.spent"] == 1.0
