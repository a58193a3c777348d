"""Our own counters beyond spend and calls: tokens, failures, retries, and the age of the prices."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

import tollspan
from tests.capture.mock_wires import CHAT, CHAT_REQUEST, LIBRARIES, OPENAI, Wire, packed, post
from tollspan.model.money import atto
from tollspan.model.records import Call, Cost, Usage
from tollspan.prices import PriceTable, bundled
from tollspan.telemetry.counters import MOST_ATTRIBUTIONS, Accumulator
from tollspan.telemetry.metrics import observe, observe_prices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.conftest import Metered

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
CALL = Call(
    id="1",
    operation_id="1",
    provider="openai",
    operation="chat",
    started_at=0,
    duration=1.0,
    response_model="gpt-made",
    usage=Usage(input=1000, output=100, cache_read=600, cache_write=50, reasoning=40),
    cost=Cost(amount=atto("0.25"), quality="measured"),
)


@pytest.fixture
def figures() -> Callable[[Iterable[Call]], dict[str, float]]:
    """Return the sums of every counter after some calls, by its name, and by its token type where it has one."""

    def after(calls: Iterable[Call]) -> dict[str, float]:
        reader, accumulator = InMemoryMetricReader(), Accumulator()
        observe(MeterProvider([reader], shutdown_on_exit=False).get_meter("test"), accumulator)
        for call in calls:
            accumulator.add(call)
        data = reader.get_metrics_data()
        assert data is not None
        found: dict[str, float] = {}
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            for point in metric.data.data_points:
                kind = (point.attributes or {}).get("gen_ai.token.type")
                name = f"{metric.name} {kind}" if kind else metric.name
                found[name] = found.get(name, 0) + getattr(point, "value", 0)
        return found

    return after


def test_tokens_are_counted_by_type(figures: Callable[[Iterable[Call]], dict[str, float]]) -> None:
    """`tollspan.tokens` has each type's count: input with what the cache gave, output with reasoning."""
    assert {name: value for name, value in figures([CALL, CALL]).items() if name.startswith("tollspan.tokens")} == {
        "tollspan.tokens input": 2000,
        "tollspan.tokens output": 200,
        "tollspan.tokens cache_read": 1200,
        "tollspan.tokens cache_write": 100,
        "tollspan.tokens reasoning": 80,
    }


def test_money_on_calls_that_broke_off_is_counted(figures: Callable[[Iterable[Call]], dict[str, float]]) -> None:
    """What an aborted call cost is in spend and, once more, in failed spend; a call that ended well is not."""
    found = figures([CALL, replace(CALL, outcome="aborted")])
    assert (found["tollspan.spend"], found["tollspan.failed.spend"]) == (0.5, 0.25)


def test_attempts_that_send_again_are_counted_with_their_money(
    figures: Callable[[Iterable[Call]], dict[str, float]],
) -> None:
    """A retry counts as one whether it is billed or not, and only what is billed counts as money."""
    refused = replace(CALL, outcome="error", billable=False, resend_count=1)
    found = figures([CALL, refused, replace(CALL, resend_count=2)])
    assert (found["tollspan.calls"], found["tollspan.retried.calls"]) == (3, 2)
    assert (found["tollspan.spend"], found["tollspan.retried.spend"]) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("date", "age"),
    [("2026-11-22", 43_200.0), ("2026-11-21T12:00:00+00:00", 86_400.0), ("2026-11-23", 0.0)],
)
def test_the_age_of_the_prices_is_counted_from_their_date(date: str, age: float) -> None:
    """The gauge says how many seconds ago the table in use was current; a date in the future is no negative age."""
    table = PriceTable.parse(b'tollspan-prices 1\n{"date": "' + date.encode() + b'"}\n')
    assert _ages(lambda: table) == [age]


@pytest.mark.parametrize("header", [b"{}", b'{"date": "some day"}', b'{"date": 1}'])
def test_prices_without_a_date_have_no_age(header: bytes) -> None:
    """A table whose header has no date, or none that can be read, is not said to be new."""
    assert _ages(lambda: PriceTable.parse(b"tollspan-prices 1\n" + header + b"\n")) == []


def test_no_prices_are_loaded_to_tell_their_age(metered: Metered) -> None:
    """Before the first priced call there is no table, and so no age; after it there is that of the bundled table."""
    assert metered.points("tollspan.prices.age") == []
    post(Wire(pieces=[packed(CHAT)]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    (age,) = metered.points("tollspan.prices.age")
    date = bundled().date
    assert date is not None
    assert timedelta(seconds=age.value) <= datetime.now(UTC) - date


def _ages(table: Callable[[], PriceTable | None]) -> list[float]:
    reader = InMemoryMetricReader()
    observe_prices(MeterProvider([reader], shutdown_on_exit=False).get_meter("test"), table, lambda: NOW)
    data = reader.get_metrics_data()
    metrics = data.resource_metrics[0].scope_metrics[0].metrics if data and data.resource_metrics else []
    return [getattr(point, "value", -1.0) for metric in metrics for point in metric.data.data_points]


def _points(calls: Iterable[Call], by: tuple[str, ...]) -> dict[tuple[tuple[str, object], ...], float]:
    """Return spend by the attributes that attribution has put on it."""
    reader, accumulator = InMemoryMetricReader(), Accumulator(by=by)
    observe(MeterProvider([reader], shutdown_on_exit=False).get_meter("test"), accumulator)
    for call in calls:
        accumulator.add(call)
    data = reader.get_metrics_data()
    assert data is not None
    return {
        tuple(
            item for item in sorted((point.attributes or {}).items()) if not item[0].startswith("gen_ai.")
        ): point.value
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        for point in metric.data.data_points
        if metric.name == "tollspan.spend"
        if isinstance(point, NumberDataPoint)
    }


def test_attribution_is_on_metrics_where_it_is_let() -> None:
    """Without the setting nobody's name is on a metric; with it, that of the keys named, under the names of spans."""
    calls = [
        replace(CALL, attribution={"user": "ann", "session": "1", "tag.tier": "gold"}),
        replace(CALL, attribution={"user": "bob", "session": "2"}),
        CALL,
    ]
    assert _points(calls, ()) == {(): 0.75}
    assert _points(calls, ("user", "tag.tier")) == {
        (("tollspan.tag.tier", "gold"), ("user.id", "ann")): 0.25,
        (("user.id", "bob"),): 0.25,
        (): 0.25,
    }


def test_too_many_values_are_other_and_no_money_is_lost() -> None:
    """Values of attribution past a cap are counted together, so that a metric stays bounded and its sum right."""
    calls = [replace(CALL, attribution={"user": str(number)}) for number in range(MOST_ATTRIBUTIONS + 50)]
    found = _points(calls, ("user",))
    assert len(found) == MOST_ATTRIBUTIONS + 1
    assert found[("user.id", "other"),] == 0.25 * 50
    assert sum(found.values()) == 0.25 * len(calls)


def test_histograms_have_the_attribution_too(instrumented: Callable[..., Metered]) -> None:
    """The setting reaches the histograms of a real call, and a key that the call does not have is left out."""
    metered = instrumented(metric_attributes=("user", "agent"))
    with tollspan.attribution(user="ann", session="1"):
        post(Wire(pieces=[packed(CHAT)]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    for name in (
        "tollspan.spend",
        "tollspan.calls",
        "gen_ai.client.operation.cost",
        "gen_ai.client.operation.duration",
    ):
        (point,) = metered.points(name)
        assert point.attributes["user.id"] == "ann"
        assert {"session.id", "gen_ai.agent.name"}.isdisjoint(point.attributes)


@pytest.mark.parametrize(("stated", "disputed"), [(0.0003102, 0), (0.000312, 0), (0.00033, 1), (0.0, 1)])
def test_stated_costs_that_differ_are_counted(metered: Metered, stated: float, disputed: int) -> None:
    """A cost that the provider states wins; one that is more than 1% off the price table's is counted."""
    post(
        Wire(pieces=[packed({**CHAT, "usage": {**CHAT["usage"], "cost": stated}})]), LIBRARIES[1], OPENAI, CHAT_REQUEST
    )
    (point,) = metered.points("tollspan.disputed.calls")
    assert point.value == disputed
    assert metered.attributes["gen_ai.usage.cost.amount"] == pytest.approx(stated)
