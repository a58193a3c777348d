"""A call survives its event whole, and events reach whoever collects logs."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import tollspan
from tests.ledger.call_factory import EVERYTHING, FAILED, UNPRICED, made
from tollspan.model.money import atto
from tollspan.model.records import Call, Cost, Part, Usage
from tollspan.model.refusal import Refusal
from tollspan.telemetry import events
from tollspan.telemetry.events import attributes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.conftest import Metered

PROMPT = "the bridge is not for sale"
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": PROMPT}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
}


class Collected(LogRecordProcessor):
    """Keeps what is emitted."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.flushed = 0

    def on_emit(self, log_record: Any) -> None:
        """Keep a record."""
        self.records.append(log_record.log_record)

    def shutdown(self) -> None:
        """Do nothing."""

    def force_flush(self, timeout_millis: int = 0) -> bool:
        """Count."""
        self.flushed += 1
        return timeout_millis > 0


@pytest.fixture
def collected() -> Collected:
    """Return what keeps the records."""
    return Collected()


@pytest.fixture
def provider(collected: Collected) -> LoggerProvider:
    """Return a provider of loggers whose records are collected."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(collected)
    return provider


def ask(prompt: str = PROMPT) -> None:
    """Make one call, which is answered without a network."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=ANSWER))
    with httpx.Client(transport=transport) as client:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}]}
        client.post("https://api.openai.com/v1/chat/completions", json=body)


def call_of(attributes: Mapping[str, Any], trace_id: str | None = None, span_id: str | None = None) -> Call:
    """Return the call that an event was made from, by collector-config/README.md alone."""
    known = dict(attributes)
    take = known.pop
    usage = {
        field: take(f"gen_ai.usage.{name}", None)
        for field, name in {
            "input": "input_tokens",
            "output": "output_tokens",
            "cache_read": "cache_read.input_tokens",
            "cache_write": "cache_write.input_tokens",
            "reasoning": "reasoning.output_tokens",
        }.items()
    }
    counts = _named(known, "tollspan.usage.count.")
    amount = _atto(take("tollspan.cost.amount_usd", None))
    if amount is not None:
        assert divmod(amount, 10**9) == (take("tollspan.cost.amount_nano"), take("tollspan.cost.amount_rest"))
        assert take("gen_ai.usage.cost.amount") == pytest.approx(amount / 10**18)
    cost = Cost(
        amount=amount,
        currency=take("gen_ai.usage.cost.currency", "USD"),
        source=take("gen_ai.usage.cost.source", None),
        quality=take("tollspan.cost.quality"),
        breakdown={kind: atto(part) for kind, part in _named(known, "tollspan.cost.breakdown_usd.").items()},
        computed=_atto(take("tollspan.cost.computed_usd", None)),
        savings=atto(take("tollspan.cost.savings_usd", "0")),
        low=_atto(take("tollspan.cost.low_usd", None)),
        high=_atto(take("tollspan.cost.high_usd", None)),
        price_key=take("tollspan.cost.price_key", None),
        rule=take("tollspan.cost.rule", None),
        table_version=take("tollspan.cost.table_version", None),
        missing=tuple(take("tollspan.cost.missing", ())),
        note=take("tollspan.cost.note", None),
    )
    who = {"user": "user.id", "session": "session.id", "run": "tollspan.run.id"}
    who |= {"step": "tollspan.step", "agent": "gen_ai.agent.name"}
    attribution = {key: take(name) for key, name in who.items() if name in known}
    attribution |= {f"tag.{name}": value for name, value in _named(known, "tollspan.tag.").items()}
    call = Call(
        id=take("tollspan.call.id"),
        operation_id=take("tollspan.operation.id"),
        provider=take("gen_ai.provider.name"),
        operation=take("gen_ai.operation.name"),
        started_at=take("tollspan.started_at"),
        duration=take("tollspan.duration"),
        outcome=take("tollspan.outcome"),
        request_model=take("gen_ai.request.model", None),
        response_model=take("gen_ai.response.model", None),
        response_id=take("gen_ai.response.id", None),
        finish_reasons=tuple(take("gen_ai.response.finish_reasons", ())),
        stream=take("gen_ai.request.stream"),
        server_address=take("server.address", None),
        server_port=take("server.port", None),
        http_status=take("http.response.status_code", None),
        error_type=take("error.type", None),
        resend_count=take("http.request.resend_count", None),
        time_to_first_chunk=take("gen_ai.response.time_to_first_chunk", None),
        time_to_first_token=take("tollspan.time_to_first_token", None),
        usage=_usage(usage | counts) if any(count is not None for count in (usage | counts).values()) else None,
        usage_quality=take("tollspan.usage.quality"),
        cost=cost,
        avoided=_atto(take("tollspan.cost.avoided_usd", None)),
        tier=take("tollspan.service_tier", None),
        geography=take("tollspan.geography", None),
        speed=take("tollspan.speed", None),
        region=take("tollspan.region", None),
        search_context=take("tollspan.search_context", None),
        price_labels=tuple(take("tollspan.cost.price_labels", ())),
        parts=tuple(
            Part(kind=part["kind"], model=part["model"], usage=_usage(part["usage"]))
            for part in json.loads(take("tollspan.parts", "[]"))
        ),
        cached_by=take("tollspan.cached_by", None),
        billable=take("tollspan.billable"),
        pending=bool(take("tollspan.pending", None)),
        settles=take("tollspan.settles", None),
        trace_id=trace_id,
        span_id=span_id,
        attribution=attribution,
        refusal=_refusal(take("tollspan.budget.refusal", None), known),
    )
    assert known == {}, "not documented"
    return call


def _named(known: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): known.pop(name) for name in list(known) if name.startswith(prefix)}


def _refusal(text: str | None, known: dict[str, Any]) -> Refusal | None:
    if text is None:
        return None
    refusal = Refusal.of(json.loads(text))
    assert (known.pop("tollspan.budget.name"), known.pop("tollspan.budget.reason")) == (refusal.budget, refusal.reason)
    return refusal


def _atto(text: str | None) -> int | None:
    return None if text is None else atto(text)


def _usage(counts: dict[str, Any]) -> Usage:
    tokens = {name: count for name, count in counts.items() if name in Usage.__slots__}
    units = {name: Decimal(count) for name, count in counts.items() if name not in Usage.__slots__}
    return Usage(**tokens, units=units)


@pytest.mark.parametrize("call", [made(), made(**FAILED), made(**UNPRICED), EVERYTHING], ids=lambda call: call.outcome)
def test_a_call_comes_back_as_it_was(call: Call, provider: LoggerProvider, collected: Collected) -> None:
    """What is read from an event is the call that it was made from, in every field, to the last digit."""
    events.Events(provider.get_logger("test"), {}).add(call)
    (record,) = collected.records
    assert record.event_name == "tollspan.call"
    assert record.timestamp == call.started_at + 1_250_000_000
    ids = (f"{record.trace_id:032x}", f"{record.span_id:016x}") if record.trace_id else (None, None)
    # How much a call can have used at most is for the budgets that settle it, and is not told.
    assert call_of(record.attributes, *ids) == replace(call, output_most=None)


def test_a_call_that_names_no_session_has_that_of_the_process() -> None:
    """Session and run of the process stand in, as in the ledger; what the call names goes before them."""
    defaults = {"session": "s", "run": "r"}
    assert call_of(attributes_of(made(), defaults)).attribution == defaults
    named = made(attribution={"run": "another"})
    assert call_of(attributes_of(named, defaults)).attribution == {"session": "s", "run": "another"}


def test_events_are_opt_in(
    instrumented: Callable[..., Metered], provider: LoggerProvider, collected: Collected
) -> None:
    """Without the setting nothing is emitted."""
    instrumented(logger_provider=provider)
    ask()
    assert collected.records == []


def test_an_event_belongs_to_its_span_and_tells_no_text(
    instrumented: Callable[..., Metered], provider: LoggerProvider, collected: Collected
) -> None:
    """The event of a real call bears the ids of its span, its figures, and nothing of what was said."""
    metered = instrumented(events=True, logger_provider=provider)
    ask()
    (record,) = collected.records
    context = metered.span.context
    assert context is not None
    assert (record.trace_id, record.span_id) == (context.trace_id, context.span_id)
    call = call_of(record.attributes)
    assert call.id == metered.attributes["tollspan.call.id"]
    assert call.usage is not None
    assert (call.usage.input, call.usage.output, call.cost.quality) == (11, 7, "measured")
    assert PROMPT not in str(record.attributes)
    assert record.body is None
    assert metered.errors() == {}


def test_sampling_drops_no_event(provider: LoggerProvider, collected: Collected) -> None:
    """Where every span is dropped, the call is told all the same."""
    dropping = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    tollspan.instrument(tracer_provider=dropping, events=True, logger_provider=provider)
    try:
        ask()
    finally:
        tollspan.uninstrument()
    (record,) = collected.records
    assert (call_of(record.attributes).outcome, record.trace_flags) == ("ok", 0)


def test_a_denied_call_is_an_event(
    instrumented: Callable[..., Metered], provider: LoggerProvider, collected: Collected
) -> None:
    """A call that a budget refused is told too: not billable, and with the reason."""
    instrumented(events=True, logger_provider=provider, budget="0.0000001 USD/day", budget_hard=True)
    ask()
    (record,) = collected.records
    call = call_of(record.attributes)
    assert (call.outcome, call.billable, call.error_type) == ("denied", False, "budget_exceeded")
    assert call.refusal is not None
    assert (call.refusal.budget, call.refusal.reason) == ("0.0000001 USD/day", "insufficient")
    assert (call.refusal.limit, call.refusal.left) == (10**11, 10**11)


def test_flush_reaches_the_provider_that_was_given(
    instrumented: Callable[..., Metered], provider: LoggerProvider, collected: Collected
) -> None:
    """`tollspan.flush()` has the application's own provider write out what it holds."""
    instrumented(events=True, logger_provider=provider)
    assert tollspan.flush()
    assert collected.flushed == 1


def test_calls_under_way_outlive_uninstrument(
    instrumented: Callable[..., Metered], provider: LoggerProvider, collected: Collected
) -> None:
    """What ends once tollspan was taken away, to a recorder that it still holds, is emitted all the same."""
    recorder = instrumented(events=True, logger_provider=provider).recorder
    tollspan.uninstrument()
    recorder.record_span(made())
    assert len(collected.records) == 1


def test_what_cannot_be_encoded_keeps_no_other_event_back(
    instrumented: Callable[..., Metered], provider: LoggerProvider, collected: Collected
) -> None:
    """A number beyond 64 bits is counted as a failure of ours and not sent; half a surrogate is replaced."""
    metered = instrumented(events=True, logger_provider=provider)
    metered.recorder.record_span(replace(made(1), usage=Usage(input=2**63)))
    metered.recorder.record_span(replace(made(2), response_id="half a \ud800"))
    (record,) = collected.records
    assert record.attributes["gen_ai.response.id"] == "half a ?"
    assert metered.errors() == {"events:ValueError": 1}


def test_an_opentelemetry_without_events_is_told(
    instrumented: Callable[..., Metered],
    provider: LoggerProvider,
    collected: Collected,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the installed version is too old, one line says so, and calls go on as without events."""
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.30.0")
    with caplog.at_level(logging.WARNING, "tollspan"):
        instrumented(events=True, logger_provider=provider)
    assert "call events are disabled: they require opentelemetry-api and -sdk 1.37 or newer" in caplog.text
    ask()
    assert collected.records == []


class Receiver:
    """Takes OTLP over HTTP, and keeps the log records."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.paths: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.take(self.path, body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, path: str, body: bytes) -> None:
        """Keep what was sent."""
        self.paths.add(path)
        if path == "/v1/logs":
            request = ExportLogsServiceRequest.FromString(body)
            self.records += [
                record
                for resource in request.resource_logs
                for scope in resource.scope_logs
                for record in scope.log_records
                if scope.scope.name == "tollspan"
            ]

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Return a receiver of OTLP on loopback."""
    receiver = Receiver()
    yield receiver
    receiver.close()


PROGRAM = """
import httpx, json, logging, os
logging.getLogger().warning("the application's own log line")
answer = lambda request: httpx.Response(200, json=json.loads(os.environ["ANSWER"]))
with httpx.Client(transport=httpx.MockTransport(answer)) as client:
    client.post("https://api.openai.com/v1/chat/completions", json={"model": "gpt-4o-mini", "messages": []})
"""


def run(receiver: Receiver, program: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a program under `tollspan run`, which exports to the receiver."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TOLLSPAN_"))}
    usual = {
        "ANSWER": json.dumps(ANSWER),
        "TOLLSPAN_LEDGER": "off",
        "TOLLSPAN_SESSION": "one",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_BLRP_SCHEDULE_DELAY": "600000",  # what is exported before the end is exported because of the end
    }
    command = [sys.executable, "-m", "tollspan", "run", "--no-summary", "--", sys.executable, "-c", program]
    return subprocess.run(  # noqa: S603 - this interpreter
        command, env=ours | usual | settings, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("asked", ["1", "0"])
def test_tollspan_run_exports_events_where_they_are_asked_for(receiver: Receiver, asked: str) -> None:
    """With TOLLSPAN_EVENTS=1 and an endpoint a program that ends at once has its call exported; else no logs are."""
    done = run(receiver, PROGRAM, TOLLSPAN_EVENTS=asked)
    assert done.returncode == 0, done.stderr
    assert "/v1/metrics" in receiver.paths
    if asked == "0":
        assert "/v1/logs" not in receiver.paths
        return
    (record,) = receiver.records
    told = {item.key: item.value for item in record.attributes}
    assert record.event_name == "tollspan.call"
    assert told["session.id"].string_value == "one"
    assert told["gen_ai.usage.input_tokens"].int_value == 11
    assert Decimal(told["tollspan.cost.amount_usd"].string_value) > 0
    assert len(record.trace_id) == 16


@pytest.mark.parametrize("ledger", ["on", "off"])
def test_a_signal_that_ends_the_process_exports_first(receiver: Receiver, tmp_path: Path, ledger: str) -> None:
    """A program that SIGTERM ends, as every container is ended, has its calls exported; it ends by that signal."""
    place = "off" if ledger == "off" else str(tmp_path / "ledger.db")
    program = f"{PROGRAM}\nimport signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
    done = run(receiver, program, TOLLSPAN_EVENTS="1", TOLLSPAN_LEDGER=place)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert [record.event_name for record in receiver.records] == ["tollspan.call"]
