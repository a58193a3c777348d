"""Budgets around real calls: the SDKs of OpenAI and Anthropic against a fake provider that keeps books of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import zlib
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import tollspan
from tests.conftest import Metered
from tollspan.budget.stores.opening import store_of
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.ledger.conditions import Where
from tollspan.ledger.queries import Ledger
from tollspan.model.errors import SettingsError
from tollspan.model.money import usd
from tollspan.settings import load
from tollspan.telemetry import names

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator
    from pathlib import Path

    from examples.fake_provider import FakeProvider

GPT, CLAUDE = "gpt-4o-mini", "claude-haiku-4-5"
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
TINY = "0.00001 USD"


@pytest.fixture
def gpt(fake: FakeProvider) -> Iterator[openai.OpenAI]:
    """Return OpenAI's client, which talks to the fake provider."""
    with openai.OpenAI(base_url=fake.base_url("openai"), api_key="any") as client:
        yield client


@pytest.fixture
def claude(fake: FakeProvider) -> Iterator[anthropic.Anthropic]:
    """Return Anthropic's client, which talks to the fake provider."""
    with anthropic.Anthropic(base_url=fake.base_url("anthropic"), api_key="any") as client:
        yield client


def chat(client: openai.OpenAI, **more: Any) -> Any:
    """Make one chat completion."""
    return client.chat.completions.create(**{"model": GPT, "max_tokens": 100, "messages": HELLO, **more})


def message(client: anthropic.Anthropic, **more: Any) -> Any:
    """Make one message."""
    return client.messages.create(**{"model": CLAUDE, "max_tokens": 100, "messages": HELLO, **more})


def word(content: str) -> bytes:
    """Make one event of a stream."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    event = {"id": "c", "object": "chat.completion.chunk", "model": GPT, "choices": [choice]}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def streaming(*events: bytes, **headers: str) -> httpx.MockTransport:
    """Answer each request with a stream of these events, each a piece, and its end."""

    def answer(_: httpx.Request) -> httpx.Response:
        pieces = (*events, b"data: [DONE]\n\n")
        return httpx.Response(200, headers={"content-type": "text/event-stream", **headers}, content=iter(pieces))

    return httpx.MockTransport(answer)


def asking(client: httpx.Client, **more: Any) -> httpx.Request:
    """Ask OpenAI for a stream."""
    body = {"model": GPT, "messages": HELLO, "stream": True, **more}
    return client.build_request("POST", "https://api.openai.com/v1/chat/completions", json=body)


def test_block_openai(instrumented: Callable[..., Metered], fake: FakeProvider, hosts: str, gpt: openai.OpenAI) -> None:
    """A blocked call is an APIStatusError with status 402 at once: no bytes leave, and there is no retry."""
    metered = instrumented(hosts=hosts, budget=f"{TINY}/day", budget_hard=True)
    with pytest.raises(openai.APIStatusError) as caught:
        chat(gpt)
    assert caught.value.status_code == 402
    assert caught.value.code == "budget_exceeded"
    assert (
        'Budget "0.00001 USD/day" refused this call: $0.0000 of $0.00001 is left, and the call may cost up to $0.00'
        in str(caught.value)
    )
    assert "; it renews at 20" in str(caught.value)
    assert "reset" not in str(caught.value)  # it would not help: the call does not fit into the whole limit
    assert int(caught.value.response.headers["retry-after"]) <= 86_400
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert fake.tally()["attempts"] == 0
    span = metered.span
    assert span.attributes is not None
    assert span.attributes["error.type"] == "budget_exceeded"
    assert span.attributes[names.OUTCOME] == "denied"
    assert names.COST_AMOUNT not in span.attributes
    (point,) = metered.points("tollspan.budget.denied")
    assert (point.value, point.attributes[names.BUDGET]) == (1, "0.00001 USD/day")


def test_block_anthropic(
    instrumented: Callable[..., Metered], fake: FakeProvider, hosts: str, claude: anthropic.Anthropic
) -> None:
    """Anthropic's client raises its own error for a status of 402."""
    instrumented(hosts=hosts, budget=TINY, budget_hard=True)
    with pytest.raises(anthropic.APIStatusError) as caught:
        message(claude)
    assert caught.value.status_code == 402
    assert type(caught.value).__name__ in {"PaymentRequiredError", "APIStatusError"}  # the latter before it had its own
    assert caught.value.body["error"]["type"] == "billing_error"  # type: ignore[index]
    assert fake.tally()["attempts"] == 0


def test_block_async(instrumented: Callable[..., Metered], fake: FakeProvider, hosts: str) -> None:
    """An async call is refused in the same way, plain and streamed."""
    instrumented(hosts=hosts, budget=TINY, budget_hard=True)

    async def ask(*, stream: bool) -> None:
        async with openai.AsyncOpenAI(base_url=fake.base_url("openai"), api_key="any") as client:
            await client.chat.completions.create(model=GPT, max_tokens=100, messages=HELLO, stream=stream)

    for stream in (False, True):
        with pytest.raises(openai.APIStatusError):
            asyncio.run(ask(stream=stream))
    assert fake.tally()["attempts"] == 0


def test_reply(
    instrumented: Callable[..., Metered],
    fake: FakeProvider,
    hosts: str,
    gpt: openai.OpenAI,
    claude: anthropic.Anthropic,
) -> None:
    """A budget that replies gives a normal answer in each format, plain and streamed, with zero usage."""
    metered = instrumented(
        hosts=hosts, budget=[{"limit": TINY, "hard": True, "on_exceed": "reply", "message": "no money: {name}"}]
    )
    text = "no money: 0.00001 USD/run"
    answer = chat(gpt)
    assert answer.choices[0].message.content == text
    assert answer.usage.total_tokens == 0
    chunks = list(chat(gpt, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert chunks[-1].usage.total_tokens == 0
    assert gpt.responses.create(model=GPT, input="hello", max_output_tokens=100).output_text == text
    with gpt.responses.stream(model=GPT, input="hello", max_output_tokens=100) as events:
        events.until_done()
        assert events.get_final_response().output_text == text
    assert message(claude).content[0].text == text
    with claude.messages.stream(model=CLAUDE, max_tokens=100, messages=HELLO) as stream:
        final = stream.get_final_message()
    assert (final.content[0].text, final.stop_reason, final.usage.output_tokens) == (text, "end_turn", 0)  # type: ignore[union-attr]
    assert fake.tally()["attempts"] == 0
    assert {span.attributes[names.OUTCOME] for span in metered.spans if span.attributes} == {"denied"}


def test_raise(
    instrumented: Callable[..., Metered],
    fake: FakeProvider,
    hosts: str,
    gpt: openai.OpenAI,
    claude: anthropic.Anthropic,
) -> None:
    """A budget that raises is not caught, wrapped or tried again by any SDK."""
    metered = instrumented(hosts=hosts, budget=[{"name": "mine", "limit": TINY, "hard": True, "on_exceed": "raise"}])
    asks: list[Callable[[], Any]] = [lambda: chat(gpt), lambda: message(claude), lambda: chat(gpt, stream=True)]
    for ask in asks:
        with pytest.raises(tollspan.BudgetExceeded) as caught:
            ask()
        assert caught.value.budget == "mine"
    assert len(metered.spans) == 3
    assert fake.tally()["attempts"] == 0


def test_spent_is_the_counters_sum(
    instrumented: Callable[..., Metered],
    fake: FakeProvider,
    hosts: str,
    gpt: openai.OpenAI,
    claude: anthropic.Anthropic,
) -> None:
    """Budget, counter and the provider's own books agree to the last digit, over plain, streamed and failed calls."""
    metered = instrumented(hosts=hosts, budget="5 USD/day, 1000 calls, 100000 tokens")
    for _ in range(3):
        chat(gpt)
        list(chat(gpt, stream=True, stream_options={"include_usage": True}))
        message(claude)
    fake.fail_next(500, times=1)
    chat(gpt)
    tally = fake.tally()
    status = {item.unit: item for item in tollspan.budget.status()}
    assert status["usd"].spent == Decimal(tally["spend_usd"]) == usd(metered.recorder.accumulator.spend)
    assert status["usd"].uncertain == 0
    assert status["usd"].reserved == status["tokens"].reserved == 0
    assert status["calls"].spent == tally["attempts"] == 11
    assert status["tokens"].spent == sum(row["input"] + row["output"] for row in tally["by"])
    assert sum(point.value for point in metered.points("tollspan.spend")) == pytest.approx(float(tally["spend_usd"]))
    (spent,) = [p for p in metered.points("tollspan.budget.spent") if p.attributes[names.BUDGET_UNIT] == "usd"]
    assert spent.value == pytest.approx(float(tally["spend_usd"]))


def test_outcome_unknown_is_charged_its_reservation(
    instrumented: Callable[..., Metered], fake: FakeProvider, hosts: str, gpt: openai.OpenAI
) -> None:
    """A call that timed out may have been billed: a hard budget charges its reservation, shown as uncertain."""
    instrumented(hosts=hosts, budget="5 USD/day", budget_hard=True)
    fake.fail_next(kind="hang")
    with pytest.raises(openai.APITimeoutError):
        chat(gpt.with_options(max_retries=0, timeout=0.2))
    (status,) = tollspan.budget.status()
    assert status.reserved == 0
    assert status.spent >= Decimal("0.00006")  # 100 output tokens
    assert 0 < status.uncertain <= status.spent


def test_never_sent_is_free(instrumented: Callable[..., Metered]) -> None:
    """A call whose connection was refused frees its reservation."""
    instrumented(budget="5 USD/day, 10 calls", hosts="127.0.0.1:9/openai=openai")
    with (
        openai.OpenAI(base_url="http://127.0.0.1:9/openai/v1", api_key="any", max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        chat(client)
    assert [(item.spent, item.reserved) for item in tollspan.budget.status()] == [(0, 0), (0, 0)]


def test_unpriced_model(instrumented: Callable[..., Metered], hosts: str, gpt: openai.OpenAI) -> None:
    """A model without a price is refused, or let through, or priced as assumed, as the budget says."""
    instrumented(hosts=hosts, budget=[{"limit": "1 USD"}])
    with pytest.raises(openai.APIStatusError, match="has no price"):
        chat(gpt, model="made-up-model")
    tollspan.uninstrument()
    instrumented(hosts=hosts, budget=[{"limit": "1 USD", "unpriced": "allow"}])
    chat(gpt, model="made-up-model")
    assert [item.spent for item in tollspan.budget.status()] == [0]
    tollspan.uninstrument()
    instrumented(hosts=hosts, budget=[{"limit": "1 USD", "unpriced": {"input": "0", "output": "10"}}])
    answer = chat(gpt, model="made-up-model")
    (status,) = tollspan.budget.status()
    assert status.spent == answer.usage.completion_tokens * Decimal("0.00001")


def test_blocks_nest(instrumented: Callable[..., Metered], fake: FakeProvider, hosts: str, gpt: openai.OpenAI) -> None:
    """A child block never gets more than its parent has left, and what it spends counts in both."""
    instrumented(hosts=hosts)
    with tollspan.budget("2 calls", on_exceed="raise") as outer:
        chat(gpt)
        with tollspan.budget("5 calls", on_exceed="raise") as inner:
            chat(gpt)
            with pytest.raises(tollspan.BudgetExceeded) as caught:
                chat(gpt)
        assert caught.value.budget == "2 calls"
        assert (inner.spent, outer.spent, outer.remaining(), outer.exhausted()) == (1, 2, 0, True)
        assert outer.tree() == "2 calls: 2 of 2 spent\n  5 calls: 1 of 5 spent"
    chat(gpt)
    assert tollspan.budget.remaining() is None
    assert fake.tally()["attempts"] == 3


def test_block_without_instrument_is_an_error() -> None:
    """A block that could limit nothing says so."""
    with pytest.raises(tollspan.TollspanError, match="instrument"), tollspan.budget("1 USD"):
        pass


def test_loop_guard(instrumented: Callable[..., Metered], fake: FakeProvider, hosts: str, gpt: openai.OpenAI) -> None:
    """The same request body passes only so often; an SDK's own retry of it does not count."""
    instrumented(hosts=hosts, budget="2 identical calls")
    fake.fail_next(500, times=1)
    chat(gpt)
    chat(gpt)
    with pytest.raises(openai.APIStatusError, match="2 of 2 identical calls"):
        chat(gpt)
    chat(gpt, messages=[{"role": "user", "content": "something else"}])
    assert fake.tally()["attempts"] == 4


def test_per_user(instrumented: Callable[..., Metered], hosts: str, gpt: openai.OpenAI) -> None:
    """Each user has a counter of their own; a call without a user is shared, refused or skipped."""
    table = {"name": "each", "limit": "1 call", "per": ["user"]}
    for unset, passes in (("shared", 1), ("deny", 0), ("skip", 3)):
        instrumented(hosts=hosts, budget=[{**table, "unset": unset}])
        for user in ("alice", "bob/../alice"):
            with tollspan.attribution(user=user):
                chat(gpt)
                with pytest.raises(openai.APIStatusError):
                    chat(gpt)
        passed = 0
        for _ in range(3):
            try:
                chat(gpt)
                passed += 1
            except openai.APIStatusError:
                pass
        assert passed == passes, unset
        tollspan.uninstrument()


def test_garbled_setting_refuses_every_call(
    instrumented: Callable[..., Metered],
    fake: FakeProvider,
    hosts: str,
    gpt: openai.OpenAI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An invalid budget lifts no limit: each call is refused with the reason."""
    monkeypatch.setenv("TOLLSPAN_BUDGET", "5 EUR/day")
    instrumented(hosts=hosts)
    with pytest.raises(openai.APIStatusError, match="5 EUR"):
        chat(gpt)
    assert fake.tally()["attempts"] == 0
    tollspan.uninstrument()
    with pytest.raises(tollspan.SettingsError):
        instrumented(hosts=hosts, budget="nonsense")


BAD_STORES = [
    "redis://127.0.0.1:6399/0?nope=1",
    "redis://127.0.0.1:notaport",
    "valkey://127.0.0.1:x",
    "redis://127.0.0.1?socket_timeout=abc",
    "redis://127.0.0.1?db=x",
    "redis://[::1",
    "redis",
    "redis:",
    "sqlite:\0",
    "prometheus:http://[::1",
    "prometheus:http://h:x",
    "mysql:",
]


@pytest.mark.parametrize("store", BAD_STORES)
def test_store_that_cannot_be_used_refuses_every_call(
    instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, store: str
) -> None:
    """An invalid store lifts no limit either, and the message says what is expected, without its password."""
    settings = replace(load({}), budget="1 USD/day", budget_store=store)
    monkeypatch.setattr("tollspan.settings.load", lambda **_: settings)
    instrumented()
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
        refused = client.post("https://api.openai.com/v1/chat/completions", json={"model": GPT, "messages": HELLO})
    assert refused.status_code == 402
    assert "expected" in refused.text or "null character" in refused.text
    assert "all calls are refused until this is fixed" in caplog.text
    with pytest.raises(SettingsError):
        store_of(store)


def test_what_nobody_thought_of_refuses_every_call(
    instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever keeps budgets from being set up, no call passes without them."""
    monkeypatch.setenv("TOLLSPAN_BUDGET", "1 USD/day")
    monkeypatch.setattr("tollspan.setup.guards.store_of", lambda *_: 1 / 0)
    instrumented()
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
        refused = client.post("https://api.openai.com/v1/chat/completions", json={"model": GPT, "messages": HELLO})
    assert (refused.status_code, "ZeroDivisionError" in refused.text) == (402, True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_check_that_does_not_end_leaves_nothing_reserved(
    instrumented: Callable[..., Metered],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: type[BaseException],
) -> None:
    """A signal's handler that raises, or a counter that cannot be read, while a store is asked: nothing is left."""
    metered = instrumented(budget="1 USD/total", budget_store=f"sqlite:{tmp_path / 'budgets.sqlite'}")
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"model": GPT, "choices": [], "usage": {}})

    reserve = SqliteStore.reserve

    def interrupted(*arguments: Any) -> None:
        reserve(*arguments)
        raise error

    monkeypatch.setattr(SqliteStore, "reserve", interrupted)
    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
        contextlib.suppress(KeyboardInterrupt),
        tollspan.budget("2 USD") as block,
    ):
        client.post("https://api.openai.com/v1/chat/completions", json={"model": GPT, "messages": HELLO})
    guard = metered.recorder.guard
    assert guard is not None
    assert not sent
    assert not metered.recorder.open
    assert len(metered.spans) == 1
    assert [counter.reserved for counter in guard.store.counters(time.time())] == [0]
    assert [counter.reserved for counter in guard.local.counters(time.time())] in ([], [0])
    assert block.spent == 0


@pytest.mark.parametrize("kind", ["chat", "responses", "messages"])
def test_cut(
    instrumented: Callable[..., Metered],
    hosts: str,
    gpt: openai.OpenAI,
    claude: anthropic.Anthropic,
    kind: str,
) -> None:
    """A stream that uses its budget up ends cleanly, in the provider's own way, with the finish reason for length."""
    metered = instrumented(hosts=hosts, budget=[{"limit": "0.0002 USD", "hard": True, "on_exceed": "cut"}])
    long = {"x-fake": "output=5000"}
    if kind == "chat":
        chunks = list(chat(gpt, stream=True, max_tokens=6000, extra_headers=long))
        assert chunks[-1].choices[0].finish_reason == "length"
        assert 10 < len(chunks) < 1000
    elif kind == "responses":
        with gpt.responses.stream(model=GPT, input="hello", extra_headers=long) as events:
            last = list(events)[-1]
        assert last.type == "response.incomplete"
    else:
        with claude.messages.stream(model=CLAUDE, max_tokens=6000, messages=HELLO, extra_headers=long) as stream:
            assert stream.get_final_message().stop_reason == "max_tokens"
    (status,) = tollspan.budget.status()
    assert status.remaining == 0
    assert metered.attributes["error.type"] == "budget_cut"
    assert metered.attributes[names.FINISH_REASONS] == ("length",)
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)):
        message(claude) if kind == "messages" else chat(gpt)


def test_stream_that_fits_is_not_cut(instrumented: Callable[..., Metered], hosts: str, gpt: openai.OpenAI) -> None:
    """A stream that ends within the budget reaches the application whole."""
    instrumented(hosts=hosts, budget=[{"limit": "1 USD", "on_exceed": "cut"}])
    chunks = list(chat(gpt, stream=True, extra_headers={"x-fake": "output=50, cuts=7"}))
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) == 50


def test_stream_that_may_use_all_it_asks_for_is_not_cut(instrumented: Callable[..., Metered]) -> None:
    """Where the budget has all that a call may cost, no rough count of long words cuts it before its max_tokens."""
    metered = instrumented(budget=[{"limit": "100 USD", "on_exceed": "cut"}])
    with httpx.Client(transport=streaming(*[word(" because")] * 190)) as client:
        text = client.send(asking(client, max_tokens=200), stream=True).read()
    assert text.count(b"because") == 190
    assert metered.attributes[names.OUTCOME] == "ok"


def test_long_text_is_cut(instrumented: Callable[..., Metered]) -> None:
    """Text counts towards what a stream has cost also when it is too long to be kept."""
    metered = instrumented(budget=[{"limit": "0.03 USD", "on_exceed": "cut"}], stream_usage="never")
    with httpx.Client(transport=streaming(*[word("because " * 500)] * 100)) as client:
        text = client.send(asking(client, max_tokens=100_000), stream=True).read()
    assert 15 < text.count(b'"content"') < 90  # 64 KiB are kept, and 0.03 USD are 50,000 tokens
    assert metered.attributes["error.type"] == "budget_cut"


@pytest.mark.parametrize("kind", ["chat", "responses", "messages"])
def test_cut_of_what_is_no_json(instrumented: Callable[..., Metered], kind: str) -> None:
    """Unreadable events reach the application as they came, the stream is not cut, and the failure is reported."""
    url = {
        "chat": "https://api.openai.com/v1/chat/completions",
        "responses": "https://api.openai.com/v1/responses",
        "messages": "https://api.anthropic.com/v1/messages",
    }[kind]
    events = (b'data: {"type": "content_block_start", broken}\n\ndata: {"half', b'": 1}\n\n', word("hello"))
    metered = instrumented(budget=[{"limit": "0.00001 USD", "on_exceed": "cut"}], stream_usage="never")
    model = CLAUDE if kind == "messages" else GPT
    body = {"model": model, "messages": HELLO, "input": "hello", "stream": True, "max_tokens": 1000}
    with httpx.Client(transport=streaming(*events)) as client, client.stream("POST", url, json=body) as response:
        assert response.read() == b"".join(events) + b"data: [DONE]\n\n"
    assert any(kind.startswith("budget:") for kind in metered.recorder.accumulator.errors)


@pytest.mark.parametrize("wire", [{"content-encoding": "gzip"}, {"content-type": "application/json"}])
def test_cut_leaves_alone_what_it_cannot_end(instrumented: Callable[..., Metered], wire: dict[str, str]) -> None:
    """A stream that came compressed all the same, or is none of events, is handed on piece by piece as it came."""
    events = [word("hello")] * 20
    if "content-encoding" in wire:
        packer = zlib.compressobj(wbits=31)
        events = [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for event in events]
    metered = instrumented(budget=[{"limit": "0.00001 USD", "on_exceed": "cut"}], stream_usage="never")
    with httpx.Client(transport=streaming(*events, **wire)) as client:
        response = client.send(asking(client, max_tokens=1000), stream=True)
        assert list(response.iter_raw())[:20] == events
    assert metered.attributes.get("error.type") != "budget_cut"


def test_downgrade(instrumented: Callable[..., Metered], fake: FakeProvider, hosts: str, gpt: openai.OpenAI) -> None:
    """From its share on, a budget asks for the smaller model, and the span says so."""
    rule = {"limit": "0.1 USD", "on_exceed": "downgrade", "downgrade": {"gpt-5.5": GPT}, "downgrade_at": 0.01}
    metered = instrumented(hosts=hosts, budget=[rule])
    models = [chat(gpt, model="gpt-5.5").model for _ in range(4)]
    assert models[0].startswith("gpt-5.5")
    assert models[-1].startswith(GPT)
    attributes = metered.spans[-1].attributes or {}
    assert attributes[names.DOWNGRADED_FROM] == "gpt-5.5"
    assert attributes[names.REQUEST_MODEL] == GPT
    assert [row["asked_as"] for row in fake.tally()["by"]] == [[GPT], ["gpt-5.5"]]


def test_downgrade_leaves_forms_alone(instrumented: Callable[..., Metered]) -> None:
    """An upload is sent as it is: its form is never made a JSON body without the file."""
    rule = {"limit": "1 USD", "on_exceed": "downgrade", "downgrade_at": 1e-9}
    metered = instrumented(budget=[{**rule, "downgrade": {"whisper-1": "gpt-4o-mini-transcribe"}}])
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        sent.append(request)
        return httpx.Response(200, json={"text": "hi", "usage": {"type": "duration", "seconds": 60}})

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        for _ in range(2):
            url = "https://api.openai.com/v1/audio/transcriptions"
            client.post(url, data={"model": "whisper-1"}, files={"file": ("a.wav", b"RIFF sound")})
    assert all(b"RIFF sound" in request.content and b"whisper-1" in request.content for request in sent)
    assert len(sent) == 2
    assert all(names.DOWNGRADED_FROM not in (span.attributes or {}) for span in metered.spans)


def test_downgrade_of_any_text(instrumented: Callable[..., Metered]) -> None:
    """A text with half of a character, as JSON may hold it, does not keep the smaller model from being asked."""
    rule = {"limit": "1 USD", "on_exceed": "downgrade", "downgrade": {"gpt-4o": GPT}, "downgrade_at": 1e-9}
    instrumented(budget=[rule])
    sent: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        return httpx.Response(200, json={"object": "chat.completion", "model": GPT, "choices": [], "usage": usage})

    half = [{"role": "user", "content": "cut emoji \ud83d"}]
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        for _ in range(2):
            body = json.dumps({"model": "gpt-4o", "messages": half, "max_tokens": 5})
            assert client.post("https://api.openai.com/v1/chat/completions", content=body).status_code == 200
    assert [body["model"] for body in sent] == ["gpt-4o", GPT]
    assert sent[-1]["messages"] == half


def test_tool(instrumented: Callable[..., Metered], hosts: str) -> None:
    """A paid tool counts towards the same budgets, has a span of its own, and is refused before it runs."""
    metered = instrumented(hosts=hosts, budget="0.025 USD")
    ran = []

    @tollspan.tool(price="0.01 USD")
    def search(query: str) -> str:
        ran.append(query)
        return query

    assert [search("a"), search("b"), search("c")] == ["a", "b", "c"]
    with pytest.raises(tollspan.BudgetExceeded):
        search("d")
    assert ran == ["a", "b", "c"]
    (status,) = tollspan.budget.status()
    assert (status.spent, usd(metered.recorder.accumulator.spend)) == (Decimal("0.03"), Decimal("0.03"))
    assert [span.name for span in metered.spans] == ["execute_tool search"] * 4
    assert (metered.spans[0].attributes or {})["gen_ai.tool.name"] == "search"


def test_tool_that_is_a_generator(instrumented: Callable[..., Metered]) -> None:
    """A generator is paid when it runs, for as long as it runs; its failure is one, and so is an early end."""
    metered = instrumented(budget="0.025 USD")
    seen: list[Any] = []

    @tollspan.tool(price="0.01 USD")
    def items(*, failing: bool = False) -> Generator[int, str, str]:
        seen.append((yield 1))
        if failing:
            raise ValueError("gone")
        yield 2
        return "done"

    def all_of() -> Generator[int, str, None]:
        seen.append((yield from items()))

    items()  # made, and never run
    assert tollspan.budget.remaining() == Decimal("0.025")
    whole = all_of()
    assert [next(whole), whole.send("sent")] == [1, 2]
    assert list(whole) == []
    assert seen == ["sent", "done"]
    with pytest.raises(ValueError, match="gone"):
        list(items(failing=True))
    left = items()
    next(left)
    left.close()
    with pytest.raises(tollspan.BudgetExceeded):
        next(items())
    outcomes = [(span.attributes or {})[names.OUTCOME] for span in metered.spans]
    assert outcomes == ["ok", "error", "aborted", "denied"]


def test_tool_that_is_an_async_generator(instrumented: Callable[..., Metered]) -> None:
    """The same for an async one: what is sent and thrown into it arrives, and its span lasts as long as it runs."""
    metered = instrumented(budget="1 USD")
    seen: list[Any] = []

    @tollspan.tool(price="0.01 USD")
    async def items() -> AsyncGenerator[int, str]:
        seen.append((yield 1))
        await asyncio.sleep(0.02)
        try:
            yield 2
        except KeyError as error:
            seen.append(type(error))
            yield 3

    async def run() -> None:
        items()  # made, and never run
        whole = items()
        assert [await anext(whole), await whole.asend("sent"), await whole.athrow(KeyError())] == [1, 2, 3]
        assert [item async for item in whole] == []
        left = items()
        assert await anext(left) == 1
        await left.aclose()
        failing = items()
        await anext(failing)
        with pytest.raises(ZeroDivisionError):
            await failing.athrow(ZeroDivisionError())

    asyncio.run(run())
    assert seen == ["sent", KeyError]
    outcomes = [(span.attributes or {})[names.OUTCOME] for span in metered.spans]
    assert outcomes == ["ok", "aborted", "error"]
    first = metered.spans[0]
    assert first.end_time is not None
    assert first.start_time is not None
    assert first.end_time - first.start_time > 20_000_000
    assert tollspan.budget.remaining() == Decimal("0.97")


@pytest.mark.parametrize("place", ["memory", "sqlite", "behind"])
def test_warnings_are_events(
    instrumented: Callable[..., Metered],
    hosts: str,
    gpt: openai.OpenAI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    """A warning is an event on the span of the call that passed the share; below it, where that has ended already."""
    if place == "behind":
        monkeypatch.setattr(SqliteStore, "remote", True)
    table = {"name": "b", "limit": "2 calls", "warn_at": [0.5, 1.0]}
    metered = instrumented(
        hosts=hosts, budget=[table], budget_store="memory" if place == "memory" else f"sqlite:{tmp_path}/b.sqlite"
    )
    chat(gpt)
    chat(gpt)
    assert tollspan.budget.exhausted()
    events = sorted(
        ((span, event) for span in metered.spans for event in span.events), key=lambda pair: pair[1].timestamp
    )
    assert [event.name for _, event in events] == ["tollspan.budget.threshold"] * 2
    assert [dict(event.attributes or {}) for _, event in events] == [
        {
            names.BUDGET: "b",
            names.BUDGET_COUNTER: f"b/run/run={metered.recorder.settings.run_id}",
            names.BUDGET_UNIT: "calls",
            names.BUDGET_SHARE: share,
            names.BUDGET_SPENT: spent,
            names.BUDGET_LIMIT: 2,
        }
        for share, spent in ((0.5, 1), (1.0, 2))
    ]
    calls = [span for span in metered.spans if span.attributes and names.PROVIDER in span.attributes]
    assert len(calls) == 2
    for (span, _), call in zip(events, calls, strict=True):
        if place != "behind" or span.parent is None:  # a thread that is behind may come in time all the same
            assert span is call
        else:
            assert span.parent.span_id == call.context.span_id


def test_denial_that_no_sampler_keeps(
    fake: FakeProvider, hosts: str, gpt: openai.OpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every span is sampled away, a denial is counted all the same, and is a row of the ledger: who and why."""
    monkeypatch.setenv("TOLLSPAN_BUDGET", "1 call/run")
    reader = InMemoryMetricReader()
    meters = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    tracers = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    path = tmp_path / "ledger.db"
    tollspan.instrument(tracer_provider=tracers, meter_provider=meters, hosts=hosts, ledger=str(path))
    try:
        metered = Metered(InMemorySpanExporter(), reader, tracers, meters)
        chat(gpt)
        with tollspan.attribution(user="alice"), pytest.raises(openai.APIStatusError):
            chat(gpt)
        (denied,) = metered.points("tollspan.budget.denied")
        assert (denied.value, denied.attributes[names.BUDGET_REASON]) == (1, "exhausted")
        assert tollspan.flush()
        with Ledger(path) as ledger:
            (row,) = [kept.call for kept in ledger.calls(Where(), 10) if kept.call.outcome == "denied"]
        assert (row.error_type, row.attribution["user"], row.cost.amount) == ("budget_exceeded", "alice", 0)
    finally:
        tollspan.uninstrument()
    assert fake.tally()["attempts"] == 1


def test_status_line_to_the_letter(instrumented: Callable[..., Metered]) -> None:
    """The status line is what scripts and prompts are made to show."""
    instrumented()
    for _ in range(14):
        tollspan.record("gpt-4o-mini", provider="openai", cost_usd="0.0085")
    assert tollspan.budget.line() == "[Cost: $0.12 | 14 calls]"
    tollspan.uninstrument()
    instrumented(budget="0.50 USD, 100 USD/day, 9000 calls")
    tollspan.record("gpt-4o-mini", provider="openai", cost_usd="0.12")
    assert tollspan.budget.line() == "[Cost: $0.12 (24%) OK]"
    for spent, line in (("0.1299", "49%) OK]"), ("0.0001", "50%) WARN]"), ("0.1999", "89%) WARN]"), ("1", "%) HIGH]")):
        tollspan.record("gpt-4o-mini", provider="openai", cost_usd=spent)
        assert tollspan.budget.line().endswith(line)
    assert tollspan.budget.remaining() == 0
    tollspan.uninstrument()
    instrumented(budget="0 USD")
    assert tollspan.budget.exhausted()


def test_status_line(instrumented: Callable[..., Metered], hosts: str, gpt: openai.OpenAI) -> None:
    """The status line shows the fullest budget; without one, what was spent and how often."""
    assert tollspan.budget.line() == "[Cost: —]"
    instrumented(hosts=hosts)
    assert tollspan.budget.line() == "[Cost: —]"
    chat(gpt)
    assert tollspan.budget.line() == "[Cost: $0.00 | 1 call]"
    tollspan.uninstrument()
    instrumented(hosts=hosts, budget="1 USD, 0.04 USD/day")

    @tollspan.tool(price="0.02 USD")
    def half() -> None:
        """Cost half of a budget."""

    half()
    assert tollspan.budget.line() == "[Cost: $0.02 (50%) WARN]"
    half()
    assert tollspan.budget.line() == "[Cost: $0.04 (100%) HIGH]"
    assert tollspan.budget.exhausted()
    assert tollspan.budget.remaining() == 0
    assert tollspan.budget.remaining("1 USD") == Decimal("0.96")
    assert not tollspan.budget.exhausted("1 USD")


@pytest.mark.parametrize("lib", [httpx, httpx2])
@pytest.mark.parametrize("on_exceed", ["block", "reply"])
def test_answers_can_be_read_in_every_way(
    instrumented: Callable[..., Metered], hosts: str, fake: FakeProvider, lib: Any, on_exceed: str
) -> None:
    """What a refused call gets can be read raw, decoded or whole, streamed or not, sync or async, like any response."""
    instrumented(hosts=hosts, budget=[{"limit": TINY, "hard": True, "on_exceed": on_exceed}])
    url = f"{fake.base_url('openai')}/chat/completions"
    body = {"model": GPT, "max_tokens": 100, "messages": HELLO}
    status = {"block": 402, "reply": 200}[on_exceed]
    with lib.Client() as client:
        whole = client.post(url, json=body)
        assert (whole.status_code, whole.is_closed, whole.request.url) == (status, True, url)
        assert whole.elapsed.total_seconds() == 0
        for read in ("iter_raw", "iter_bytes", "iter_lines"):
            with client.stream("POST", url, json=body) as response:
                assert len(list(getattr(response, read)())) >= 1
                assert response.status_code == status
        with client.stream("POST", url, json=body) as response:
            assert response.read()
    asyncio.run(_read_async(lib, url, body, status))


async def _read_async(lib: Any, url: str, body: Any, status: int) -> None:
    async with lib.AsyncClient() as client:
        assert (await client.post(url, json=body)).status_code == status
        for read in ("aiter_raw", "aiter_bytes", "aiter_lines"):
            async with client.stream("POST", url, json=body) as response:
                assert [piece async for piece in getattr(response, read)()]
        async with client.stream("POST", url, json=body) as response:
            assert await response.aread()
