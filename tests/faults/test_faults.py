"""Whatever fails inside of tollspan: the application gets what it would have got, and the failure is counted.

Every boundary is made to fail in turn, in each way of sending; the exchange is compared with one that nobody meters.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import signal
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest
from opentelemetry import baggage
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import SpanProcessor

import tollspan
from tests.capture.mock_wires import CHAT, CHAT_REQUEST, OPENAI, Wire, chat_stream, packed, sse
from tollspan.budget.stores import StoreError
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.runtime import finalizers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Metered


class FaultError(Exception):
    """What a boundary that is made to fail raises."""


def fail(*_: object, **__: object) -> Any:
    """Fail as a bug would."""
    raise FaultError("made to fail; the text may hold a secret")


WAYS: Final = ("plain", "stream", "left", "broken", "refused", "timeout")
"""An answer read whole; streamed; streamed and left; a connection that breaks, an error status, a time-out."""


def exchange(way: str, *, is_async: bool) -> list[Any]:
    """Send one call in a way and give all that the application sees of it."""
    request = {**CHAT_REQUEST, "stream": way in {"stream", "left", "broken"}}
    pieces = chat_stream() if request["stream"] else [packed(CHAT)]
    wire = Wire(pieces=pieces) if way == "plain" else sse(pieces)
    if way == "broken":
        wire.pieces, wire.error = pieces[:4], httpx2.ReadError("the connection broke")
    elif way == "refused":
        wire = Wire(status=429, pieces=[packed({"error": {"type": "rate_limit_exceeded", "message": "slow down"}})])
    elif way == "timeout":
        wire = Wire(error=httpx2.ReadTimeout("too late"))
    seen: list[Any] = []
    try:
        if is_async:
            asyncio.run(_async_exchange(wire, request, way, seen))
        else:
            _sync_exchange(wire, request, way, seen)
    except Exception as error:  # noqa: BLE001 - it is what the application sees
        seen.append(repr(error))
    return [*seen, [request.content for request in wire.requests]]


def _sync_exchange(wire: Wire, request: dict[str, Any], way: str, seen: list[Any]) -> None:
    with wire.client(httpx2) as client:
        if not request["stream"]:
            response = client.post(OPENAI, json=request)
            seen += [type(response), response.status_code, dict(response.headers), response.content]
            return
        with client.stream("POST", OPENAI, json=request) as response:
            seen += [type(response), response.status_code, dict(response.headers)]
            for piece in response.iter_bytes():
                seen.append(piece)
                if way == "left" and len(seen) > 5:
                    break
        seen.append(response.is_closed)


async def _async_exchange(wire: Wire, request: dict[str, Any], way: str, seen: list[Any]) -> None:
    async with wire.async_client(httpx2) as client:
        if not request["stream"]:
            response = await client.post(OPENAI, json=request)
            seen += [type(response), response.status_code, dict(response.headers), response.content]
            return
        async with client.stream("POST", OPENAI, json=request) as response:
            seen += [type(response), response.status_code, dict(response.headers)]
            async for piece in response.aiter_bytes():
                seen.append(piece)
                if way == "left" and len(seen) > 5:
                    break
        seen.append(response.is_closed)


BOUNDARIES: Final[dict[str, tuple[str, set[str]]]] = {
    # What fails, and the ways of sending in which it is not passed.
    "providers": ("tollspan.wire.providers.Directory.find", set()),
    "dialect": ("tollspan.capture.exchange.load", set()),
    "attribution": ("tollspan.capture.exchange.current_attribution", set()),
    "owners": ("tollspan.telemetry.foreign_spans.ownership.SPANS.find", set()),
    "others' wrappers": ("tollspan.capture.attempt.recorded", set()),
    "owners' spans": ("tollspan.capture.recorder.Recorder.ensure_span_processor", set()),
    "span's start": ("opentelemetry.sdk.trace.Tracer.start_span", set()),
    "span's attributes": ("opentelemetry.sdk.trace.Span.set_attributes", set()),
    "span's attributes, put": ("tollspan.telemetry.spans.put", set()),
    "span's end": ("opentelemetry.sdk.trace.Span.end", set()),
    "span": ("tollspan.capture.recorder.end_span", set()),
    "answer": ("tollspan.capture.attempt.Attempt.response_received", {"timeout"}),
    "opening": ("tollspan.capture.attempt.Attempt.stream_opened", {"plain", "refused", "timeout"}),
    "whole answer": ("tollspan.capture.attempt.Attempt.read_body", {"stream", "left", "broken", "timeout"}),
    "chunk's metric": ("tollspan.telemetry.metrics.Instruments.chunk", {"plain", "refused", "timeout"}),
    "reader": ("tollspan.wire.reader.Reader.feed", {"plain", "refused", "timeout"}),
    "reader's batches": ("tollspan.wire.reader.Reader.catch_up", {"plain", "refused", "timeout"}),
    "reader's document": ("tollspan.wire.reader.Reader.take", {"stream", "left", "broken", "timeout"}),
    "reader's end": ("tollspan.wire.reader.Reader.close", {"plain", "refused", "timeout"}),
    "estimate": ("tollspan.capture.attempt_record.billed_usage", {"plain", "stream", "refused"}),
    "price": ("tollspan.capture.recorder.price", {"refused", "timeout"}),
    "counters": ("tollspan.telemetry.counters.Accumulator.add", set()),
    "metrics": ("tollspan.telemetry.metrics.Instruments.record", set()),
    "histogram": ("opentelemetry.sdk.metrics._internal.instrument.Histogram.record", set()),
    "call log": ("tollspan.capture.call_log.CallLog.add", set()),
    "record": ("tollspan.capture.recorder.Recorder.record", set()),
    "usage asked for": ("tollspan.hooks.httpx.request_usage", {"plain", "refused", "timeout"}),
    "call": ("tollspan.capture.attempt.record_of", set()),
}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_application_never_notices(
    instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch, boundary: str, way: str, is_async: bool
) -> None:
    """One boundary fails: bytes, types, exceptions and what was sent are an unmetered call's, and it is counted."""
    metered = instrumented(
        stream_usage="auto" if boundary == "usage asked for" else "never",
        chunk_metric=boundary != "reader's batches",  # pieces that are timed are read one by one
    )
    with monkeypatch.context() as bare:
        bare.setattr(httpx2.Client, "send", getattr(httpx2.Client.send, "__tollspan_original__"))  # noqa: B009
        bare.setattr(httpx2.AsyncClient, "send", getattr(httpx2.AsyncClient.send, "__tollspan_original__"))  # noqa: B009
        expected = exchange(way, is_async=is_async)
    place, not_passed = BOUNDARIES[boundary]
    with monkeypatch.context() as broken:
        broken.setattr(place, fail)
        assert exchange(way, is_async=is_async) == expected
    if way not in not_passed:
        kinds = {name.partition(":")[2] for name in metered.errors()}
        assert kinds == {"FaultError"}, "a failure that nobody hears of"
        told = {point.attributes["tollspan.kind"]: point.value for point in metered.points("tollspan.internal.errors")}
        assert told == metered.errors()
    assert not metered.recorder.open, "an attempt that never ends keeps its memory"
    exchange(way, is_async=is_async)
    assert metered.calls, "after the failure all goes on"


# Settings, files and callbacks


def test_settings_that_make_no_sense(
    instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Bad values of variables and files, providers and prices that are none: calls are metered by the defaults."""
    bad = {
        "HOSTS": "=;", "METRICS": "all", "MAX_MODELS": "-1", "PRICING_PATH": "/nowhere/prices.json", "TAGS": "=",
        "STREAM_USAGE": "perhaps", "LOG_CALLS": "si", "CONFIG": str(tmp_path / "tollspan.toml"),
    }  # fmt: skip
    for name, value in bad.items():
        monkeypatch.setenv(f"TOLLSPAN_{name}", value)
    (tmp_path / "tollspan.toml").write_text(
        """
        unknown = 1
        [[providers]]
        hosts = 7
        [[providers]]
        name = "x"
        routes = [{ path = "(", dialect = "none" }]
        [[prices]]
        model = 3
        """
    )
    metered = instrumented()
    monkeypatch.delenv("TOLLSPAN_CONFIG")
    expected = exchange("plain", is_async=False)
    assert expected[1] == 200
    assert metered.attributes["gen_ai.usage.input_tokens"] == 1200


@pytest.mark.parametrize("text", ["[[[", "budget = 3\n[[", b"\xff\xfe", "providers = 3"])
def test_file_that_cannot_be_read(
    instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | bytes
) -> None:
    """A file that cannot be read stops no application; one that may hold a budget refuses calls, and lifts no limit."""
    path = tmp_path / "tollspan.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setenv("TOLLSPAN_CONFIG", str(path))
    instrumented()
    may_limit = isinstance(text, bytes) or "budget" in text
    assert exchange("plain", is_async=False)[1] == (402 if may_limit else 200)


def test_subscriber_that_fails(metered: Metered) -> None:
    """What a subscriber raises reaches nobody, and the next subscriber is told all the same."""
    told: list[Any] = []
    tollspan.subscribe(fail)
    tollspan.subscribe(told.append)
    assert exchange("plain", is_async=False)[1] == 200
    assert len(told) == 1
    assert metered.errors() == {"subscriber:FaultError": 1}


def test_ledger_that_cannot_be_written(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """A ledger in a folder that is a file: the call is as ever, and the failure is counted."""
    (tmp_path / "file").write_text("no folder")
    metered = instrumented(ledger=str(tmp_path / "file" / "ledger.db"), durability="call")
    assert exchange("plain", is_async=False)[1] == 200
    assert [kind for kind in metered.errors() if kind.startswith("ledger:")]
    assert metered.attributes["gen_ai.usage.input_tokens"] == 1200


def test_ledger_whose_view_fails(
    instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A bug in the ledger leaves span, counters and the call as they are."""
    monkeypatch.setattr("tollspan.ledger.writer.Writer.add", fail)
    metered = instrumented(ledger=str(tmp_path / "ledger.db"))
    assert exchange("plain", is_async=False)[1] == 200
    assert metered.errors() == {"ledger:FaultError": 1}
    assert metered.recorder.accumulator.calls == 1


class _OwnError(Exception):
    """An application's exception whose `response` raises, as httpx's `request` does where none is set."""

    @property
    def response(self) -> Any:
        raise RuntimeError("no response here")


def test_exceptions_of_the_application_stay(metered: Metered) -> None:
    """An exception that cannot be looked at is handed on as it is."""
    wire = Wire(error=_OwnError())
    with pytest.raises(_OwnError), wire.client(httpx2) as client:
        client.post(OPENAI, json=CHAT_REQUEST)
    assert metered.errors() == {}
    assert len(metered.spans) == 1


# Budgets: a failure of their own refuses the call, or lets it through where the budget says so


def store_fails(*_: object, **__: object) -> Any:
    """Fail as a store does that cannot be reached."""
    raise StoreError("the store cannot be reached")


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("policy", "status"), [("closed", 402), ("open", 200)])
def test_store_that_fails(
    instrumented: Callable[..., Metered],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    policy: str,
    status: int,
    is_async: bool,
) -> None:
    """A store that cannot be reached refuses calls, or lets them through, as the budget says."""
    metered = instrumented(
        budget=[{"limit": "5 USD", "period": "day", "store_failure": policy}],
        budget_store=f"sqlite:{tmp_path / 'b.db'}",
    )
    with monkeypatch.context() as broken:
        broken.setattr(SqliteStore, "reserve", store_fails)
        assert exchange("plain", is_async=is_async)[1] == status
    assert exchange("plain", is_async=is_async)[1] == 200
    assert len(metered.spans) == 2


@pytest.mark.parametrize("place", ["check", "settle"])
def test_guard_with_a_bug(instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """A bug before the call refuses it, for a limit is never lifted by one; a bug after it changes nothing for it."""
    metered = instrumented(budget="5 USD/day")
    with monkeypatch.context() as broken:
        broken.setattr(f"tollspan.budget.guard.Guard.{place}", fail)
        assert exchange("plain", is_async=False)[1] == (402 if place == "check" else 200)
    assert metered.errors() == {"budget:FaultError": 1}
    assert exchange("plain", is_async=False)[1] == 200


def test_a_span_processor_that_raises_lifts_no_limit(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """Where no span can be started, budgets, counters and ledger have the call all the same."""

    class Theirs(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:  # noqa: ARG002 - as the SDK calls it
            span.attributes["app.tenant"]

    metered = instrumented(budget="1 call/day", ledger=str(tmp_path / "ledger.db"))
    metered.tracer_provider.add_span_processor(Theirs())
    assert [exchange("plain", is_async=False)[1] for _ in range(2)] == [200, 402]
    assert [call.outcome for call in metered.calls] == ["ok", "denied"]
    assert metered.errors() == {"span:KeyError": 2}
    tollspan.flush()
    assert tollspan.summary(everywhere=True).calls == 1


def test_baggage_that_nobody_can_read_lifts_no_limit(instrumented: Callable[..., Metered]) -> None:
    """Members of the baggage that are no texts are passed over."""

    class Broken:
        def __str__(self) -> str:
            raise FaultError

    metered = instrumented(budget="1 call/day", trust_baggage=True)
    context = baggage.set_baggage("tollspan.user", Broken(), baggage.set_baggage(5, "x"))  # type: ignore[arg-type]
    token = attach(baggage.set_baggage("tollspan.session", "mine", context))
    try:
        assert [exchange("plain", is_async=False)[1] for _ in range(2)] == [200, 402]
    finally:
        detach(token)
    assert metered.calls[0].attribution == {"session": "mine"}
    assert metered.errors() == {}


# The garbage collector


COLLECTION: Final = """
import faulthandler, gc
faulthandler.dump_traceback_later(60, exit=True)
import httpx2
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics._internal import aggregation
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
import tollspan
from tests.capture.mock_wires import CHAT_REQUEST, OPENAI, chat_stream, sse
from tollspan.runtime import finalizers
from tollspan.setup.instrument import current

tollspan.instrument(meter_provider=MeterProvider(metric_readers=[InMemoryMetricReader()]))
gc.disable()

def begin():
    client = sse(chat_stream()).client(httpx2)
    request = client.build_request("POST", OPENAI, json={**CHAT_REQUEST, "stream": True})
    response = client.send(request, stream=True)
    pieces = response.iter_bytes()
    next(pieces)
    return client, response, pieces

begin()[1].close()
cycle = list(begin())
cycle.append(cycle)
del cycle
search = aggregation.bisect_left

def collecting(*arguments):
    gc.collect()  # as it may at any moment; here the SDK holds a lock
    return search(*arguments)

aggregation.bisect_left = collecting
begin()[1].close()
finalizers.settle()
print(current().accumulator.calls, dict(current().accumulator.errors))
"""


def test_collection_in_the_middle_of_recording() -> None:
    """A stream that the collector finds while the SDK holds a lock does not wait for that lock, and is recorded."""
    done = subprocess.run(  # noqa: S603 - this interpreter, and the text above
        [sys.executable, "-c", COLLECTION], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "3 {}", done.stderr


def test_collection_ends_attempts_at_once_where_it_can(metered: Metered) -> None:
    """A response that is dropped, and that no cycle holds, is recorded before the next line runs."""
    client = sse(chat_stream()).client(httpx2)
    response = client.send(client.build_request("POST", OPENAI, json={**CHAT_REQUEST, "stream": True}), stream=True)
    gc.collect()
    assert metered.recorder.accumulator.calls == 0
    response.stream = None
    assert metered.recorder.accumulator.calls == 1


@pytest.mark.usefixtures("metered")
def test_what_cannot_be_ended_keeps_no_other_from_it() -> None:
    """An exporter of the application's that ends its thread, as `sys.exit` does, does not leave the others waiting."""
    done: list[int] = []
    begun, ended = threading.Event(), threading.Event()

    def leave() -> None:
        begun.wait(30)
        raise SystemExit

    def last() -> None:
        done.append(2)
        ended.set()

    class InCycle:
        """Stands for a stream that only the collector finds."""

        def __init__(self, action: Callable[[], None]) -> None:
            self.action, self.me = action, self

        def __del__(self) -> None:
            finalizers.end(self.action)

    for action in (leave, lambda: done.append(1), last):
        InCycle(action)
    gc.collect()
    begun.set()
    assert ended.wait(30)
    finalizers.settle()
    assert sorted(done) == [1, 2]


# Signals


LOCKED: Final = (("tollspan.attribution", "Scope._count"), ("tollspan.capture.attempt", "Attempt._unregister"))


@pytest.mark.parametrize(("module", "name"), LOCKED)
def test_handler_that_calls_does_not_wait_for_itself(
    metered: Metered, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    """A signal in the middle of a call's end, whose handler makes a call: both are recorded."""
    owner, _, method = name.partition(".")
    kind = getattr(import_module(module), owner)
    own = getattr(kind, method)

    def interrupted(*arguments: Any) -> Any:
        monkeypatch.setattr(kind, method, own)
        signal.raise_signal(signal.SIGUSR1)
        return own(*arguments)

    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(exchange("plain", is_async=False)[1]))
    faulthandler.dump_traceback_later(60, exit=True)
    try:
        with tollspan.attribution(user="ann"):
            monkeypatch.setattr(kind, method, interrupted)
            exchange("plain", is_async=False)
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGUSR1, before)
    assert seen == [200]
    assert metered.recorder.accumulator.calls == 2
    assert metered.errors() == {}
