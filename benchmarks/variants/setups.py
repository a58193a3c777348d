"""What is put in place before calls are measured: nothing, the floor, tollspan, or one of its peers.

    SETUPS[NAME].apply(world)

Every variant has the same OpenTelemetry SDK: spans go to a batch processor whose exporter drops them, metrics to a
reader that nobody reads. Logfire and Langfuse make providers of their own, and are given the same exporter. Where a
peer has a switch for it, prompts and answers are not recorded (`environment`), for tollspan records none either.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk._logs import ReadableLogRecord


class Dropped(SpanExporter):
    """Drops what it is given, for what an exporter costs is no part of these figures; `kept` is for looking at it."""

    def __init__(self) -> None:
        self.kept: list[ReadableSpan] | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Say that all is well."""
        if self.kept is not None:
            self.kept += spans
        return SpanExportResult.SUCCESS


@dataclass
class World:
    """What a variant is given, and what it leaves: `wrap` goes around every call, `flush` ends what it does behind."""

    exporter: Dropped = field(default_factory=Dropped)
    reader: InMemoryMetricReader = field(
        default_factory=lambda: InMemoryMetricReader({Histogram: AggregationTemporality.DELTA})
    )
    wrap: Callable[[Any], Any] = lambda one: one
    wrap_async: Callable[[Any], Any] = lambda one: one
    openai: str = "openai"
    flush: list[Callable[[], object]] = field(default_factory=list)
    held: list[object] = field(default_factory=list)
    """What is to live as long as the process."""

    def sdk(self) -> None:
        """Set up the SDK as an application does."""
        provider = TracerProvider()
        processor = BatchSpanProcessor(self.exporter)
        provider.add_span_processor(processor)
        self.flush.append(processor.force_flush)
        trace.set_tracer_provider(provider)
        metrics.set_meter_provider(MeterProvider([self.reader]))


@dataclass(frozen=True)
class Setup:
    """A variant: how it is called in tables, how it is put in place, and in which of the emitters' environments."""

    title: str
    apply: Callable[[World], None]
    environment: Mapping[str, str] = field(default_factory=dict)
    home: str = "plain"
    anthropic: bool = True
    note: str = ""


def _nothing(world: World) -> None:
    world.sdk()


def _floor(world: World) -> None:
    """Put the floor around calls: one span with 12 attributes, and four metric points, written by hand."""
    world.sdk()
    tracer, meter = trace.get_tracer("floor"), metrics.get_meter("floor")
    histograms = [meter.create_histogram(f"floor.{number}") for number in range(4)]
    start = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini"}
    served = {"gen_ai.response.model": "gpt-4o-mini-2024-07-18"}
    end: dict[str, Any] = {**served, **{f"gen_ai.usage.{number}": number for number in range(8)}}
    labels: dict[str, Any] = {**start, **served, "server.address": "api.openai.com", "server.port": 443}

    def wrap(one: Callable[[], Any]) -> Callable[[], Any]:
        @wraps(one)
        def call() -> Any:
            with tracer.start_as_current_span("chat gpt-4o-mini", kind=SpanKind.CLIENT, attributes=start) as span:
                result = one()
                span.set_attributes(end)
                for histogram in histograms:
                    histogram.record(345, labels)
            return result

        return call

    def wrap_async(one: Callable[[], Any]) -> Callable[[], Any]:
        @wraps(one)
        async def call() -> Any:
            with tracer.start_as_current_span("chat gpt-4o-mini", kind=SpanKind.CLIENT, attributes=start) as span:
                result = await one()
                span.set_attributes(end)
                for histogram in histograms:
                    histogram.record(345, labels)
            return result

        return call

    world.wrap, world.wrap_async = wrap, wrap_async


def _tollspan(**options: object) -> Callable[[World], None]:
    def apply(world: World) -> None:
        world.sdk()
        import_module("tollspan").instrument(**options)

    return apply


def _with_ledger(world: World) -> None:
    folder = tempfile.TemporaryDirectory(prefix="tollspan-bench-")
    _tollspan(ledger=str(Path(folder.name) / "ledger.db"))(world)
    ledger = import_module("tollspan.setup.instrument").current().ledger
    world.flush.append(lambda: ledger.flush(60.0))
    world.held.append(folder)


class _DroppedLogs(LogRecordExporter):
    """Drops what it is given, as `Dropped` does."""

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Say that all is well."""
        del batch
        return LogRecordExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 0) -> bool:
        """Say that all is well."""
        return timeout_millis >= 0

    def shutdown(self) -> None:
        """Do nothing."""


def _with_events(world: World) -> None:
    provider = LoggerProvider()
    processor = BatchLogRecordProcessor(_DroppedLogs())
    provider.add_log_record_processor(processor)
    world.flush.append(processor.force_flush)
    _tollspan(events=True, logger_provider=provider)(world)


def _instrumentors(*modules: str) -> Callable[[World], None]:
    def apply(world: World) -> None:
        world.sdk()
        for module in modules:
            name = "AnthropicInstrumentor" if module.endswith("anthropic") else "OpenAIInstrumentor"
            getattr(import_module(module), name)().instrument()

    return apply


def _logfire(world: World) -> None:
    logfire = import_module("logfire")
    processor = BatchSpanProcessor(world.exporter)
    world.flush.append(processor.force_flush)
    logfire.configure(
        send_to_logfire=False,
        console=False,
        inspect_arguments=False,
        additional_span_processors=[processor],
        metrics=logfire.MetricsOptions(additional_readers=[world.reader]),
    )
    logfire.instrument_openai()
    logfire.instrument_anthropic()


def _langfuse(world: World) -> None:
    import_module("langfuse").Langfuse(
        public_key="any",
        secret_key="any",
        base_url="http://127.0.0.1:9",  # nobody is there, and nobody is asked: the exporter is ours
        span_exporter=world.exporter,
        mask=lambda **_: None,
    )
    world.openai = "langfuse.openai"
    world.flush.append(getattr(trace.get_tracer_provider(), "force_flush", lambda: None))


PLAIN: Final = "uninstrumented"
AGAIN: Final = "uninstrumented, again"
FLOOR: Final = "written by hand"
OURS: Final = "tollspan"

SETUPS: Final = {
    PLAIN: Setup(PLAIN, _nothing),
    AGAIN: Setup(AGAIN, _nothing, note="a second process without anything: what it adds is noise"),
    FLOOR: Setup(FLOOR, _floor, note="one span with 12 attributes and four metric points around the call"),
    OURS: Setup(OURS, _tollspan()),
    "tollspan, ledger": Setup("tollspan, ledger", _with_ledger, note="writing to the file included"),
    "tollspan, budget": Setup("tollspan, budget", _tollspan(budget="1000000 USD/day"), note="in memory"),
    "tollspan, events": Setup("tollspan, events", _with_events, note="each call as a log event, put into the queue"),
    "genai": Setup(
        "OpenTelemetry genai",
        _instrumentors("opentelemetry.instrumentation.genai.openai", "opentelemetry.instrumentation.genai.anthropic"),
        home="genai",
        note="records no prompts by default",
    ),
    "openinference": Setup(
        "OpenInference",
        _instrumentors("openinference.instrumentation.openai", "openinference.instrumentation.anthropic"),
        environment={"OPENINFERENCE_HIDE_INPUTS": "true", "OPENINFERENCE_HIDE_OUTPUTS": "true"},
        home="openinference",
        note="prompts and answers hidden",
    ),
    "openllmetry": Setup(
        "OpenLLMetry",
        _instrumentors("opentelemetry.instrumentation.openai", "opentelemetry.instrumentation.anthropic"),
        environment={"TRACELOOP_TRACE_CONTENT": "false"},
        home="openllmetry",
        note="prompts and answers switched off",
    ),
    "logfire": Setup("Logfire", _logfire, home="logfire", note="has no such switch"),
    "langfuse": Setup("Langfuse", _langfuse, home="langfuse", anthropic=False, note="prompts and answers masked"),
}
PEERS: Final = tuple(name for name, setup in SETUPS.items() if setup.home != "plain")

# The Anthropic SDK emits spans of its own as soon as there is an OpenTelemetry SDK: they would be in every row.
QUIET: Final = {"ANTHROPIC_OPEN_TELEMETRY": "false", "PYTHONHASHSEED": "0"}


def environment_of(name: str) -> dict[str, str]:
    """Return the environment of a variant's process: ours, without settings that happen to be there."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TOLLSPAN_", "OTEL_", "LOGFIRE_"))}
    return {**kept, **QUIET, **SETUPS[name].environment}
