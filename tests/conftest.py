"""Settings and fixtures that every test shares."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import tollspan
from examples.fake_provider import FakeProvider
from tollspan.setup.instrument import current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tollspan.capture.recorder import Recorder
    from tollspan.model.records import Call

# A deadline is a timed assertion, and a busy machine fails it; a printed blob repeats a failure anywhere.
settings.register_profile("tollspan", deadline=None, print_blob=True)
settings.load_profile("tollspan")

# Under `nohup` and in a script's background SIGHUP and SIGINT are ignored, and what the tests start would do so too.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


@dataclass(frozen=True)
class Metered:
    """A process that tollspan instruments, and what it emitted so far."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    calls: list[Call] = field(default_factory=list)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Return the spans that have ended."""
        return self.exporter.get_finished_spans()

    @property
    def span(self) -> ReadableSpan:
        """Return the one span that has ended; more or fewer are a failure."""
        (span,) = self.spans
        return span

    @property
    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the one span that has ended."""
        return dict(self.span.attributes or {})

    @property
    def recorder(self) -> Recorder:
        """Return the recorder in force."""
        recorder = current()
        assert recorder is not None
        return recorder

    def points(self, name: str) -> list[Any]:
        """Return the data points of the metric of that name; none where nothing was recorded."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return [
            point
            for scope in scopes
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def errors(self) -> dict[str, int]:
        """Return tollspan's own failures by kind."""
        return dict(self.recorder.accumulator.errors)


@pytest.fixture
def instrumented() -> Iterator[Callable[..., Metered]]:
    """Instrument with in-memory exporters and the settings given; everything is put back after the test."""

    def start(**options: Any) -> Metered:
        exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracer_provider = TracerProvider(shutdown_on_exit=False)
        tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
        meter_provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
        tollspan.instrument(tracer_provider=tracer_provider, meter_provider=meter_provider, **options)
        metered = Metered(exporter, reader, tracer_provider, meter_provider)
        metered.recorder.views.append(("test", metered.calls.append))
        return metered

    yield start
    tollspan.uninstrument()


@pytest.fixture
def metered(instrumented: Callable[..., Metered]) -> Metered:
    """Instrument with in-memory exporters and the default settings."""
    return instrumented()


@pytest.fixture
def calls(metered: Metered) -> list[Call]:
    """Return the records of the calls, as they end."""
    ended: list[Call] = []
    metered.recorder.subscribers.append(ended.append)
    return ended


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    """Start a fake provider without delays and with empty books."""
    with FakeProvider() as provider:
        yield provider
