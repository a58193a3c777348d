"""Where tollspan fails before it has checked the budgets: the call is refused, and without a budget not affected."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import openai
import pytest

import tollspan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from tests.conftest import Metered

URL = "https://api.openai.com/v1/chat/completions"
BODY = {"model": "gpt-4o-mini", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}
CHAT = {"model": "gpt-4o-mini", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 9}}

BROKEN = [
    "tollspan.capture.followed.names_of",
    "tollspan.capture.followed.begin",
    "tollspan.capture.attempt.body_of",
    "tollspan.capture.attempt.repeated_by",
    "tollspan.capture.attempt.Exchange",
    "tollspan.capture.exchange.load",
    "tollspan.capture.exchange.current_attribution",
    "tollspan.capture.attempt.current_scope",
    "tollspan.capture.attempt.remember",
    "tollspan.wire.providers.Directory.find",
]
"""What runs before the budgets are checked."""

BROKEN_CHECKS = [
    "tollspan.capture.budget_gate.budget_request_of",
    "tollspan.capture.budget_gate._result",
    "tollspan.capture.attempt.Attempt.deny",
    "tollspan.budget.guard.hold_all",
]
"""What runs while they are checked."""


def client(lib: ModuleType, sent: list[Any], *, is_async: bool = False) -> Any:
    """Return a client whose requests are listed and answered here."""

    def answer(request: Any) -> Any:
        sent.append(request)
        return lib.Response(200, json=CHAT)

    transport = lib.MockTransport(answer)
    return lib.AsyncClient(transport=transport) if is_async else lib.Client(transport=transport)


def broken(*_: object, **__: object) -> Any:
    """Fail."""
    raise RuntimeError(json.dumps(BODY))


@pytest.mark.parametrize("lib", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("where", BROKEN + BROKEN_CHECKS)
def test_a_failure_refuses_the_call(
    instrumented: Callable[..., Metered],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
    lib: ModuleType,
) -> None:
    """The application gets what a denial is, plain and streamed, sync and async, and nothing is sent."""
    metered = instrumented(budget="0 USD" if where.endswith("deny") else "5 USD")
    sent: list[Any] = []
    monkeypatch.setattr(where, broken)
    with client(lib, sent) as sync:
        plain = sync.post(URL, json=BODY)
        with sync.stream("POST", URL, json=BODY) as streamed:
            text = streamed.read()

    async def call() -> Any:
        async with client(lib, sent, is_async=True) as other:
            return await other.post(URL, json=BODY)

    for response in (plain, streamed, asyncio.run(call())):
        assert (response.status_code, response.headers["x-tollspan-denied"]) == (402, "failure")
        assert response.headers["x-should-retry"] == "false"
    assert "its own check failed (RuntimeError)" in json.loads(text)["error"]["message"]
    assert not sent
    assert not metered.recorder.open
    assert "the call was refused, because a call that cannot be checked is not sent" in caplog.text
    assert "hello" not in caplog.text


@pytest.mark.parametrize("where", BROKEN)
@pytest.mark.parametrize("inside", [False, True], ids=["no budget", "a block that is over"])
def test_without_a_budget_nothing_is_affected(
    instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch, where: str, *, inside: bool
) -> None:
    """Where there is no limit, the call goes out as it is; a failure is counted."""
    metered = instrumented()
    if inside:
        with tollspan.budget("5 USD"):
            pass
    sent: list[Any] = []
    monkeypatch.setattr(where, broken)
    with client(httpx, sent) as sync:
        assert sync.post(URL, json=BODY).json() == CHAT
    assert len(sent) == 1
    assert any(name.endswith("RuntimeError") for name in metered.recorder.accumulator.errors)


def test_a_block_is_a_budget(instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a block a call that cannot be checked is refused, in the SDK's own way and without retries."""
    instrumented()
    sent: list[Any] = []
    monkeypatch.setattr("tollspan.capture.followed.begin", broken)
    sdk = openai.OpenAI(api_key="any", http_client=client(httpx, sent))
    with tollspan.budget("5 USD"), pytest.raises(openai.APIStatusError, match="its own check failed") as caught:
        sdk.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hello"}])
    assert caught.value.status_code == 402
    assert not sent


def test_what_costs_nothing_is_not_refused(
    instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of models is read also where we fail."""
    instrumented(budget="5 USD")
    sent: list[Any] = []
    monkeypatch.setattr("tollspan.capture.followed.is_of_a_batch", broken)
    with client(httpx, sent) as sync:
        assert sync.get("https://api.openai.com/v1/models").status_code == 200


@pytest.mark.parametrize("where", ["tollspan.capture.recorder.Recorder.ensure_span_processor"])
def test_telemetry_that_fails_refuses_nothing(
    instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Budgets do not depend on what spans need."""
    instrumented(budget="1 call")
    sent: list[Any] = []
    monkeypatch.setattr(where, broken)
    with client(httpx, sent) as sync:
        assert [sync.post(URL, json=BODY).status_code for _ in range(2)] == [200, 402]


@pytest.mark.parametrize(
    "where",
    [
        "tollspan.setup.ledger.start",
        "tollspan.setup.events.start",
        "tollspan.setup.instrument._start_reports",
        "tollspan.budget.instruments.observe",
        "tollspan.capture.recorder.Recorder.ensure_span_processor",
    ],
)
def test_budgets_hold_whatever_else_fails_to_start(
    instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A launcher goes on if instrumenting fails; the budgets hold all the same."""
    with monkeypatch.context() as patch:
        patch.setenv("TOLLSPAN_BUDGET", "0 USD")
        patch.setattr(where, broken)
        with contextlib.suppress(RuntimeError):
            instrumented()
    sent: list[Any] = []
    with client(httpx, sent) as sync:
        assert sync.post(URL, json=BODY).status_code == 402
    assert not sent


def test_a_client_that_cannot_be_hooked(instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its requests are refused if there is a budget; a budget that comes later says that it would not hold."""
    monkeypatch.setattr("tollspan.hooks.httpx.wrap", broken)
    before = httpx.Client.send
    sent: list[Any] = []
    instrumented(budget="5 USD")
    with client(httpx, sent) as sync, pytest.raises(tollspan.BudgetExceeded, match="cannot meter httpx"):
        sync.post(URL, json=BODY)
    tollspan.uninstrument()
    assert httpx.Client.send is before
    instrumented()
    with client(httpx, sent) as sync:
        assert sync.post(URL, json=BODY).status_code == 200
    with pytest.raises(tollspan.TollspanError, match="no budget holds"), tollspan.budget("5 USD"):
        pass
    with pytest.raises(tollspan.TollspanError, match="no budget holds"):
        tollspan.instrument(budget="5 USD")
    assert len(sent) == 1


AT_THE_END = """
import atexit, gc, os, sys, threading, time

def call():
    os.write(1, f"{client.post(URL, json=BODY).status_code} ".encode())

class Last:
    def __del__(self):
        call()

when = sys.argv[1]
if when == "atexit after ours":
    atexit.register(call)
import httpx, tollspan
URL, BODY, CHAT = eval(sys.argv[4])
tollspan.instrument(budget=sys.argv[2], budget_store=sys.argv[3], ledger="calls.db")
client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, json=CHAT)))
if when == "atexit before ours":
    atexit.register(call)
elif when == "finalizer":
    last = Last()
elif when == "cycle":
    last = Last()
    last.cycle = last
    gc.disable()
elif when == "thread":
    threading.Thread(target=lambda: (time.sleep(0.2), call())).start()
"""


@pytest.mark.parametrize("store", ["memory", "sqlite:b.db"])
@pytest.mark.parametrize("when", ["atexit before ours", "atexit after ours", "finalizer", "cycle", "thread"])
def test_calls_at_the_end_of_the_interpreter(tmp_path: Path, when: str, store: str) -> None:
    """A call that is made while the interpreter ends is refused by a budget like any other."""
    command = [sys.executable, "-c", AT_THE_END, when, "0 USD", store, repr((URL, BODY, CHAT))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60)  # noqa: S603
    assert done.stdout.split() == ["402"], done.stderr
