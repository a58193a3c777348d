"""Emitters that no span tells of while a request is sent: their spans start late, or a sampler dropped them."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import tollspan
from tests.capture.mock_wires import CHAT, CHAT_COST, CHAT_REQUEST, OPENAI, Wire, chat_stream, packed, post, sse
from tollspan.telemetry.foreign_spans import held
from tollspan.telemetry.foreign_spans.ownership import SPANS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Metered

AMOUNT: Final = "gen_ai.usage.cost.amount"
OPENLLMETRY: Final = "opentelemetry.instrumentation.openai"
RESPONSES: Final = f"{OPENLLMETRY}.v1.responses_wrappers"
CHATS: Final = f"{OPENLLMETRY}.shared.chat_wrappers"
WRAPPER: Final = """
def wrapper(send, after):
    answer = send()
    after()
    return answer

async def async_wrapper(send, after):
    answer = await send()
    after()
    return answer
"""


@pytest.fixture
def wrapper(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return modules as OpenLLMetry's, whose functions send a request and do something after that."""

    def load(name: str) -> ModuleType:
        monkeypatch.setitem(sys.modules, OPENLLMETRY, ModuleType(OPENLLMETRY))
        module = ModuleType(name)
        exec(WRAPPER, module.__dict__)  # noqa: S102 - a function must be of that module to be known
        return module

    return load


def starting(metered: Metered, spans: list[Any], name: str = "openai.response") -> Callable[[], None]:
    """Return a function that starts the emitter's span, as if it had been started before the request."""

    def start() -> None:
        tracer = metered.tracer_provider.get_tracer(f"{OPENLLMETRY}.v1")
        spans.append(tracer.start_span(name, attributes={"gen_ai.request.model": "gpt-4o-mini"}))

    return start


def ask(wire: Wire | None = None) -> None:
    """Make one call over httpx2."""
    post(wire or Wire(pieces=[packed(CHAT)]), httpx2, OPENAI, CHAT_REQUEST)


def test_a_span_that_starts_when_the_answer_is_there(metered: Metered, wrapper: Callable[[str], ModuleType]) -> None:
    """Such a span takes the cost and what else it lacks, and no span of ours is added: there is one for the call."""
    spans: list[Any] = []
    with metered.tracer_provider.get_tracer("app").start_as_current_span("work"):
        wrapper(RESPONSES).wrapper(ask, starting(metered, spans))
        spans[0].end()
    assert [span.name for span in metered.spans] == ["openai.response", "work"]
    found = dict(metered.spans[0].attributes or {})
    assert found[AMOUNT] == pytest.approx(CHAT_COST, rel=1e-12)
    assert found["gen_ai.usage.input_tokens"] == 1200
    assert found["tollspan.outcome"] == "ok"
    SPANS.release()
    assert len(metered.spans) == 2
    assert metered.errors() == {}


async def _stream(opened: list[Any]) -> Any:
    client = sse(chat_stream()).async_client(httpx2)
    request = client.build_request("POST", OPENAI, json={**CHAT_REQUEST, "stream": True, "stream_options": {}})
    opened.append(client)
    return await client.send(request, stream=True)


def test_a_span_that_starts_at_the_headers(metered: Metered, wrapper: Callable[[str], ModuleType]) -> None:
    """The same holds for a stream, whose span starts when the headers are there and ends on its last event."""

    async def run() -> None:
        spans: list[Any] = []
        opened: list[Any] = []
        response = await wrapper(RESPONSES).async_wrapper(lambda: _stream(opened), starting(metered, spans))
        async for _ in response.aiter_raw():
            pass
        spans[0].end()
        await opened[0].aclose()

    asyncio.run(run())
    assert [span.name for span in metered.spans] == ["openai.response"]
    assert AMOUNT in metered.attributes
    assert metered.attributes["gen_ai.usage.output_tokens"] > 0


def test_attempts_of_a_late_span_add_up(metered: Metered, wrapper: Callable[[str], ModuleType]) -> None:
    """A retry waits for the same span, which then has the cost of both attempts."""
    spans: list[Any] = []

    def twice() -> None:
        ask(Wire(status=429, pieces=[b"{}"]))
        ask()

    wrapper(RESPONSES).wrapper(twice, starting(metered, spans))
    spans[0].end()
    assert [span.name for span in metered.spans] == ["openai.response"]
    assert metered.attributes[AMOUNT] == pytest.approx(CHAT_COST, rel=1e-12)
    assert metered.recorder.accumulator.calls == 2


def test_a_span_that_never_comes(metered: Metered, wrapper: Callable[[str], ModuleType]) -> None:
    """Where none comes (the answer is not complete), the call has a span of ours: at a flush, with its own times."""
    wrapper(RESPONSES).wrapper(ask, lambda: None)
    assert metered.spans == ()
    assert metered.recorder.accumulator.calls == 1  # who counts does not wait
    tollspan.flush()
    assert metered.span.name == "chat gpt-4o-mini"
    assert metered.attributes[AMOUNT] == pytest.approx(CHAT_COST, rel=1e-12)
    assert metered.span.end_time is not None
    assert metered.span.start_time is not None
    assert metered.span.end_time > metered.span.start_time


def test_a_failure_of_a_late_span_is_counted(
    metered: Metered, wrapper: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where our own span for it cannot be written, a flush goes on, and the failure is counted."""
    wrapper(RESPONSES).wrapper(ask, lambda: None)
    monkeypatch.setattr("tollspan.capture.recorder.span_of", lambda *_, **__: 1 // 0)
    assert tollspan.flush()
    assert metered.errors() == {"span:ZeroDivisionError": 1}


def test_a_span_is_not_waited_for_for_ever(
    metered: Metered, wrapper: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call that begins after a while writes what has waited too long."""
    module = wrapper(RESPONSES)
    module.wrapper(ask, lambda: None)
    ask(Wire(pieces=[packed({**CHAT, "id": "chatcmpl-made-9"})]))
    assert len(metered.spans) == 1
    monkeypatch.setattr(held, "PATIENCE", 0.0)
    ask(Wire(pieces=[packed({**CHAT, "id": "chatcmpl-made-8"})]))
    assert len(metered.spans) == 3


def test_a_late_span_of_another_task(metered: Metered, wrapper: Callable[[str], ModuleType]) -> None:
    """A span that starts where the request is not known takes the cost by the response that it names, once."""
    wrapper(RESPONSES).wrapper(ask, lambda: None)
    SPANS.held._expected.set(None)  # as in another task
    spans: list[Any] = []
    starting(metered, spans)()
    spans[0].set_attributes({"gen_ai.operation.name": "chat", "gen_ai.response.id": CHAT["id"]})
    spans[0].set_attributes({"gen_ai.usage.input_tokens": 1200, "gen_ai.usage.output_tokens": 345})
    spans[0].end()
    SPANS.release()
    assert [span.name for span in metered.spans] == ["openai.response"]
    assert metered.attributes[AMOUNT] == pytest.approx(CHAT_COST, rel=1e-12)


def test_other_functions_of_that_emitter_wait_for_none(metered: Metered, wrapper: Callable[[str], ModuleType]) -> None:
    """Its other wrappers start their spans in time: a call under one that has none has a span of ours, at once."""
    wrapper(CHATS).wrapper(ask, lambda: None)
    assert metered.span.name == "chat gpt-4o-mini"


@pytest.fixture
def unsampled() -> Iterator[InMemoryMetricReader]:
    """Instrument where a sampler drops every span; give the metrics."""
    reader = InMemoryMetricReader()
    tollspan.instrument(
        tracer_provider=TracerProvider(ALWAYS_OFF, shutdown_on_exit=False),
        meter_provider=MeterProvider(metric_readers=[reader], shutdown_on_exit=False),
    )
    yield reader
    tollspan.uninstrument()


TOTALS: Final = {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"}


@pytest.mark.parametrize(
    ("module", "ours"),
    [(CHATS, set[str]()), (RESPONSES, TOTALS), ("somebody", TOTALS)],
)
def test_metrics_of_dropped_spans(
    unsampled: InMemoryMetricReader, wrapper: Callable[[str], ModuleType], module: str, ours: set[str]
) -> None:
    """Where a sampler drops an emitter's span, the metrics that it records all the same are not recorded by us too."""
    wrapper(module).wrapper(ask, lambda: None)
    data = unsampled.get_metrics_data()
    assert data is not None
    found = {m.name for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
    assert found & TOTALS == ours
    assert "tollspan.spend" in found
