"""Points that go straight to what the SDK keeps are, to whoever collects them, what `Histogram.record` makes."""

from __future__ import annotations

import contextlib
import gc
import random
import signal
import threading
import weakref
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import opentelemetry.metrics._internal as api
import pytest
from opentelemetry.metrics import NoOpMeter
from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    AlwaysOnExemplarFilter,
    Histogram,
    MeterProvider,
    TraceBasedExemplarFilter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExponentialBucketHistogramAggregation,
    LastValueAggregation,
    View,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import set_span_in_context

from tests.forked_children import child_finds, forks
from tollspan.telemetry.counters import Accumulator
from tollspan.telemetry.metrics import Instruments
from tollspan.telemetry.otel.fast_histograms import Measurement, Points
from tollspan.telemetry.otel.sdk_versions import READ

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.context import Context

SETS: list[Mapping[str, str | int]] = [
    {"gen_ai.operation.name": "chat", "gen_ai.request.model": f"model-{number}", "server.port": 443}
    for number in range(3)
]
AMOUNTS = [0, 1, 0.004, 345, 17.5, 1e9, 345]
DELTA: dict[type, AggregationTemporality] = {Histogram: AggregationTemporality.DELTA}


def _span(tracers: TracerProvider) -> Context:
    return set_span_in_context(tracers.get_tracer("test").start_span("call"))


SAMPLED, DROPPED = _span(TracerProvider()), _span(TracerProvider(sampler=ALWAYS_OFF))


class Large(TraceBasedExemplarFilter):
    """An application's own filter, which looks at the value."""

    def should_sample(self, value: float, time_unix_nano: int, attributes: Any, context: Context) -> bool:
        """Take large values."""
        del time_unix_nano, attributes, context
        return value > 100


class World:
    """A meter provider with its readers; `record` is the way under test."""

    def __init__(self, readers: list[dict[type, AggregationTemporality]], **options: Any) -> None:
        self.readers = [InMemoryMetricReader(temporality) for temporality in readers]
        self.provider = MeterProvider(self.readers, **options)
        self.histogram = self.provider.get_meter("test").create_histogram("amounts")
        self.points = [Points(attributes) for attributes in SETS]

    def straight(self, number: int, amount: float, context: Context) -> None:
        """Record through `Points`."""
        self.points[number].record(self.histogram, amount, Measurement(context))

    def by_sdk(self, number: int, amount: float, context: Context) -> None:
        """Record through the SDK's public API."""
        self.histogram.record(amount, SETS[number], context)

    def told(self) -> list[list[dict[str, Any]]]:
        """Return what each reader collects, without the times."""
        return [_points(reader) for reader in self.readers]

    def ways(self) -> list[bool]:
        """Tell of each set whether its points go straight."""
        return [points._series[self.histogram].shortcut is not None for points in self.points]


def _points(reader: InMemoryMetricReader) -> list[dict[str, Any]]:
    data = reader.get_metrics_data()
    found = []
    for metric in [
        metric
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        if scope.scope.name == "test"  # some versions of the SDK measure themselves
        for metric in scope.metrics
    ]:
        for point in metric.data.data_points:
            told = {name: getattr(point, name, None) for name in ("count", "sum", "min", "max", "value", "zero_count")}
            told |= {"name": metric.name, "buckets": getattr(point, "bucket_counts", None)}
            told |= {"attributes": dict(point.attributes or {})}
            told["exemplars"] = [replace(exemplar, time_unix_nano=0) for exemplar in point.exemplars]
            found.append(told)
    return sorted(found, key=lambda told: str(sorted(told["attributes"].items())))


def _play(world: World, record: Callable[[int, float, Context], None]) -> list[Any]:
    """Record points of three sets, sampled and not, with collections between; give all that was collected."""
    told = []
    random.seed(1)  # some reservoirs of exemplars draw lots
    for turn in range(4):
        for step, amount in enumerate(AMOUNTS):
            record(step % len(SETS), amount, SAMPLED if (turn + step) % 3 else DROPPED)
        told.append(world.told())
    return told


CASES: dict[str, tuple[list[dict[type, AggregationTemporality]], dict[str, Any]]] = {
    "cumulative": ([{}], {}),
    "delta": ([DELTA], {}),
    "two readers": ([{}, DELTA], {}),
    "no reader": ([], {}),
    "a view that leaves attributes out": (
        [{}],
        {"views": [View(instrument_name="amounts", attribute_keys={"server.port"})]},
    ),
    "two views": (
        [DELTA],
        {
            "views": [
                View(instrument_name="amounts", name="last", aggregation=LastValueAggregation()),
                View(
                    instrument_name="amounts", name="exponential", aggregation=ExponentialBucketHistogramAggregation()
                ),
            ]
        },
    ),
    "a view that drops": ([{}], {"views": [View(instrument_name="amounts", aggregation=DropAggregation())]}),
    "exemplars of all": ([{}], {"exemplar_filter": AlwaysOnExemplarFilter()}),
    "no exemplars": ([{}], {"exemplar_filter": AlwaysOffExemplarFilter()}),
    "exemplars by an own filter": ([{}], {"exemplar_filter": Large()}),
}


@pytest.mark.parametrize("case", CASES)
def test_collected_alike(case: str) -> None:
    """What readers collect (counts, sums, buckets, exemplars) is what it would be had the SDK been asked each time."""
    readers, options = CASES[case]
    straight, by_sdk = World(readers, **options), World(readers, **options)
    assert _play(straight, straight.straight) == _play(by_sdk, by_sdk.by_sdk)
    assert straight.ways() == [True] * 3


@pytest.mark.parametrize("seen", [False, True])
def test_replaced_method_is_asked(monkeypatch: pytest.MonkeyPatch, seen: bool) -> None:
    """Where an application has put a `record` of its own in place, before or after the first points, it gets them."""
    world, own, given = World([{}]), Histogram.record, []

    def notes(histogram: Histogram, amount: float, *args: Any) -> None:
        given.append(amount)
        own(histogram, amount, *args)

    for _ in range(3 if seen else 0):
        world.straight(0, 1, SAMPLED)
    monkeypatch.setattr(Histogram, "record", notes)
    for _ in range(4):
        world.straight(0, 2, SAMPLED)
    assert given == [2] * 4
    monkeypatch.undo()
    for _ in range(4):
        world.straight(0, 3, SAMPLED)
    assert given == [2] * 4
    assert world.told()[0][0]["count"] == (11 if seen else 8)


def test_installed_version_is_read() -> None:
    """The SDK that is installed is one whose way to an aggregation, and to a span's attributes, was read.

    Where this fails after an update: compare `opentelemetry/sdk/metrics/_internal` (instrument, measurement_consumer,
    metric_reader_storage, _view_instrument_match, aggregation), `Span.set_attributes` in `opentelemetry/sdk/trace` and
    `opentelemetry/attributes` with the version before, then move `READ`.
    """
    first, last = READ
    assert first <= tuple(map(int, version("opentelemetry-sdk").split("."))) <= last


def test_other_version_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a version that nobody has read, each point goes through the public API."""
    monkeypatch.setattr("tollspan.telemetry.otel.sdk_versions.READ", ((0, 1, 0), (0, 1, 0)))
    straight, by_sdk = World([{}]), World([{}])
    assert _play(straight, straight.straight) == _play(by_sdk, by_sdk.by_sdk)
    assert straight.ways() == [False] * 3


def test_reader_that_comes_later() -> None:
    """A reader that is added while points go straight gets its points from then on, and the other loses none."""
    world = World([{}])
    if not hasattr(world.provider, "add_metric_reader"):
        assert tuple(map(int, version("opentelemetry-sdk").split("."))) < (1, 43)
        return
    for _ in range(5):
        world.straight(0, 1, SAMPLED)
    late = InMemoryMetricReader()
    world.provider.add_metric_reader(late)
    for _ in range(5):
        world.straight(0, 1, SAMPLED)
    assert [point["count"] for point in _points(world.readers[0])] == [10]
    assert [point["count"] for point in _points(late)] == [5]


@pytest.mark.parametrize("amount", [-1.0, float("nan"), float("inf")])
def test_refused_amounts(amount: float) -> None:
    """An amount that the SDK refuses, or takes in its own way, is the SDK's to judge, wherever it goes."""
    straight, by_sdk = World([{}]), World([{}])
    for world, record in ((straight, straight.straight), (by_sdk, by_sdk.by_sdk)):
        for one in (1, 2, 3, amount, 4, 5, 6):
            record(0, one, SAMPLED)
        assert len(world.told()[0]) == 1
    counts = [[(point["count"], point["buckets"]) for point in world.told()[0]] for world in (straight, by_sdk)]
    assert counts[0] == counts[1]


def test_nothing_lost_to_collections() -> None:
    """Points of several threads are all collected, however often a reader collects and drops in between."""
    world, threads, each = World([DELTA]), 4, 3000
    done = threading.Event()

    def record() -> None:
        for number in range(each):
            world.straight(number % len(SETS), 1, SAMPLED)

    found = 0

    def collect() -> None:
        nonlocal found
        while not done.is_set():
            found += sum(point["count"] for point in world.told()[0])

    recording, collecting = [threading.Thread(target=record) for _ in range(threads)], threading.Thread(target=collect)
    for thread in (*recording, collecting):
        thread.start()
    for thread in recording:
        thread.join()
    done.set()
    collecting.join()
    assert found + sum(point["count"] for point in world.told()[0]) == threads * each


def test_dropped_points_are_not_kept_alive() -> None:
    """What the SDK drops at a collection is freed, also where its set falls silent after that."""
    world = World([DELTA])
    for number in range(len(SETS)):
        for turn in range(4):
            world.straight(number, turn, SAMPLED)
        (match,) = _matches(world)
        dropped = [weakref.ref(kept) for kept in match._attributes_aggregation.values()]
        assert dropped
        if not getattr(match, "_reset_on_collect", False):
            return  # this version of the SDK drops nothing
        del match
        world.told()
        gc.collect()
        assert [kept() for kept in dropped] == [None] * len(dropped)


def _matches(world: World) -> list[Any]:
    shortcut = world.points[0]._series[world.histogram].shortcut
    assert shortcut is not None
    return [target.match for target in shortcut._targets]


def test_other_instruments() -> None:
    """A histogram that is not the SDK's is asked as it is; one from before there was a provider, once it has one."""
    points = Points(SETS[0])
    nobody = NoOpMeter("test").create_histogram("amounts")
    early: Any = api._ProxyMeterProvider().get_meter("test").create_histogram("amounts")
    for _ in range(8):
        points.record(nobody, 1, Measurement(SAMPLED))
        points.record(early, 1, Measurement(SAMPLED))
    assert points._series[nobody].shortcut is points._series[early].shortcut is None

    reader = InMemoryMetricReader()
    early.on_meter_set(MeterProvider([reader]).get_meter("test"))
    for _ in range(20):
        points.record(early, 1, Measurement(SAMPLED))
    assert points._series[early].shortcut is not None
    assert [point["count"] for point in _points(reader)] == [20]


@forks
def test_a_forked_child_waits_for_nobody() -> None:
    """Where threads of the parent are in the middle of recording and collecting, the child records and collects."""
    world = World([{}, DELTA])
    for turn in range(4):
        world.straight(0, turn, SAMPLED)
    kept = Instruments(world.provider.get_meter("test"), Accumulator())
    locks = _locks()
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as all_of_them:
            for lock in locks:
                all_of_them.enter_context(lock)
            held.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)

    def counts() -> list[list[int]]:
        signal.alarm(20)
        world.straight(0, 100, SAMPLED)
        world.by_sdk(1, 100, SAMPLED)
        return [sorted(point["count"] for point in told if point["name"] == "amounts") for told in world.told()]

    good = child_finds(lambda: counts() == [[1, 5]] * 2)
    leave.set()
    thread.join()
    assert len(locks) > 5
    assert good
    del kept


def _locks() -> list[AbstractContextManager[Any]]:
    """Return all locks of what the SDK measures with."""
    measuring = [
        one
        for one in gc.get_objects()
        if str(type(one).__module__).startswith("opentelemetry.sdk.metrics._internal") and hasattr(one, "__dict__")
    ]
    found = [vars(one).get(name) for one in measuring for name in ("_lock", "_export_lock")]
    return [lock for lock in found if isinstance(lock, AbstractContextManager)]
