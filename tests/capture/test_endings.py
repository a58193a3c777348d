"""However a call ends, its record says what was used and how good that figure is. The streams are made."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.capture.mock_wires import (
    ANTHROPIC,
    CHAT,
    CHAT_REQUEST,
    CHAT_USAGE,
    LIBRARIES,
    MESSAGE_REQUEST,
    OPENAI,
    Wire,
    chat_stream,
    event,
    message_stream,
    packed,
    post,
    sse,
    stream,
)
from tollspan.capture.billed_usage import HTTPX, coded, was_sent
from tollspan.model.money import usd
from tollspan.wire.dialects.fields import NAMELESS

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tests.conftest import Metered
    from tollspan.model.records import Call

WORDS = 40
# As the SDKs ask: a limit, so that there is an upper bound.
CHAT_STREAM = {**CHAT_REQUEST, "max_tokens": 500, "stream": True, "stream_options": {"include_usage": True}}
MESSAGE_STREAM = {**MESSAGE_REQUEST, "max_tokens": 500, "stream": True}
ANTHROPIC_INPUT = 176 + 300 + 1024


def leave_after(events: list[bytes], kept: int, lib: ModuleType, url: str, body: object) -> None:
    """Read so many events of a stream, then close it."""
    with sse(events).client(lib) as client, client.stream("POST", url, json=body) as response:
        pieces = response.iter_raw()
        for _ in range(kept):
            next(pieces)


def within(call: Call) -> bool:
    """Return whether a call's cost lies between its bounds."""
    cost = call.cost
    assert cost.amount is not None
    assert cost.low is not None
    return cost.low <= cost.amount and (cost.high is None or cost.amount <= cost.high)


# Aborts, at every event


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_anthropic_abort_is_at_least_what_the_wire_told(calls: list[Call], lib: ModuleType) -> None:
    """Left after any event, a message costs no less than its start told and no more than all of it; input is exact."""
    events = message_stream(WORDS)
    list(stream(sse(events), lib, ANTHROPIC, MESSAGE_STREAM))
    full = calls.pop()
    for kept in range(1, len(events)):
        leave_after(events, kept, lib, ANTHROPIC, MESSAGE_STREAM)
    assert len(calls) == len(events) - 1
    floor = calls[0]
    for kept, call in enumerate(calls, 1):
        assert call.usage is not None
        assert call.usage.input == ANTHROPIC_INPUT
        assert (call.usage.cache_read, call.usage.cache_write_1h) == (1024, 200)
        # The last event but one has the stop reason and the final counts: nothing is missing behind it.
        ending = ("ok", "measured", "measured") if kept == len(events) - 1 else ("aborted", "floor", "floor")
        assert (call.outcome, call.usage_quality, call.cost.quality) == ending
        assert call.finish_reasons == (("end_turn",) if kept == len(events) - 1 else ("error",))
        assert (floor.cost.amount or 0) <= (call.cost.amount or 0) <= (full.cost.amount or 0)
        assert call.usage_quality == "measured" or within(call)
    amounts = [call.cost.amount or 0 for call in calls]
    assert amounts == sorted(amounts)
    assert calls[-1].cost.amount == full.cost.amount  # its last usage had come


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_openai_abort_is_estimated(calls: list[Call], lib: ModuleType) -> None:
    """Left after any event before its usage, a completion is estimated: more for more text, between two bounds."""
    events = chat_stream(WORDS)
    for kept in range(1, len(events) - 1):
        leave_after(events, kept, lib, OPENAI, CHAT_STREAM)
    outputs = []
    for call in calls:
        assert call.usage is not None
        assert (call.usage_quality, call.cost.quality) == ("estimated", "estimated")
        assert within(call)
        assert call.cost.high is not None
        outputs.append(call.usage.output or 0)
    assert outputs[0] == 0
    assert outputs == sorted(outputs)
    assert outputs[-1] == pytest.approx(WORDS * 2, rel=0.3)  # "word7" is a word and a number
    assert [call.outcome for call in calls] == ["aborted"] * (len(calls) - 1) + ["ok"]  # the last had its finish reason
    assert calls[0].error_type == "aborted"


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_abort_after_the_usage_is_measured(calls: list[Call], lib: ModuleType) -> None:
    """Once the usage has come, leaving changes nothing."""
    events = chat_stream(WORDS)
    leave_after(events, len(events) - 1, lib, OPENAI, CHAT_STREAM)
    assert (calls[0].outcome, calls[0].usage_quality, calls[0].cost.quality) == ("ok", "measured", "measured")


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
@pytest.mark.parametrize("kind", ["ReadTimeout", "ReadError", "RemoteProtocolError"])
def test_connection_lost_in_a_stream(calls: list[Call], lib: ModuleType, kind: str, is_async: bool) -> None:
    """A connection that breaks is an error of its class; what had come is billed."""
    error = getattr(lib, kind)("made")
    for events, url, body in (
        (chat_stream(WORDS)[:20], OPENAI, CHAT_STREAM),
        (message_stream(WORDS)[:20], ANTHROPIC, MESSAGE_STREAM),
    ):
        with pytest.raises(getattr(lib, kind)):
            stream(sse(events, error=error), lib, url, body, is_async=is_async)
    assert [call.usage_quality for call in calls] == ["estimated", "floor"]
    for call in calls:
        assert (call.outcome, call.finish_reasons, call.http_status) == ("error", ("error",), 200)
        assert call.error_type is not None
        assert call.error_type.endswith(kind)
        assert call.usage is not None
        assert call.usage.output
        assert within(call)


# Streams that end by themselves


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_truncated_streams(calls: list[Call], lib: ModuleType) -> None:
    """A stream that is exhausted without its last event, or without any, is an error, and what came is billed."""
    stream(sse(chat_stream(WORDS)[:20]), lib, OPENAI, CHAT_STREAM)
    stream(sse(message_stream(WORDS)[:20]), lib, ANTHROPIC, MESSAGE_STREAM)
    stream(sse([]), lib, OPENAI, CHAT_STREAM)
    assert [(call.outcome, call.error_type, call.usage_quality) for call in calls] == [
        ("error", "truncated", "estimated"),
        ("error", "truncated", "floor"),
        ("error", "truncated", "estimated"),
    ]
    assert all(within(call) for call in calls)
    assert calls[2].usage is not None
    assert calls[2].usage.output == 0


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_provider_error_inside_a_stream(calls: list[Call], lib: ModuleType) -> None:
    """An error event in a 200 stream is the provider's error; before any output nothing is billed."""
    failed = event({"error": {"type": "server_error", "message": "made"}})
    stream(sse([*chat_stream(WORDS)[:20], failed]), lib, OPENAI, CHAT_STREAM)
    stream(sse([failed]), lib, OPENAI, CHAT_STREAM)
    overloaded = event({"type": "error", "error": {"type": "overloaded_error", "message": "made"}}, "error")
    stream(sse([*message_stream(WORDS)[:20], overloaded]), lib, ANTHROPIC, MESSAGE_STREAM)
    late, early, message = calls
    assert [call.error_type for call in calls] == ["server_error", "server_error", "overloaded_error"]
    assert [call.outcome for call in calls] == ["error"] * 3
    assert (late.usage_quality, late.cost.low, late.billable) == ("estimated", 0, True)
    assert within(late)
    assert (early.billable, early.usage, early.cost.amount) == (False, None, 0)
    assert message.usage is not None
    assert message.usage.input == ANTHROPIC_INPUT


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_finish_reasons_are_told(calls: list[Call], reason: str) -> None:
    """A length limit and a content filter end a call well: they are its finish reason, and no error."""
    answer = {**CHAT, "choices": [{**CHAT["choices"][0], "finish_reason": reason}]}
    post(Wire(pieces=[packed(answer)]), LIBRARIES[0], OPENAI, CHAT_REQUEST)
    cut = [piece.replace(b'"stop"', b'"%s"' % reason.encode()) for piece in chat_stream()]
    stream(sse(cut), LIBRARIES[1], OPENAI, CHAT_STREAM)
    for call in calls:
        assert (call.outcome, call.error_type, call.finish_reasons) == ("ok", None, (reason,))
        assert call.cost.quality == "measured"


# Requests without an answer


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
@pytest.mark.parametrize("kind", ["ReadTimeout", "ReadError", "RemoteProtocolError"])
def test_sent_without_an_answer_is_estimated(calls: list[Call], lib: ModuleType, kind: str, is_async: bool) -> None:
    """A request that was sent and never answered is no call for nothing: an estimate, from nothing to the limit."""
    _fail(lib, getattr(lib, kind)("made"), is_async=is_async)
    (call,) = calls
    assert (call.outcome, call.http_status, call.billable) == ("error", None, True)
    assert call.error_type is not None
    assert call.error_type.endswith(kind)
    assert (call.usage_quality, call.cost.quality, call.cost.low) == ("estimated", "estimated", 0)
    assert call.usage is not None
    assert call.usage.input
    assert call.cost.high is not None
    assert usd(call.cost.high) >= 500 * usd(600_000_000_000)  # 500 tokens at 0.60 USD per million
    assert within(call)


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
@pytest.mark.parametrize("kind", ["ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "WriteError"])
def test_never_sent_costs_nothing(calls: list[Call], lib: ModuleType, kind: str) -> None:
    """A request that never went out whole is recorded, and costs nothing."""
    _fail(lib, getattr(lib, kind)("made"))
    (call,) = calls
    assert (call.outcome, call.billable, call.usage, call.cost.amount) == ("error", False, None, 0)


def _fail(lib: ModuleType, error: Exception, *, is_async: bool = False) -> None:
    """Send a request to a transport that raises."""

    def fail(_: object) -> object:
        raise error

    transport = lib.MockTransport(fail)
    body = {**CHAT_REQUEST, "max_tokens": 500}
    if not is_async:
        with lib.Client(transport=transport) as client, pytest.raises(type(error)):
            client.post(OPENAI, json=body)
        return

    async def run() -> None:
        async with lib.AsyncClient(transport=transport) as client:
            with pytest.raises(type(error)):
                await client.post(OPENAI, json=body)

    asyncio.run(run())


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
@pytest.mark.parametrize("events", [0, 20], ids=["before the headers", "in the stream"])
def test_cancelled_task(calls: list[Call], lib: ModuleType, events: int) -> None:
    """A cancelled call is aborted; perhaps it had not been sent, so that its lower bound is nothing."""

    async def run() -> None:
        waiting = asyncio.Event()

        async def hang() -> Any:
            for piece in chat_stream(WORDS)[:events]:
                yield piece
            waiting.set()
            await asyncio.Event().wait()

        async def answer(_: object) -> Any:
            if not events:
                waiting.set()
                await asyncio.Event().wait()
            return lib.Response(200, headers={"content-type": "text/event-stream"}, content=hang())

        async def call() -> None:
            async with lib.AsyncClient(transport=lib.MockTransport(answer)) as client:
                await client.post(OPENAI, json=CHAT_STREAM) if not events else await _read(client)

        task = asyncio.create_task(call())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    (call,) = calls
    assert (call.outcome, call.error_type) == ("aborted", "asyncio.exceptions.CancelledError")
    assert call.usage_quality == "estimated"
    assert (call.cost.low == 0) is (not events)
    assert within(call)


async def _read(client: Any) -> None:
    async with client.stream("POST", OPENAI, json=CHAT_STREAM) as response:
        async for _ in response.aiter_bytes():
            pass


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_a_hook_that_raises_for_the_status_bills_nothing(calls: list[Call], lib: ModuleType) -> None:
    """The application's own hook may raise for a status: the status is recorded, and a refusal costs nothing."""
    wire = Wire(status=503, pieces=[b"{}"])
    hooks = {"response": [lambda response: response.raise_for_status()]}
    with wire.client(lib, event_hooks=hooks) as client, pytest.raises(lib.HTTPStatusError):
        client.post(OPENAI, json=CHAT_REQUEST)
    assert (calls[0].http_status, calls[0].billable) == (503, False)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_a_hook_that_raises_over_an_answer(calls: list[Call], lib: ModuleType, is_async: bool) -> None:
    """What was answered is billed, whatever the application's hook makes of it; what a hook asks itself is its own."""

    def complain(response: Any) -> None:
        with sse([]).client(lib) as other:
            other.get("https://example.org/")
        raise ValueError(response.status_code)

    async def complain_async(response: Any) -> None:
        complain(response)

    def ask(wire: Wire) -> None:
        if is_async:
            asyncio.run(_post(wire.async_client(lib, event_hooks={"response": [complain_async]})))
        else:
            wire.client(lib, event_hooks={"response": [complain]}).post(OPENAI, json=CHAT_REQUEST)

    for status in (200, 429):
        with pytest.raises(ValueError, match=str(status)):
            ask(Wire(status=status, pieces=[packed(CHAT)]))
    told = [(call.http_status, call.billable, call.outcome, call.error_type) for call in calls]
    assert told == [(200, True, "error", "ValueError"), (429, False, "error", "ValueError")]
    assert calls[0].usage_quality == "estimated"


async def _post(client: Any) -> None:
    async with client:
        await client.post(OPENAI, json=CHAT_REQUEST)


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_a_hook_that_raises_before_the_request(calls: list[Call], lib: ModuleType) -> None:
    """A hook that looks at requests raises before anything was sent, also where it has sent something itself."""

    def complain(_: Any) -> None:
        with Wire(pieces=[b"{}"]).client(lib) as other:
            other.get("https://example.org/").raise_for_status()
        raise ValueError("not that")

    with Wire().client(lib, event_hooks={"request": [complain]}) as client, pytest.raises(ValueError, match="not that"):
        client.post(OPENAI, json=CHAT_REQUEST)
    assert (calls[0].http_status, calls[0].billable) == (None, False)


def test_a_key_is_no_code() -> None:
    """What looks like a key of a provider is not repeated as the type of an error; codes of providers are."""
    keys = [
        "sk-proj-abc",
        "sk_live_4",
        "AIzaSyA1",
        "AKIA1234567890",
        "gsk_abc",
        "hf_x",
        "eyJhbGciOi.J9",
        "0a1b2c3d" * 4,
    ]
    assert {coded(key) for key in keys} == {NAMELESS}
    codes = [
        "rate_limit_exceeded",
        "1301",
        "ThrottlingException",
        "RESOURCE_EXHAUSTED",
        "skill_not_found",
        "context:8192",
    ]
    assert [coded(code) for code in codes] == codes


def test_exceptions_of_the_application_are_before_the_request() -> None:
    """An exception that is no transport's says nothing of a request sent; a redirect loop is not billed."""
    lib = LIBRARIES[0]
    assert was_sent(lib.ReadTimeout("made"), HTTPX)
    assert was_sent(TimeoutError(), HTTPX)
    assert was_sent(ConnectionResetError(), HTTPX)
    assert not was_sent(ConnectionRefusedError(), HTTPX)
    assert not was_sent(ValueError(), HTTPX)
    assert not was_sent(lib.TooManyRedirects("made"), HTTPX)


# Usage that is missing, and usage that is zero


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None}], ids=str)
def test_missing_usage_is_estimated(calls: list[Call], usage: object) -> None:
    """A good answer without usage is estimated from its request and its text, and says so on its span."""
    post(Wire(pieces=[packed({**CHAT, "usage": usage})]), LIBRARIES[0], OPENAI, CHAT_REQUEST)
    (call,) = calls
    assert (call.outcome, call.usage_quality, call.cost.quality) == ("ok", "estimated", "estimated")
    assert call.usage is not None
    assert call.usage.input
    assert call.usage.output
    assert within(call)


def test_reported_zero_is_measured(calls: list[Call]) -> None:
    """A zero that was reported is a measure."""
    zero = {"prompt_tokens": 12, "completion_tokens": 0, "total_tokens": 12}
    post(Wire(pieces=[packed({**CHAT, "usage": zero})]), LIBRARIES[0], OPENAI, CHAT_REQUEST)
    (call,) = calls
    assert call.usage is not None
    assert (call.usage.input, call.usage.output, call.usage_quality) == (12, 0, "measured")


def test_half_a_usage_is_filled_in(calls: list[Call]) -> None:
    """Where one side was reported, it is kept, and only the other is estimated."""
    post(Wire(pieces=[packed({**CHAT, "usage": {"completion_tokens": 7}})]), LIBRARIES[0], OPENAI, CHAT_REQUEST)
    (call,) = calls
    assert call.usage is not None
    assert (call.usage.output, call.usage_quality) == (7, "estimated")
    assert call.usage.input


def test_estimates_are_said_on_the_span(metered: Metered) -> None:
    """A span tells its estimate, and its bounds; one that was measured tells nothing of the kind."""
    post(Wire(pieces=[packed({**CHAT, "usage": None})]), LIBRARIES[0], OPENAI, CHAT_REQUEST)
    post(Wire(pieces=[packed({**CHAT, "usage": CHAT_USAGE})]), LIBRARIES[0], OPENAI, CHAT_REQUEST)
    guess, measure = (dict[str, Any](span.attributes or {}) for span in metered.spans)
    assert guess["tollspan.usage.quality"] == guess["tollspan.cost.quality"] == "estimated"
    assert guess["tollspan.cost.low"] <= guess["gen_ai.usage.cost.amount"] <= guess["tollspan.cost.high"]
    assert "tollspan.usage.quality" not in measure
    assert "tollspan.cost.low" not in measure


def test_unpriced_estimates_stay_unpriced(calls: list[Call]) -> None:
    """A model without a price has no cost, and its estimated usage all the same."""
    post(
        Wire(pieces=[packed({**CHAT, "model": "made-up", "usage": None})]),
        LIBRARIES[0],
        OPENAI,
        {
            **CHAT_REQUEST,
            "model": "made-up",
        },
    )
    (call,) = calls
    assert (call.cost.amount, call.cost.quality, call.usage_quality) == (None, "unpriced", "estimated")
    assert call.usage is not None


def test_other_operations_are_not_estimated(calls: list[Call]) -> None:
    """What is billed by anything but text is not guessed from text."""
    url = "https://api.openai.com/v1/images/generations"
    post(Wire(pieces=[packed({"created": 1, "data": []})]), LIBRARIES[0], url, {"model": "gpt-image-1", "prompt": "x"})
    assert calls[0].usage is None


def test_background_responses_wait_for_their_usage(calls: list[Call]) -> None:
    """A response that runs in the background is billed when it is done, not guessed when it starts."""
    queued = {"id": "resp_made", "object": "response", "status": "queued", "model": "gpt-5-mini", "output": []}
    url = "https://api.openai.com/v1/responses"
    post(
        Wire(pieces=[packed(queued)]), LIBRARIES[0], url, {"model": "gpt-5-mini", "input": "hello", "background": True}
    )
    assert calls[0].usage is None


def test_one_token_metric_each(metered: Metered, calls: list[Call]) -> None:
    """Estimates are counted where measures are: spans, metrics and records agree."""
    leave_after(chat_stream(WORDS), 20, LIBRARIES[0], OPENAI, CHAT_STREAM)
    attributes = metered.attributes
    (spend,) = metered.points("tollspan.spend")
    assert spend.value == pytest.approx(attributes["gen_ai.usage.cost.amount"])
    tokens = sum(point.sum for point in metered.points("gen_ai.client.token.usage"))
    assert tokens == attributes["gen_ai.usage.input_tokens"] + attributes["gen_ai.usage.output_tokens"]
    assert calls[0].usage_quality == attributes["tollspan.usage.quality"]


def test_no_text_is_kept_after_the_call(instrumented: Callable[..., Metered]) -> None:
    """What was kept of the answer for estimates is gone when the record is made."""
    metered = instrumented(log_calls=True)
    leave_after(chat_stream(WORDS), 20, LIBRARIES[0], OPENAI, CHAT_STREAM)
    assert metered.recorder.open == {}
    assert "word7" not in repr(metered.calls) + repr(metered.attributes)


FIREWORKS = "https://api.fireworks.ai/inference/v1/chat/completions"
COUNTED = {"fireworks-prompt-tokens": "1200", "fireworks-cached-prompt-tokens": "1024"}


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_counts_of_headers_stand_in(calls: list[Call], lib: ModuleType) -> None:
    """Where a provider states the input in its headers, it is exact however early a stream is left."""
    wire = Wire(headers={"content-type": "text/event-stream", **COUNTED}, pieces=chat_stream(WORDS))
    with wire.client(lib) as client, client.stream("POST", FIREWORKS, json=CHAT_STREAM) as response:
        next(response.iter_raw())
    assert calls[0].usage is not None
    assert (calls[0].usage.input, calls[0].usage.cache_read) == (1200, 1024)
    assert calls[0].usage_quality == "floor"


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_counts_of_the_body_come_first(calls: list[Call], lib: ModuleType) -> None:
    """What the body states is not overwritten; what it leaves out is taken from the headers, if they are numbers."""
    plain = {"prompt_tokens": 1100, "completion_tokens": 3, "total_tokens": 1103}
    odd = ({"fireworks-cached-prompt-tokens": said} for said in ("many", "9" * 5000))
    for headers in (COUNTED, *({**COUNTED, **said} for said in odd)):
        wire = Wire(headers={"content-type": "application/json", **headers}, pieces=[packed({**CHAT, "usage": plain})])
        post(wire, lib, FIREWORKS, CHAT_REQUEST)
    assert [call.usage and (call.usage.input, call.usage.cache_read) for call in calls] == [
        (1100, 1024),
        *[(1100, None)] * 2,
    ]


OPEN_AT_THE_END = """
import json, httpx, tollspan
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: f"SPAN {span.name}\\n")))
tollspan.instrument(tracer_provider=provider)
chunk = {"id": "c", "model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {"content": "word "}}]}

class Endless(httpx.SyncByteStream):
    def __iter__(self):
        while True:
            yield b"data: " + json.dumps(chunk).encode() + b"\\n\\n"

def answer(request):
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Endless())

client = httpx.Client(transport=httpx.MockTransport(answer))
request = client.build_request(
    "POST", "https://api.openai.com/v1/chat/completions", json={"model": "gpt-4o-mini", "stream": True, "messages": []}
)
response = client.send(request, stream=True)
next(response.iter_raw())
"""


def test_stream_that_is_open_when_the_process_ends() -> None:
    """It is recorded with spans and metrics alone, too: no ledger or budget is needed for that, and nothing is told."""
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", OPEN_AT_THE_END], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("SPAN chat gpt-4o-mini\n", "")
