"""The cost processor: which spans of other emitters it prices, by which figures, and that it does so once.

The prices are those of gpt-4o-mini: 0.15 dollars per million input tokens, 0.075 cached, 0.60 output. Every span here
reports 1,000 input tokens, of which 400 were cached, and 100 output tokens.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from tollspan.model.money import atto
from tollspan.setup.instrument import pre_instrument
from tollspan.telemetry.foreign_spans.ownership import Ownership
from tollspan.telemetry.foreign_spans.processor import TollspanCostExporter, TollspanCostProcessor
from tollspan.telemetry.otel.ending_spans import write

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Metered
    from tollspan.model.records import Call

COST = (600 * 0.15 + 400 * 0.075 + 100 * 0.60) / 1e6
AMOUNT = "gen_ai.usage.cost.amount"
NEW: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.cache_read.input_tokens": 400,
    "gen_ai.usage.output_tokens": 100,
}
OLD = {
    "gen_ai.system": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.usage.prompt_tokens": 1000,
    "gen_ai.usage.cache_read_input_tokens": 400,
    "gen_ai.usage.completion_tokens": 100,
}
TRACELOOP = {
    "llm.request.type": "chat",
    "gen_ai.system": "OpenAI",
    "gen_ai.request.model": "gpt-4o-mini",
    "llm.usage.prompt_tokens": 1000,
    "llm.usage.completion_tokens": 100,
    "gen_ai.usage.cache_read_input_tokens": 400,
}
OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.system": "openai",
    "llm.model_name": "gpt-4o-mini",
    "llm.token_count.prompt": 1000,
    "llm.token_count.prompt_details.cache_read": 400,
    "llm.token_count.completion": 100,
}
LANGFUSE = {
    "langfuse.observation.type": "generation",
    "langfuse.observation.model.name": "gpt-4o-mini",
    "langfuse.observation.usage_details": json.dumps(
        {
            "prompt_tokens": 1000,
            "completion_tokens": 100,
            "total_tokens": 1100,
            "prompt_tokens_details": {"cached_tokens": 400},
        }
    ),
}
BUCKETS = {
    **LANGFUSE,
    "langfuse.observation.usage_details": json.dumps(
        {"input": 600, "input_cache_read": 400, "output": 70, "output_reasoning": 30, "total": 1100}
    ),
}
CONVENTIONS = {
    "new": NEW,
    "old": OLD,
    "traceloop": TRACELOOP,
    "openinference": OPENINFERENCE,
    "langfuse": LANGFUSE,
    "langfuse's buckets": BUCKETS,
}


class Pipeline:
    """A provider with processors in a given order, and what came out of it."""

    def __init__(self, *processors: SpanProcessor, before: bool = True, sampler: Any = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, sampler=sampler)
        exporting = SimpleSpanProcessor(self.exporter)
        for processor in (*processors, exporting) if before else (exporting, *processors):
            self.provider.add_span_processor(processor)

    def span(self, attributes: dict[str, Any], *, scope: str = "somebody", late: bool = True) -> dict[str, Any]:
        """Emit one span, whose attributes are set at its end or at its start; give the attributes that came out."""
        span = self.provider.get_tracer(scope).start_span("a call", attributes=None if late else attributes)
        if late:
            span.set_attributes(attributes)
        span.end()
        return self.last()

    def last(self) -> dict[str, Any]:
        """Return the attributes of the span that ended last."""
        return dict(self.exporter.get_finished_spans()[-1].attributes or {})


def processor(on_call: Callable[[Call], None] | None = None) -> TollspanCostProcessor:
    """Return a processor that knows of nothing that happened in other tests."""
    return TollspanCostProcessor(on_call=on_call, owners=Ownership())


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("before", [True, False], ids=["before the exporter", "after it"])
def test_prices_every_convention(convention: str, before: bool) -> None:
    """A span is priced by the names of every convention, wherever in the pipeline the processor was added."""
    found = Pipeline(processor(), before=before).span(CONVENTIONS[convention])
    assert found[AMOUNT] == pytest.approx(COST, rel=1e-12)
    assert found["gen_ai.usage.cost.currency"] == "USD"
    assert found["gen_ai.usage.cost.source"] == "local"
    assert found["tollspan.cost.quality"] == "measured"


def test_batches_are_priced() -> None:
    """A batch that was waiting when the span ended has the cost too."""
    exporter = InMemorySpanExporter()
    batching = BatchSpanProcessor(exporter)
    pipeline = Pipeline(batching, processor())
    pipeline.span(NEW)
    batching.force_flush()
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes or {})[AMOUNT] == pytest.approx(COST, rel=1e-12)
    pipeline.provider.shutdown()


def test_attributes_are_frozen_as_they_were() -> None:
    """Writing to a span that is ending leaves its attributes as the SDK had them: frozen, where it freezes them."""
    frozen: list[bool] = []

    class Later(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            held: Any = span._attributes
            frozen.append(held._immutable)

    assert AMOUNT in Pipeline(processor(), Later()).span(NEW)
    Pipeline(Later()).span(NEW)
    with_us, without = frozen
    assert with_us == without


def test_open_spans_are_written_openly() -> None:
    """An SDK that lets processors write to a span that is ending is written to by its own method."""
    span = TracerProvider(shutdown_on_exit=False).get_tracer("somebody").start_span("a call")
    write(span, {"some": "attribute"})
    assert dict(getattr(span, "attributes", {})) == {"some": "attribute"}


def test_a_new_sdk_that_keeps_attributes_elsewhere_is_noticed() -> None:
    """Where a span that has ended holds its attributes in a way that we do not know, writing fails and is logged."""

    class Strange:
        _attributes = ()

        @staticmethod
        def is_recording() -> bool:
            return False

    with pytest.raises(AttributeError):
        write(Strange(), {"some": "attribute"})


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.operation.name": "invoke_agent"},
        {"gen_ai.operation.name": "invoke_workflow"},
        {"gen_ai.operation.name": "execute_tool"},
        {"gen_ai.operation.name": "fetch_response"},
        {"openinference.span.kind": "CHAIN"},
        {"openinference.span.kind": "AGENT"},
        {"traceloop.span.kind": "workflow"},
        {"langfuse.observation.type": "agent"},
    ],
    ids=lambda attributes: next(iter(attributes.values())),
)
def test_roll_ups_are_never_priced(attributes: dict[str, str]) -> None:
    """A span that sums up its children (an agent, a workflow, a chain) has no cost, for its children have."""
    usage = {name: value for name, value in NEW.items() if name != "gen_ai.operation.name"}
    assert AMOUNT not in Pipeline(processor()).span({**usage, **attributes})


def test_what_says_nothing_of_models_is_left_alone() -> None:
    """A span that is no inference, or reports no usage, comes out as it was."""
    assert Pipeline(processor()).span({"http.route": "/"}) == {"http.route": "/"}
    silent = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini"}
    assert Pipeline(processor()).span(silent) == silent


def test_a_cost_that_is_there_is_kept() -> None:
    """A span that has a cost keeps it."""
    assert Pipeline(processor()).span({**NEW, AMOUNT: 1.5})[AMOUNT] == 1.5


def test_unknown_models_are_unpriced_not_free() -> None:
    """A model without a price gets no amount, never 0, and is counted as unpriced."""
    calls: list[Call] = []
    unknown = {**NEW, "gen_ai.request.model": "nobody-9", "gen_ai.response.model": "nobody-9"}
    found = Pipeline(processor(calls.append)).span(unknown)
    assert AMOUNT not in found
    assert found["tollspan.cost.quality"] == "unpriced"
    assert [call.cost.amount for call in calls] == [None]


@pytest.mark.parametrize(
    ("scope", "cost"),
    [
        ("opentelemetry.instrumentation.botocore.bedrock-runtime", (1000 * 1.10 + 400 * 0.11 + 100 * 5.5) / 1e6),
        ("opentelemetry.instrumentation.genai.bedrock", (1000 * 1.10 + 400 * 0.11 + 100 * 5.5) / 1e6),
        ("somebody", (600 * 1.10 + 400 * 0.11 + 100 * 5.5) / 1e6),
    ],
)
def test_input_by_scope(scope: str, cost: float) -> None:
    """Bedrock's instrumentors leave cached tokens out of the input and are read so; all others count them in."""
    model = "anthropic.claude-haiku-4-5-20251001-v1:0"
    bedrock = {
        **NEW,
        "gen_ai.provider.name": "aws.bedrock",
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "cloud.region": "us-east-1",
    }
    assert Pipeline(processor()).span(bedrock, scope=scope)[AMOUNT] == pytest.approx(cost, rel=1e-12)


def test_told_once() -> None:
    """The record of a priced span is given on once, however many processors and exporters the pipeline has."""
    calls: list[Call] = []
    owners = Ownership()
    one, other = (TollspanCostProcessor(on_call=calls.append, owners=owners) for _ in range(2))
    pipeline = Pipeline(one, other)
    exporter = TollspanCostExporter(InMemorySpanExporter(), on_call=calls.append, owners=owners)
    pipeline.provider.add_span_processor(SimpleSpanProcessor(exporter))
    pipeline.span(NEW)
    (call,) = calls
    assert (call.provider, call.operation, call.model) == ("openai", "chat", "gpt-4o-mini-2024-07-18")
    assert call.cost.amount == atto(COST)
    assert call.usage is not None
    assert (call.usage.input, call.usage.cache_read, call.usage.output) == (1000, 400, 100)
    (span,) = pipeline.exporter.get_finished_spans()
    assert span.context is not None
    assert call.span_id == f"{span.context.span_id:016x}"


def test_one_price_for_nested_inferences() -> None:
    """Of two inference spans around one call, the inner is priced; the outer reports the same tokens again."""
    pipeline = Pipeline(processor())
    tracer = pipeline.provider.get_tracer("framework")
    with tracer.start_as_current_span("outer", attributes=NEW), tracer.start_as_current_span("step"):
        pipeline.span(NEW)
    priced = [span.name for span in pipeline.exporter.get_finished_spans() if AMOUNT in (span.attributes or {})]
    assert priced == ["a call"]


def test_one_price_for_one_response() -> None:
    """Two spans side by side that tell of the same response (an instrumentor's and an SDK's own) have one cost."""
    pipeline = Pipeline(processor())
    for scope in ("sdk", "instrumentor"):
        pipeline.span({**NEW, "gen_ai.response.id": "chatcmpl-told-twice"}, scope=scope)
    assert [AMOUNT in (span.attributes or {}) for span in pipeline.exporter.get_finished_spans()] == [True, False]


def test_sampled_out_spans_are_never_seen() -> None:
    """What a sampler drops is not priced, nor counted: such calls are only counted where they pass httpx."""
    calls: list[Call] = []
    pipeline = Pipeline(processor(calls.append), sampler=ALWAYS_OFF)
    pipeline.provider.get_tracer("somebody").start_span("a call", attributes=NEW).end()
    assert calls == []


def test_a_failure_of_ours_loses_no_span(caplog: pytest.LogCaptureFixture) -> None:
    """Where the record's receiver fails, the span is exported all the same; the log says where, and quotes nothing."""

    def fails(_: Call) -> None:
        message = "the prompt"
        raise OSError(message)

    assert Pipeline(processor(fails)).span(NEW)["gen_ai.usage.input_tokens"] == 1000
    exporter = InMemorySpanExporter()
    Pipeline(SimpleSpanProcessor(TollspanCostExporter(exporter, on_call=fails, owners=Ownership()))).span(NEW)
    assert len(exporter.get_finished_spans()) == 1
    assert "could not price a span (span_end:OSError)" in caplog.text
    assert "could not price a span (export:OSError)" in caplog.text
    assert "in fails" in caplog.text
    assert "the prompt" not in caplog.text


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("tollspan.telemetry.foreign_spans.processor.is_inference", "span_end:RuntimeError"),
        ("tollspan.telemetry.foreign_spans.registry.may_be_inference", "span_start:RuntimeError"),
    ],
)
def test_a_failure_is_counted(
    metered: Metered, fault: str, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the process is instrumented, a failure over another's span is one of `tollspan.internal.errors`."""

    def fails(*_: object) -> None:
        message = "the prompt"
        raise RuntimeError(message)

    monkeypatch.setattr(fault, fails)
    metered.tracer_provider.get_tracer("somebody").start_span("a call", attributes=NEW).end()
    assert metered.attributes["gen_ai.usage.input_tokens"] == 1000
    assert metered.errors() == {kind: 1}
    assert "the prompt" not in caplog.text


def test_stopped_processor_does_nothing() -> None:
    """A processor that was stopped leaves spans alone: it cannot be taken out of a provider."""
    stopped = processor()
    stopped.stop()
    assert Pipeline(stopped).span(NEW) == NEW


def test_exporter_alone() -> None:
    """The wrapping exporter prices on its own, by copies, and hands on what needs no price as it is."""
    inner = InMemorySpanExporter()
    calls: list[Call] = []
    pipeline = Pipeline(SimpleSpanProcessor(TollspanCostExporter(inner, on_call=calls.append, owners=Ownership())))
    pipeline.span(NEW)
    pipeline.span({"http.route": "/"})
    priced, other = inner.get_finished_spans()
    seen, same = pipeline.exporter.get_finished_spans()
    assert dict(priced.attributes or {})[AMOUNT] == pytest.approx(COST, rel=1e-12)
    assert AMOUNT not in (seen.attributes or {})
    assert priced.context == seen.context
    assert priced.resource is seen.resource
    assert other is same
    assert len(calls) == 1


def test_disabled_instrumentation_prices_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `opentelemetry-instrument` loads first prices nothing by itself: the instrumentation may be disabled."""
    pipeline = Pipeline()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: pipeline.provider)
    pre_instrument()
    assert pipeline.span(NEW) == NEW


def test_instrumented_process_counts_spans(metered: Metered) -> None:
    """`instrument()` adds a processor by itself: spans of calls that pass no httpx are in the counters, once."""
    tracer = metered.tracer_provider.get_tracer("opentelemetry.instrumentation.botocore.bedrock-runtime")
    model = "anthropic.claude-haiku-4-5-20251001-v1:0"
    tracer.start_span(
        "chat",
        attributes={
            **NEW,
            "gen_ai.provider.name": "aws.bedrock",
            "gen_ai.request.model": model,
            "gen_ai.response.model": model,
        },
    ).end()
    cost = (1000 * 1.10 + 400 * 0.11 + 100 * 5.5) / 1e6
    assert metered.attributes[AMOUNT] == pytest.approx(cost, rel=1e-12)
    assert metered.recorder.accumulator.spend == atto(cost)
    assert metered.recorder.accumulator.calls == 1
    (point,) = metered.points("gen_ai.client.operation.cost")
    assert point.sum == pytest.approx(cost, rel=1e-12)
    assert metered.points("gen_ai.client.token.usage") == []  # the emitter's own
    assert metered.errors() == {}
