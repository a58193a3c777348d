"""The application never notices: bytes, pieces, laziness, types, exceptions and hooks stay as they were."""

from __future__ import annotations

import asyncio
import gc
import gzip
import tracemalloc
import zlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation

import tollspan
from tests.capture.mock_wires import (
    ANTHROPIC,
    CHAT,
    CHAT_REQUEST,
    LIBRARIES,
    MESSAGE_REQUEST,
    OPENAI,
    Wire,
    chat_stream,
    message_stream,
    packed,
    post,
    sse,
    stream,
)
from tollspan.ledger.queries import Ledger
from tollspan.runtime import finalizers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from tests.conftest import Metered

every_client = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
every_library = pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
STREAM_REQUEST = {**CHAT_REQUEST, "stream": True, "stream_options": {"include_usage": True}}


@every_library
@every_client
@pytest.mark.parametrize("how", ["raw", "bytes", "text", "lines"])
@pytest.mark.parametrize("encode", [None, gzip.compress, zlib.compress], ids=["identity", "gzip", "deflate"])
@pytest.mark.parametrize("size", [1, 7, 10**9])
def test_pieces_are_those_of_an_unmetered_client(
    metered: Metered,
    lib: ModuleType,
    is_async: bool,
    how: str,
    encode: Any,
    size: int,
) -> None:
    """Whatever way a stream is read, encoded or not, the application gets the very pieces it got before."""
    body = b"".join(message_stream())
    wire_bytes = encode(body) if encode else body
    headers = {"content-type": "text/event-stream"}
    if encode:
        headers["content-encoding"] = "gzip" if encode is gzip.compress else "deflate"
    pieces = [wire_bytes[at : at + size] for at in range(0, len(wire_bytes), size)]
    request = {**MESSAGE_REQUEST, "stream": True}
    metered_pieces = stream(Wire(headers=headers, pieces=pieces), lib, ANTHROPIC, request, is_async=is_async, how=how)
    with suppress_instrumentation():
        plain = stream(Wire(headers=headers, pieces=pieces), lib, ANTHROPIC, request, is_async=is_async, how=how)
    assert metered_pieces == plain
    assert metered.attributes["gen_ai.usage.output_tokens"] == 345
    assert metered.errors() == {}


@every_library
def test_streams_stay_lazy(metered: Metered, lib: ModuleType) -> None:
    """A piece reaches the application before the next is drawn from the network."""
    wire = sse(chat_stream(words=50))
    with wire.client(lib) as client, client.stream("POST", OPENAI, json=STREAM_REQUEST) as response:
        for number, _ in enumerate(response.iter_raw(), 1):
            assert wire.drawn == number
    assert metered.attributes["gen_ai.usage.input_tokens"] == 1200


@every_library
def test_response_is_the_librarys_own(metered: Metered, lib: ModuleType) -> None:
    """Types, history, elapsed time and closing are the library's, on plain and streamed responses."""
    with sse(chat_stream()).client(lib) as client, client.stream("POST", OPENAI, json=STREAM_REQUEST) as response:
        assert type(response) is lib.Response
        assert isinstance(response.stream, lib.SyncByteStream)
        response.read()
        assert response.is_closed
        assert response.elapsed.total_seconds() >= 0
    plain = post(Wire(pieces=[packed(CHAT)]), lib, OPENAI, CHAT_REQUEST)
    assert plain.elapsed.total_seconds() >= 0
    assert len(metered.spans) == 2


@every_library
def test_stream_has_what_the_one_inside_has(metered: Metered, lib: ModuleType) -> None:
    """What SDKs look for on a stream (Anthropic's its observer) is found, or is not there, as on the stream inside."""
    with sse(chat_stream()).client(lib) as client, client.stream("POST", OPENAI, json=STREAM_REQUEST) as response:
        assert getattr(response.stream, "stream_observer", None) is None
        assert not hasattr(response.stream, "other")
        within = SimpleNamespace(stream_observer=object(), other=object())
        around = type(response.stream)(within, SimpleNamespace(abandoned=lambda: None), None)
        assert (around.stream_observer, around.other) == (within.stream_observer, within.other)
        response.read()
    assert metered.attributes["gen_ai.usage.input_tokens"] == 1200


def test_uninstrument_puts_everything_back(metered: Metered) -> None:
    """After `uninstrument()` the clients' methods are the very functions that they were, and calls are not metered."""
    wrapped = [(lib.Client.send, lib.AsyncClient.send) for lib in LIBRARIES]
    tollspan.uninstrument()
    for lib, (sync, async_) in zip(LIBRARIES, wrapped, strict=True):
        assert lib.Client.send is sync.__wrapped__
        assert lib.AsyncClient.send is async_.__wrapped__
    post(Wire(pieces=[packed(CHAT)]), LIBRARIES[0], OPENAI, CHAT_REQUEST)
    assert metered.spans == ()


def test_calls_under_way_outlive_uninstrument(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """A stream that ends after `uninstrument()` is in the ledger all the same, and its reservation is settled."""
    path, budgets = tmp_path / "ledger.db", f"sqlite:{tmp_path / 'budgets.db'}"
    options: dict[str, Any] = {"ledger": str(path), "budget": "1 USD/day", "budget_store": budgets}
    instrumented(**options)
    asked = {**CHAT_REQUEST, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 500}
    with sse(chat_stream()).client(LIBRARIES[0]) as client, client.stream("POST", OPENAI, json=asked) as response:
        pieces = response.iter_raw()
        next(pieces)
        tollspan.uninstrument()
        assert b"".join(pieces)
    with Ledger(path) as ledger:
        spent = ledger.figures().cost
    assert spent > 0
    instrumented(**options)
    (status,) = tollspan.budget.status()
    assert (status.spent, status.reserved) == (spent, 0)


def test_instrumenting_twice_wraps_once(metered: Metered) -> None:
    """A second `instrument()` changes nothing: one call is one span."""
    tollspan.instrument()
    post(Wire(pieces=[packed(CHAT)]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    assert len(metered.spans) == 1


@every_library
def test_clients_made_before_are_metered(lib: ModuleType, request: pytest.FixtureRequest) -> None:
    """A client that was made before `instrument()` is metered after it."""
    with Wire(pieces=[packed(CHAT)]).client(lib) as client:
        metered: Metered = request.getfixturevalue("metered")
        client.post(OPENAI, json=CHAT_REQUEST)
    assert len(metered.spans) == 1


@every_library
@every_client
def test_suppressed_calls_are_not_metered(metered: Metered, lib: ModuleType, is_async: bool) -> None:
    """OpenTelemetry's suppression covers tollspan too."""
    with suppress_instrumentation():
        post(Wire(pieces=[packed(CHAT)]), lib, OPENAI, CHAT_REQUEST, is_async=is_async)
    assert metered.spans == ()


@every_library
@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "https://api.openai.com/v1/models"),
        ("POST", "https://api.openai.com/v1/files"),
        ("POST", "https://api.anthropic.com/v1/messages/count_tokens"),
        ("POST", "https://example.com/v1/orders"),
        ("POST", "https://example.com/v1/messages"),
    ],
)
def test_other_traffic_is_left_alone(metered: Metered, lib: ModuleType, method: str, url: str) -> None:
    """Control calls, other hosts, and a path that only looks like a model call make no span."""
    with Wire(pieces=[b"{}"]).client(lib) as client:
        client.request(method, url, json={"to": "somebody"} if method == "POST" else None)
    assert metered.spans == ()


@every_library
def test_event_hooks_redirects_and_auth_work(metered: Metered, lib: ModuleType) -> None:
    """A redirect, an auth flow that asks twice and event hooks run as ever, inside one span."""
    seen: list[str] = []

    def answer(request: Any) -> Any:
        if request.url.path == "/old/chat/completions":
            return lib.Response(307, headers={"location": OPENAI})
        if "authorization" not in request.headers:
            return lib.Response(401, headers={"www-authenticate": "x"})
        return lib.Response(200, json=CHAT)

    auth: Any = lib.Auth

    class Flow(auth):  # type: ignore[misc]
        def auth_flow(self, request: Any) -> Any:
            response = yield request
            if response.status_code == 401:
                request.headers["authorization"] = "made"
                yield request

    hooks = {"request": [lambda r: seen.append(r.url.path)], "response": [lambda r: seen.append(str(r.status_code))]}
    client = lib.Client(transport=lib.MockTransport(answer), auth=Flow(), event_hooks=hooks, follow_redirects=True)
    with client:
        response = client.post("https://api.openai.com/old/chat/completions", json=CHAT_REQUEST)
    assert response.json() == CHAT
    assert seen[-1] == "200"
    assert metered.attributes["gen_ai.usage.input_tokens"] == 1200


@every_library
def test_http_spans_nest_in_ours(metered: Metered, lib: ModuleType) -> None:
    """While a request is sent our span is current, and afterwards it is not."""
    inside: list[Any] = []

    def answer(_: Any) -> Any:
        inside.append(trace.get_current_span().get_span_context().span_id)
        return lib.Response(200, json=CHAT)

    with lib.Client(transport=lib.MockTransport(answer)) as client:
        client.post(OPENAI, json=CHAT_REQUEST)
    context = metered.span.context
    assert context is not None
    assert inside == [context.span_id]
    assert not trace.get_current_span().get_span_context().is_valid


@every_library
@every_client
def test_exceptions_reach_the_application(metered: Metered, lib: ModuleType, is_async: bool) -> None:
    """A connection that fails raises what it raised, and the span says what it was."""

    def refuse(request: Any) -> Any:
        raise lib.ConnectError("nobody there", request=request)

    transport = lib.MockTransport(refuse)

    def call() -> None:
        if is_async:
            asyncio.run(lib.AsyncClient(transport=transport).post(OPENAI, json=CHAT_REQUEST))
        else:
            lib.Client(transport=transport).post(OPENAI, json=CHAT_REQUEST)

    with pytest.raises(lib.ConnectError, match="nobody there"):
        call()
    assert metered.attributes["error.type"] == f"{lib.__name__}.ConnectError"
    assert "gen_ai.usage.cost.amount" not in metered.attributes


@every_library
def test_stream_closed_early_is_recorded(metered: Metered, lib: ModuleType) -> None:
    """A stream that the application leaves in the middle ends as aborted, with what the wire had told."""
    request = {**MESSAGE_REQUEST, "stream": True}
    wire = sse(message_stream(words=50))
    with wire.client(lib) as client, client.stream("POST", ANTHROPIC, json=request) as response:
        for number, _ in enumerate(response.iter_bytes()):
            if number == 10:
                break
    attributes = metered.attributes
    assert attributes["tollspan.outcome"] == "aborted"
    assert attributes["gen_ai.usage.input_tokens"] == 1500


@every_library
def test_stream_left_after_its_end_is_whole(metered: Metered, lib: ModuleType) -> None:
    """An SDK stops reading at the last event, before the connection says that it was the last: the call is whole."""
    events = message_stream()
    request = {**MESSAGE_REQUEST, "stream": True}
    with sse(events).client(lib) as client, client.stream("POST", ANTHROPIC, json=request) as response:
        pieces = response.iter_raw()
        for _ in events:
            next(pieces)
    assert metered.attributes["tollspan.outcome"] == "ok"
    assert metered.attributes["gen_ai.usage.output_tokens"] == 345


@every_library
def test_broken_stream_is_recorded(metered: Metered, lib: ModuleType) -> None:
    """A connection that breaks in the middle raises in the application as ever, and the span names the exception."""
    wire = sse(message_stream()[:5], error=lib.ReadError("cut"))
    with pytest.raises(lib.ReadError, match="cut"):
        stream(wire, lib, ANTHROPIC, {**MESSAGE_REQUEST, "stream": True})
    attributes = metered.attributes
    assert attributes["error.type"] == f"{lib.__name__}.ReadError"
    assert attributes["gen_ai.response.finish_reasons"] == ("error",)


@every_library
def test_forgotten_response_is_recorded(metered: Metered, lib: ModuleType) -> None:
    """A streamed response that is dropped unread ends its call when it is finalizers."""
    client = sse(message_stream()).client(lib)
    response = client.send(client.build_request("POST", ANTHROPIC, json=MESSAGE_REQUEST), stream=True)
    assert metered.spans == ()
    del response
    gc.collect()
    finalizers.settle()
    assert metered.attributes["tollspan.outcome"] == "aborted"


@every_library
def test_cancelled_task_is_recorded(metered: Metered, lib: ModuleType) -> None:
    """Cancelling the task that reads a stream ends the call as aborted and leaves no context behind."""

    async def run() -> None:
        started = asyncio.Event()

        async def forever() -> Any:
            for piece in message_stream()[:3]:
                yield piece
            started.set()
            await asyncio.Event().wait()

        def answer(_: Any) -> Any:
            return lib.Response(200, headers={"content-type": "text/event-stream"}, content=forever())

        async def read() -> None:
            async with (
                lib.AsyncClient(transport=lib.MockTransport(answer)) as client,
                client.stream("POST", ANTHROPIC, json=MESSAGE_REQUEST) as response,
            ):
                async for _ in response.aiter_bytes():
                    pass

        task = asyncio.create_task(read())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert metered.attributes["tollspan.outcome"] == "aborted"
    assert metered.attributes["gen_ai.usage.input_tokens"] == 1500


def test_nothing_is_held_between_pieces(metered: Metered) -> None:
    """While a stream is read our span is not current: the application's own spans are not its children."""
    wire = sse(chat_stream())
    with wire.client(LIBRARIES[1]) as client, client.stream("POST", OPENAI, json=STREAM_REQUEST) as response:
        for _ in response.iter_bytes():
            assert not trace.get_current_span().get_span_context().is_valid
    assert len(metered.spans) == 1
    assert metered.recorder.open == {}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {"model": "sms", "content": "hello"}),
        ("/v1/messages", {"model": "sms", "messages": ["hello"]}),
        ("/v1/responses", {"model": "survey", "input": {"question": 1}}),
        ("/courses/7/completions", {"model": "x", "content": "1"}),
        ("/v1/chat/completions", {"messages": "none"}),
    ],
)
def test_other_services_bodies_are_no_model_calls(metered: Metered, path: str, body: dict[str, Any]) -> None:
    """At a host that is nobody's a path alone tells nothing: the body has to be in the shape of the format."""
    post(Wire(pieces=[b"{}"]), LIBRARIES[1], f"https://crm.example.com{path}", body)
    assert metered.spans == ()


def test_cut_off_text_is_looked_for_without_a_copy_of_every_byte(metered: Metered) -> None:
    """A long plain body that is cut off inside a text is searched in memory of its own size, and no multiple."""
    body = packed(CHAT).replace(b"Hi.", b"x" * 2_000_000)[:1_000_000]
    wire = Wire(pieces=[body])
    tracemalloc.start()
    got = b"".join(stream(wire, LIBRARIES[1], OPENAI, CHAT_REQUEST))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got == body
    assert peak < 12 * len(body)
    assert metered.errors() == {}
