"""Whose span a call is: another emitter's inference span is completed and none is added; everything is counted once."""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, get_value, set_value
from opentelemetry.trace import set_span_in_context

from tests.capture.mock_wires import (
    CHAT,
    CHAT_COST,
    CHAT_REQUEST,
    LIBRARIES,
    OPENAI,
    Wire,
    chat_stream,
    packed,
    post,
    sse,
)
from tests.forked_children import child_finds, forks
from tollspan.model.money import atto
from tollspan.model.records import Cost
from tollspan.telemetry.foreign_spans.operation_cost import combined
from tollspan.telemetry.foreign_spans.ownership import SPANS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.trace import Span

    from tests.conftest import Metered

AMOUNT = "gen_ai.usage.cost.amount"
KEY = "opentelemetry.genai.client.inference.context"
STREAMED = {**CHAT_REQUEST, "stream": True, "stream_options": {"include_usage": True}}
CALL: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
}
every_client = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
every_library = pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)


def answer(**changed: Any) -> Wire:
    """Return a wire that answers a chat completion."""
    return Wire(pieces=[packed({**CHAT, **changed})])


def ask(wire: Wire | None = None, **changed: Any) -> None:
    """Make one call over httpx2."""
    post(wire or answer(), httpx2, OPENAI, {**CHAT_REQUEST, **changed})


def span_of(metered: Metered, attributes: dict[str, Any], scope: str = "somebody") -> Span:
    """Start a span of another emitter, which is not current."""
    return metered.tracer_provider.get_tracer(scope).start_span("theirs", attributes=attributes)


def current(metered: Metered, attributes: dict[str, Any], scope: str = "somebody") -> Any:
    """Start a span of another emitter and make it current."""
    return metered.tracer_provider.get_tracer(scope).start_as_current_span("theirs", attributes=attributes)


def named(metered: Metered) -> list[str]:
    """Return the names of the spans that have ended."""
    return [span.name for span in metered.spans]


@every_library
@every_client
def test_their_span_is_completed(metered: Metered, lib: ModuleType, is_async: bool) -> None:
    """Under another emitter's inference span a call adds no span; that one gets the cost and all that it lacks."""
    with current(metered, CALL):
        post(answer(), lib, OPENAI, CHAT_REQUEST, is_async=is_async)
    assert named(metered) == ["theirs"]
    found = metered.attributes
    assert found[AMOUNT] == pytest.approx(CHAT_COST, rel=1e-12)
    assert found["gen_ai.usage.input_tokens"] == 1200
    assert found["gen_ai.usage.reasoning.output_tokens"] == 64
    assert found["gen_ai.response.model"] == "gpt-4o-mini-2024-07-18"
    assert found["gen_ai.response.id"] == "chatcmpl-made-1"
    assert metered.recorder.accumulator.spend == atto(str(round(CHAT_COST, 12)))
    assert metered.errors() == {}


def test_what_they_say_stays(metered: Metered) -> None:
    """What the emitter sets itself is not touched, not even where it is wrong, and its cost is not repeated."""
    with current(metered, CALL) as span:
        ask()
        span.set_attributes({"gen_ai.usage.input_tokens": 7, "gen_ai.response.id": "theirs", "llm.cost.total": 1.0})
    found = metered.attributes
    assert found["gen_ai.usage.input_tokens"] == 7
    assert "gen_ai.usage.output_tokens" not in found  # a span that has usage gets no part of another's
    assert found["gen_ai.response.id"] == "theirs"
    assert found[AMOUNT] == pytest.approx(CHAT_COST, rel=1e-12)


def test_attempts_add_up(metered: Metered) -> None:
    """The attempts of an operation add up on its one span: a failed one costs nothing, each answered one its price."""
    with current(metered, CALL):
        ask(Wire(status=500, pieces=[b"{}"]))
        ask()
        ask()
    assert named(metered) == ["theirs"]
    assert metered.attributes[AMOUNT] == pytest.approx(2 * CHAT_COST, rel=1e-12)
    assert metered.attributes["tollspan.attempts"] == 2
    assert metered.attributes["tollspan.outcome"] == "ok"
    assert metered.recorder.accumulator.calls == 3
    assert metered.recorder.accumulator.spend == 2 * atto(str(round(CHAT_COST, 12)))


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "gpt-4o-mini"},
        {"openinference.span.kind": "CHAIN"},
        {"http.route": "/ask"},
    ],
    ids=["agent", "chain", "request"],
)
def test_roll_ups_own_nothing(metered: Metered, attributes: dict[str, Any]) -> None:
    """Under an agent's, a chain's or a web request's span a call has its own span, as their child."""
    with current(metered, attributes) as outer:
        ask()
    ours, theirs = metered.spans
    assert (ours.name, theirs.name) == ("chat gpt-4o-mini", "theirs")
    assert ours.parent is not None
    assert ours.parent.span_id == outer.get_span_context().span_id
    assert AMOUNT in (ours.attributes or {})
    assert AMOUNT not in (theirs.attributes or {})


def test_outer_inference_is_covered(metered: Metered) -> None:
    """Of two inference spans around a call the inner gets the cost; the outer, which has the same tokens, none."""
    with current(metered, CALL, "framework") as outer, current(metered, CALL, "sdk"):
        ask()
        outer.set_attributes({"gen_ai.usage.input_tokens": 1200, "gen_ai.usage.output_tokens": 345})
    inner, around = metered.spans
    assert (inner.attributes or {})[AMOUNT] == pytest.approx(CHAT_COST, rel=1e-12)
    assert AMOUNT not in (around.attributes or {})
    assert metered.recorder.accumulator.calls == 1


def test_span_in_between(metered: Metered) -> None:
    """A span of the application's own between the emitter's and the call changes nothing."""
    with current(metered, CALL), current(metered, {}, "application"):
        ask()
    assert [AMOUNT in (span.attributes or {}) for span in metered.spans] == [False, True]


# --- Spans that end at another time than the call


def chat(metered: Metered, wire: Wire) -> tuple[Span, Iterator[bytes], Callable[[], None]]:
    """Open a stream under another emitter's span, which is current only while the request is sent."""
    span = span_of(metered, CALL)
    client = wire.client(httpx2)
    token = attach(set_span_in_context(span))
    try:
        request = client.build_request("POST", OPENAI, json=STREAMED)
        response = client.send(request, stream=True)
    finally:
        detach(token)

    def close() -> None:
        response.close()
        client.close()

    return span, response.iter_raw(), close


def test_span_that_ends_on_the_last_event(metered: Metered) -> None:
    """An emitter that ends its span on the last event, before the body is exhausted, still has the cost on it."""
    pieces = chat_stream()
    span, body, close = chat(metered, sse(pieces))
    for _ in pieces:
        next(body)
    span.end()  # the last piece was handed over and is yet to be read by us
    close()
    assert named(metered) == ["theirs"]
    assert metered.attributes[AMOUNT] == pytest.approx(CHAT_COST, rel=1e-12)
    assert metered.recorder.accumulator.calls == 1


def test_span_that_ends_at_the_headers(metered: Metered) -> None:
    """An emitter whose span ends before a stream has said what it used cannot have the cost; a span of ours has it."""
    span, body, close = chat(metered, sse(chat_stream()))
    span.end()
    list(body)
    close()
    theirs, ours = metered.spans
    assert AMOUNT not in (theirs.attributes or {})
    assert (ours.attributes or {})[AMOUNT] == pytest.approx(CHAT_COST, rel=1e-12)
    assert ours.parent is not None
    assert theirs.context is not None
    assert ours.parent.span_id == theirs.context.span_id


def test_usage_on_a_later_span(metered: Metered) -> None:
    """Logfire reports a stream's usage on a second span, after the end: that one gets the cost, none is added."""
    tracer = metered.tracer_provider.get_tracer("logfire.openai")
    client = sse(chat_stream()).client(httpx2)
    with tracer.start_as_current_span("request", attributes=CALL):
        response = client.send(client.build_request("POST", OPENAI, json=STREAMED), stream=True)
    list(response.iter_raw())
    usage = {"gen_ai.usage.input_tokens": 1200, "gen_ai.usage.output_tokens": 345}
    tracer.start_span("streamed", attributes={**CALL, **usage, "gen_ai.response.id": "chatcmpl-made-2"}).end()
    client.close()
    request, streamed = metered.spans
    assert (request.name, streamed.name) == ("request", "streamed")
    assert AMOUNT not in (request.attributes or {})
    assert (streamed.attributes or {})[AMOUNT] == pytest.approx(CHAT_COST, rel=1e-12)
    assert metered.recorder.accumulator.calls == 1


def test_span_that_starts_after_the_answer(metered: Metered) -> None:
    """A span that tells of a response after it came (OpenLLMetry's for Responses) is known by its id: not priced."""
    ask(answer(id="chatcmpl-told-later"))
    usage = {"gen_ai.usage.input_tokens": 1200, "gen_ai.usage.output_tokens": 345}
    span_of(metered, {**CALL, **usage, "gen_ai.response.id": "chatcmpl-told-later"}).end()
    assert [AMOUNT in (span.attributes or {}) for span in metered.spans] == [True, False]
    assert metered.recorder.accumulator.calls == 1


# --- Spans that are never current


def test_span_started_in_this_task(metered: Metered) -> None:
    """The unfinished span of a known emitter, started in this task and never made current, owns the call."""
    span = span_of(metered, CALL, "opentelemetry.instrumentation.langchain")
    ask()
    span.end()
    assert named(metered) == ["theirs"]
    assert metered.attributes[AMOUNT] == pytest.approx(CHAT_COST, rel=1e-12)


def test_span_of_another_model_is_not_the_owner(metered: Metered) -> None:
    """Such a span owns no call of another model: its stream may be open while another call is made."""
    span = span_of(metered, {**CALL, "gen_ai.request.model": "gpt-5.5"}, "opentelemetry.instrumentation.langchain")
    ask()
    span.end()
    assert [AMOUNT in (span.attributes or {}) for span in metered.spans] == [True, False]


def test_span_with_an_answer_takes_no_other(metered: Metered) -> None:
    """Such a span that has its answer already owns no further call: that is another operation."""
    span = span_of(metered, CALL, "opentelemetry.instrumentation.langchain")
    ask()
    ask()
    span.end()
    assert sorted(named(metered)) == ["chat gpt-4o-mini", "theirs"]


# --- The context of opentelemetry-util-genai, whose shapes are made after 1.3b0


@dataclass
class InferenceData:
    """What util-genai puts into the context."""

    attributes: dict[str, Any] = field(default_factory=dict)
    metric_attributes: dict[str, Any] = field(default_factory=dict)
    response_id: str | None = None
    response_model: str | None = None
    response_finish_reasons: list[str] | None = None
    usage_input_tokens: int | None = None
    usage_output_tokens: int | None = None
    usage_cache_read_input_tokens: int | None = None


@pytest.fixture
def util_genai(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a module be loaded that looks like util-genai's."""
    module = ModuleType("opentelemetry.util.genai.invocation")
    module.InferenceData = InferenceData  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opentelemetry.util.genai.invocation", module)


def test_outer_invocation_is_told(metered: Metered) -> None:
    """An invocation that only the context tells of (its span is dropped) gets usage and cost through its object."""
    data = InferenceData()
    token = attach(set_value(KEY, data))
    try:
        ask()
    finally:
        detach(token)
    assert metered.spans == ()
    assert (data.usage_input_tokens, data.usage_output_tokens, data.usage_cache_read_input_tokens) == (1200, 345, 1024)
    assert (data.response_id, data.response_finish_reasons) == ("chatcmpl-made-1", ["stop"])
    assert data.attributes[AMOUNT] == pytest.approx(CHAT_COST, rel=1e-12)
    assert metered.points("gen_ai.client.token.usage") == []
    assert metered.recorder.accumulator.calls == 1


def test_cost_is_not_told_twice(metered: Metered) -> None:
    """Where an inner span has the cost, the outer invocation is told the usage only."""
    data = InferenceData()
    with current(metered, CALL, "com.anthropic.sdk.python"):
        token = attach(set_value(KEY, data))
        try:
            ask()
        finally:
            detach(token)
    assert metered.attributes[AMOUNT] == pytest.approx(CHAT_COST, rel=1e-12)
    assert data.usage_input_tokens == 1200
    assert data.attributes == {}


@pytest.mark.usefixtures("util_genai")
def test_ours_is_published_while_sending(metered: Metered) -> None:
    """While a request of ours is sent, others find our object under the key; afterwards the context is as it was."""
    seen: list[object] = []

    def transport(_: httpx2.Request) -> httpx2.Response:
        seen.append(get_value(KEY))
        return httpx2.Response(200, json=CHAT)

    with httpx2.Client(transport=httpx2.MockTransport(transport)) as client:
        client.post(OPENAI, json=CHAT_REQUEST)
    assert [type(data) for data in seen] == [InferenceData]
    assert get_value(KEY) is None
    assert named(metered) == ["chat gpt-4o-mini"]


# --- Metrics and suppression


@pytest.mark.parametrize(
    ("scope", "ours"),
    [
        ("opentelemetry.instrumentation.genai.openai", set()),
        ("opentelemetry.instrumentation.openai.v1", set()),
        ("pydantic-ai", {"gen_ai.client.operation.duration"}),
        ("com.anthropic.sdk.python", {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"}),
        ("openinference.instrumentation.openai", {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"}),
        ("somebody", {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"}),
    ],
)
def test_metrics_that_the_owner_lacks(metered: Metered, scope: str, ours: set[str]) -> None:
    """What the owner of a call records itself is not recorded again; the rest is, the cost and our own always."""
    with current(metered, CALL, scope):
        ask()
    both = ("gen_ai.client.operation.duration", "gen_ai.client.token.usage")
    assert {name for name in both if metered.points(name)} == ours
    assert len(metered.points("gen_ai.client.operation.cost")) == 1
    assert len(metered.points("tollspan.spend")) == 1


@pytest.mark.parametrize(("scope", "calls"), [("somebody", 0), ("logfire.openai", 1)])
def test_suppression(metered: Metered, scope: str, calls: int) -> None:
    """Suppressed instrumentation suppresses us, but for Logfire's spans, which suppress all others to be alone."""
    with current(metered, CALL, scope):
        token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, "yes"))
        try:
            ask()
        finally:
            detach(token)
    assert metered.recorder.accumulator.calls == calls
    assert (AMOUNT in metered.attributes) == bool(calls)


# --- Sums


def test_combined() -> None:
    """Two costs add up part by part, and the sum is as good as the worse of them."""
    one = Cost(amount=5, source="local", quality="measured", breakdown={"input": 2, "output": 3}, computed=5)
    two = Cost(amount=7, source="local", quality="floor", breakdown={"output": 7}, computed=7, low=7, high=9)
    both = combined(one, two)
    assert (both.amount, both.quality, both.breakdown) == (12, "floor", {"input": 2, "output": 10})
    assert (both.computed, both.low, both.high) == (12, 12, 14)


def test_combined_with_an_unpriced_one() -> None:
    """With one attempt that has no price, the sum is at least what the other cost; with two, there is none."""
    assert combined(Cost(), Cost(amount=7, quality="measured")) == Cost(amount=7, quality="floor")
    assert combined(Cost(), Cost()) == Cost()


class Tracer:
    """As OpenInference's for LangChain: a handler that starts the spans of runs in threads, and knows them."""

    __module__ = "openinference.instrumentation.langchain._tracer"

    def __init__(self, metered: Metered) -> None:
        self.metered = metered
        self.spans: dict[str, Span] = {}

    def start(self, run_id: str) -> None:
        """Start the span of a run."""

        def work() -> None:
            self.spans[run_id] = span_of(self.metered, CALL, "openinference.instrumentation.langchain")

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    def get_span(self, run_id: str) -> Span | None:
        """Return the span of a run."""
        return self.spans.get(run_id)


@dataclass
class RunManager:
    """As LangChain's, which is handed to every method of a model."""

    run_id: str
    handlers: list[object]


def test_a_run_of_langchain_owns_its_call(metered: Metered) -> None:
    """A run that is done before an older one has sent anything takes neither its span nor leaves it without."""
    tracer = Tracer(metered)

    def generate(run_manager: RunManager) -> None:
        ask()
        tracer.spans[run_manager.run_id].end()

    for run_id in ("older", "younger"):
        tracer.start(run_id)
    for run_id in ("younger", "older"):
        generate(RunManager(run_id, [object(), tracer]))
    assert named(metered) == ["theirs", "theirs"]
    assert [span.attributes[AMOUNT] for span in metered.spans if span.attributes] == [CHAT_COST] * 2


@forks
@pytest.mark.usefixtures("metered")
def test_a_child_forked_during_a_call_is_not_stuck() -> None:
    """A thread of the parent that looks for an owner at the fork does not hold up the child's calls."""

    def is_done() -> bool:
        signal.alarm(20)
        thread = threading.Thread(target=ask)  # the lock is reentrant: another thread must get it, too
        thread.start()
        thread.join()
        return True

    with SPANS.spans._lock, SPANS.calls._lock, SPANS.held._lock:
        assert child_finds(is_done)
