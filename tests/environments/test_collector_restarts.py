"""Under mixed traffic the Collector is killed and stopped over and over: what arrives agrees to the last unit.

What a restart may cost, and what covers it:

- Counters lose nothing, however long it takes: each export says the sums since the start.
- Spans are sent again by the OTLP exporter for as long as its timeout allows (10 seconds by default, here more), with
  pauses of 1, 2, 4... seconds, and wait in the batch processor's queue meanwhile (2,048 by default, here more). What
  takes longer is lost, and the exporter says so: those, and no others, may be missing.
- What the Collector has said yes to is on its disk. What it has not said yes to is sent again, though it may have it:
  a span can arrive twice, with the same id.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import tollspan
from examples.fake_provider import FakeProvider
from tests.conftest import Metered
from tests.environments.sink import Sink
from tests.soak.books import ON_SPANS, check_attempts, check_money, check_sums, prices, refreshing
from tests.soak.traffic import ALLOWED, EXACT, PROVIDERS, REFUSED, drive
from tests.stack.processes import free_address, wait_until
from tests.stack.servers import RunningCollector, collector
from tollspan.model.money import usd
from tollspan.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

CALLS: Final = int(os.environ.get("RESTART_CALLS", "12000"))
PATIENCE: Final = 60
"""Seconds for which an export is tried again."""
DOWN: Final = (0.2, 2.5)
UP: Final = (1.0, 5.0)
ARRIVAL: Final = 120.0

# Spans go where the metrics go: the Collector's own file sends them to Jaeger over gRPC.
OVER: Final = """
exporters:
  otlp_http/sink:
    endpoint: {url}
    retry_on_failure: {{initial_interval: 100ms, max_interval: 1s}}
    sending_queue: {{storage: file_storage/queues, sizer: requests, queue_size: 10000}}
service:
  pipelines:
    traces: {{exporters: [otlp_http/sink]}}
"""


class Counting(SpanExporter):
    """Another exporter, and the ids of the spans that it gave up."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.lost: set[bytes] = set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export, and remember what came to nothing."""
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self.lost |= ids(spans)
        return result

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()


def ids(spans: Iterable[ReadableSpan]) -> set[bytes]:
    """Return the spans' ids as they are on the wire."""
    return {span.context.span_id.to_bytes(8) for span in spans if span.context is not None}


class restarting:  # noqa: N801 - read as a verb: with _restarting(...)
    """Kill or stop a Collector and start it again, over and over, in a thread."""

    def __init__(self, running: RunningCollector) -> None:
        self.times: Counter[str] = Counter()
        self._server, self._over, self._failed = running.server, threading.Event(), list[BaseException]()
        self._random = Random(1)  # noqa: S311 - the same pauses each time
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            while not self._over.wait(self._random.uniform(*UP)):
                way = "killed" if sum(self.times.values()) % 2 else "stopped"
                (self._server.kill if way == "killed" else self._server.stop)()
                self.times[way] += 1
                self._over.wait(self._random.uniform(*DOWN))
                self._server.start()
                self._server.wait_ready()
        except Exception as error:  # noqa: BLE001 - told by the test, in its own thread
            self._failed.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        assert not self._failed
        self._server.kill()  # the system would, for the thread that started it has ended
        self.times["killed"] += 1
        self._server.start()
        self._server.wait_ready()


@pytest.fixture
def sink() -> Iterator[Sink]:
    """Return what stands behind the Collector, which goes on."""
    with Sink() as running:
        yield running


@pytest.fixture
def running(sink: Sink, tmp_path: Path) -> Iterator[RunningCollector]:
    """Return a Collector with the configuration that users get, its spans sent to the sink too."""
    over = tmp_path / "over.yaml"
    over.write_text(OVER.format(url=sink.url))
    host, _, port = free_address().partition(":")
    environment = {
        "JAEGER_ADDRESS": "127.0.0.1:9",
        "PROMETHEUS_URL": sink.url,
        "COLLECTOR_METRICS_HOST": host,
        "COLLECTOR_METRICS_PORT": port,
    }
    found = collector(tmp_path, environment, "otelcol.yaml", str(over))
    found.server.start()
    found.server.wait_ready()
    yield found
    found.server.stop()


def _metered(address: str) -> tuple[Metered, BatchSpanProcessor, Counting]:
    """Return providers that keep everything here and export everything there."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    counting = Counting(OTLPSpanExporter(endpoint=address, insecure=True, timeout=PATIENCE))
    batch = BatchSpanProcessor(counting, max_queue_size=50_000)
    tracer_provider = TracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(SimpleSpanProcessor(spans))
    tracer_provider.add_span_processor(batch)
    exporter = OTLPMetricExporter(endpoint=address, insecure=True, timeout=PATIENCE)
    periodic = PeriodicExportingMetricReader(exporter, export_interval_millis=500)
    meter_provider = MeterProvider(metric_readers=[reader, periodic], shutdown_on_exit=False)
    return Metered(spans, reader, tracer_provider, meter_provider), batch, counting


def test_nothing_is_lost(
    sink: Sink,
    running: RunningCollector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Tally, spans, counters, budgets and ledger agree, in the process and behind the Collector."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    metered, batch, counting = _metered(f"http://{running.otlp_grpc}")
    ledger = tmp_path / "ledger.db"
    with FakeProvider() as fake, prices() as prices_url:
        tollspan.instrument(
            tracer_provider=metered.tracer_provider,
            meter_provider=metered.meter_provider,
            hosts=[f"{fake.netloc}/{provider}={provider}" for provider in PROVIDERS],
            ledger=str(ledger),
            pricing_url=prices_url,
            budget=[
                {"name": "all", "limit": "100000 USD", "period": "month"},
                {"name": "few", "limit": f"{ALLOWED} calls", "period": "month", "match": {"model": REFUSED}},
            ],
        )
        try:
            with refreshing(metered), restarting(running) as restarts:
                drive(fake, CALLS)
            tally = fake.tally()
            assert metered.errors() == {}
            assert tollspan.flush(timeout=4 * PATIENCE)  # what is under way may be between two tries
            check_attempts(metered, tally)
            check_sums(metered, tally, ledger)
            check_money(metered, ledger)
            _check_behind(sink, metered, counting.lost, tally)
        finally:
            tollspan.uninstrument()
            metered.meter_provider.shutdown()
            batch.shutdown()  # type: ignore[no-untyped-call]
    with capsys.disabled():
        lost = f"{sink.again} of them twice, {len(counting.lost - set(sink.spans))} given up by the exporter"
        sys.stdout.write(f" {dict(restarts.times)}, {len(sink.spans)} spans, {lost}\n")
    assert set(restarts.times) == {"stopped", "killed"}


def _check_behind(sink: Sink, metered: Metered, lost: set[bytes], tally: dict[str, Any]) -> None:
    """Behind the Collector there is every span, and the counters have the very sums of the process."""
    counts, emitted = metered.recorder.accumulator, ids(metered.spans)
    wait_until(lambda: set(sink.spans) >= emitted - lost, "all spans", ARRIVAL)
    wait_until(lambda: sink.total(names.CALLS) >= counts.calls, "the last counters", ARRIVAL)
    assert emitted - lost <= set(sink.spans) <= emitted
    assert sink.total(names.CALLS) == counts.calls
    assert sink.total(names.SPEND) == pytest.approx(float(usd(counts.spend)), rel=1e-12)
    wanted = (*ON_SPANS.values(), names.COST_AMOUNT, names.CALL_ID)
    for span in metered.spans:
        (identity,) = ids([span])
        arrived, attributes = sink.spans.get(identity), span.attributes or {}
        if arrived is not None:
            assert [arrived.get(name) for name in wanted] == [attributes.get(name) for name in wanted]
    by_model = sink.by(names.CALLS, names.RESPONSE_MODEL)
    rows = {row["model"]: row for row in tally["by"]}
    for model in EXACT:
        assert by_model[model] >= rows[model]["calls"] > 0, model
