"""Attempts, retries, threads, tasks and forks: one record each, and the sums are exact."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import openai
import pytest

import tollspan
from tests.capture.mock_wires import (
    CHAT,
    CHAT_REQUEST,
    LIBRARIES,
    OPENAI,
    Wire,
    chat_stream,
    packed,
    post,
    sse,
)
from tests.forked_children import forks
from tollspan.model.money import usd

if TYPE_CHECKING:
    from collections.abc import Callable

    from examples.fake_provider import FakeProvider
    from tests.conftest import Metered

STREAM_REQUEST = {**CHAT_REQUEST, "stream": True, "stream_options": {"include_usage": True}}


def hosts(fake: FakeProvider) -> list[str]:
    """Return the setting that makes the fake count as OpenAI and Anthropic."""
    return [f"{fake.netloc}/{name}={name}" for name in ("openai", "anthropic")]


@pytest.fixture
def at_fake(instrumented: Callable[..., Metered], fake: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> Metered:
    """Instrument with the fake provider counting as OpenAI and Anthropic."""
    monkeypatch.setenv("TOLLSPAN_HOSTS", ", ".join(hosts(fake)))
    return instrumented()


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_openai_retry_is_an_attempt_of_its_own(at_fake: Metered, fake: FakeProvider, streamed: bool) -> None:
    """The SDK's retry of a 429 is a second span that names and links the first, and only it has a cost."""
    fake.fail_next(status=429, times=1, headers={"retry-after-ms": "1"})
    with openai.OpenAI(base_url=fake.base_url("openai"), api_key="any") as client:
        messages: Any = [{"role": "user", "content": "hello"}]
        create = client.chat.completions.create
        if streamed:
            list(create(model="gpt-4o-mini", messages=messages, stream=True, stream_options={"include_usage": True}))
        else:
            create(model="gpt-4o-mini", messages=messages)
    first, second = at_fake.spans
    a, b = first.attributes or {}, second.attributes or {}
    assert a["http.response.status_code"] == 429
    assert "http.request.resend_count" not in a
    assert b["http.request.resend_count"] == 1
    assert a["tollspan.operation.id"] == b["tollspan.operation.id"] == a["tollspan.call.id"]
    assert [link.context for link in second.links] == [first.context]
    assert "gen_ai.usage.cost.amount" not in a
    assert "gen_ai.usage.cost.amount" in b


def test_anthropic_retry_is_an_attempt_of_its_own(at_fake: Metered, fake: FakeProvider) -> None:
    """The same holds for the Anthropic SDK, async."""
    fake.fail_next(status=529, times=2, headers={"retry-after-ms": "1"})

    async def run() -> None:
        async with anthropic.AsyncAnthropic(base_url=fake.base_url("anthropic"), api_key="any") as client:
            await client.messages.create(
                model="claude-haiku-4-5", max_tokens=50, messages=[{"role": "user", "content": "hello"}]
            )

    asyncio.run(run())
    counts = [span.attributes.get("http.request.resend_count") for span in ours(at_fake)]
    assert counts == [None, 1, 2]
    assert len({span.attributes["tollspan.operation.id"] for span in ours(at_fake)}) == 1


def ours(metered: Metered) -> list[Any]:
    """Return the spans that tollspan made (the Anthropic SDK makes some itself)."""
    return [s for s in metered.spans if s.instrumentation_scope and s.instrumentation_scope.name == "tollspan"]


def test_hand_made_retry_is_known_by_its_request(metered: Metered) -> None:
    """The same request after a failure in the same task is a retry, also without an SDK that says so."""
    lib = LIBRARIES[1]
    post(Wire(status=503, pieces=[b"{}"]), lib, OPENAI, CHAT_REQUEST)
    post(Wire(pieces=[packed(CHAT)]), lib, OPENAI, CHAT_REQUEST)
    post(Wire(pieces=[packed(CHAT)]), lib, OPENAI, CHAT_REQUEST)
    counts = [(span.attributes or {}).get("http.request.resend_count") for span in metered.spans]
    assert counts == [None, 1, None]


def test_threads_and_tasks_add_up(metered: Metered) -> None:
    """64 threads and 200 tasks at once lose no call and no token."""
    lib = LIBRARIES[1]
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda _: post(Wire(pieces=[packed(CHAT)]), lib, OPENAI, CHAT_REQUEST), range(256)))

    async def one(client: Any) -> None:
        async with client.stream("POST", OPENAI, json=STREAM_REQUEST) as response:
            async for _ in response.aiter_lines():
                await asyncio.sleep(0)

    async def many() -> None:
        async with sse(chat_stream()).async_client(lib) as client:
            await asyncio.gather(*(one(client) for _ in range(200)))

    asyncio.run(many())
    (totals,) = [totals for _, totals in metered.recorder.accumulator.items()]
    assert (totals.calls, totals.input, totals.output) == (456, 456 * 1200, 456 * 345)
    assert usd(totals.spend) * 10**8 == 456 * (176 * 15 + 1024 * 7.5 + 345 * 60)
    assert metered.recorder.open == {}


@forks
def test_forked_child_starts_at_zero(metered: Metered) -> None:
    """A child's counters start at zero, and a stream that its parent has open is the parent's to record."""
    lib = LIBRARIES[1]
    post(Wire(pieces=[packed(CHAT)]), lib, OPENAI, CHAT_REQUEST)
    client = sse(chat_stream()).client(lib)
    response = client.send(client.build_request("POST", OPENAI, json=STREAM_REQUEST), stream=True)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        before = metered.recorder.accumulator.calls
        response.close()
        after = metered.recorder.accumulator.calls
        post(Wire(pieces=[packed(CHAT)]), lib, OPENAI, CHAT_REQUEST)
        os.write(write, f"{before} {after} {metered.recorder.accumulator.calls}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"0 0 1"
    os.close(read)
    os.close(write)
    response.read()
    assert metered.recorder.accumulator.calls == 2


def run(code: str, **environment: str) -> str:
    """Run Python code in a process of its own and give what it prints."""
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_libraries_imported_later_are_metered() -> None:
    """`instrument()` imports neither library; whichever the application imports afterwards is wrapped."""
    seen = run("""
        import sys, tollspan
        tollspan.instrument()
        print("httpx" in sys.modules, "httpx2" in sys.modules)
        import httpx, httpx2
        print([hasattr(c.send, "__wrapped__") for lib in (httpx, httpx2) for c in (lib.Client, lib.AsyncClient)])
        print(type(httpx.__spec__.loader).__name__, type(httpx.__loader__).__name__)
    """)
    assert seen.splitlines() == ["False False", "[True, True, True, True]", "SourceFileLoader SourceFileLoader"]


@pytest.mark.skipif(not hasattr(httpx2, "alias_httpx"), reason="this httpx2 is older than its alias")
@pytest.mark.parametrize("first", ["alias", "instrument"])
def test_aliased_httpx_is_wrapped_once(first: str) -> None:
    """With `httpx2.alias_httpx()`, before or after, a call through `httpx` makes one span and not two."""
    steps = ["httpx2.alias_httpx()", "tollspan.instrument()"]
    if first == "instrument":
        steps.reverse()
    seen = run(f"""
        import httpx2, tollspan
        {steps[0]}
        {steps[1]}
        import httpx
        transport = httpx.MockTransport(lambda request: httpx.Response(200, json={{"usage": {{"prompt_tokens": 5}}}}))
        httpx.Client(transport=transport).post("{OPENAI}", json={{"model": "gpt-4o-mini", "messages": []}})
        from tollspan.setup.instrument import current
        print(httpx is httpx2, current().accumulator.calls)
    """)
    assert seen == "True 1"


def test_last_call_is_the_record(metered: Metered) -> None:
    """`last_call()` gives the record of the call that ended last, and None before the first."""
    assert tollspan.last_call() is None
    post(Wire(pieces=[packed(CHAT)]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    call = tollspan.last_call()
    assert call is not None
    assert (call.provider, call.model, call.input_tokens) == ("openai", "gpt-4o-mini-2024-07-18", 1200)
    assert call.call_id == metered.attributes["tollspan.call.id"]
