"""A request that another client in the same process sends on is one call: the attempt that left the process counts."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

import tollspan
from tests.capture.mock_wires import (
    CHAT,
    CHAT_COST,
    CHAT_REQUEST,
    LIBRARIES,
    MESSAGE,
    OPENAI,
    Wire,
    chat_stream,
    packed,
    post,
    sse,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tests.conftest import Metered

every_library = pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
LOCAL = "http://testserver/v1/chat/completions"
AMOUNT = "gen_ai.usage.cost.amount"


def through(lib: ModuleType, handle: Callable[[Any], Any]) -> Any:
    """Return a client whose transport is that function."""

    class Transport(lib.BaseTransport):  # type: ignore[misc, name-defined]
        def handle_request(self, request: Any) -> Any:
            return handle(request)

    return lib.Client(transport=Transport())


def counted(metered: Metered) -> tuple[int, int]:
    """Return the calls and their input tokens."""
    totals = [sums for _, sums in metered.recorder.accumulator.items()]
    return sum(sums.calls for sums in totals), sum(sums.input for sums in totals)


def priced(metered: Metered) -> list[str]:
    """Return the names of the spans that have a cost."""
    return [span.name for span in metered.spans if AMOUNT in (span.attributes or {})]


@every_library
@pytest.mark.parametrize("streamed", [False, True])
def test_a_transport_with_a_client_of_its_own(metered: Metered, lib: ModuleType, streamed: bool) -> None:
    """What a transport sends on as it is, plain or streamed, is counted and priced once, and has one inference span."""
    wire = sse(chat_stream()) if streamed else Wire(pieces=[packed(CHAT)])
    inner = wire.client(lib)
    with through(lib, lambda request: inner.send(request, stream=True)) as client:
        body = {**CHAT_REQUEST, "stream": streamed, "stream_options": {"include_usage": True}}
        with client.stream("POST", OPENAI, json=body) as response:
            assert b"".join(response.iter_raw()) == b"".join(wire.pieces)
    assert counted(metered) == (1, 1200)
    assert priced(metered) == ["chat gpt-4o-mini"]
    operations = [(span.attributes or {})["gen_ai.operation.name"] for span in metered.spans]
    assert sorted(map(str, operations)) == ["chat", "forward"]
    assert len(metered.calls) == 1
    assert metered.errors() == {}


@every_library
def test_a_proxy_in_the_process(metered: Metered, lib: ModuleType) -> None:
    """An ASGI application that asks the provider under its own key, in another format, is the one that is counted."""
    wire = Wire(pieces=[packed({**MESSAGE, "usage": {"input_tokens": 1200, "output_tokens": 345}})])

    async def application(_: Any, receive: Any, send: Any) -> None:
        asked = json.loads((await receive())["body"])
        async with wire.async_client(lib) as upstream:
            url = "https://api.anthropic.com/v1/messages"
            await upstream.post(url, json={**asked, "model": "claude-haiku-4-5", "max_tokens": 50})
        usage = {"prompt_tokens": 1200, "completion_tokens": 345, "total_tokens": 1545}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": packed({**CHAT, "id": "of-the-proxy", "usage": usage})})

    async def ask() -> None:
        async with lib.AsyncClient(transport=lib.ASGITransport(application)) as client:
            await client.post(LOCAL, json=CHAT_REQUEST)

    asyncio.run(ask())
    (call,) = metered.calls
    assert (call.provider, call.response_model) == ("anthropic", "claude-haiku-4-5-20251001")
    assert counted(metered) == (1, 1200)
    assert priced(metered) == ["chat claude-haiku-4-5"]


@every_library
def test_what_is_sent_beside_it_is_a_call_too(metered: Metered, lib: ModuleType) -> None:
    """A transport that asks a judge first, and then the provider, makes two calls."""
    usage = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
    judge = Wire(pieces=[packed({**CHAT, "id": "chatcmpl-judge", "usage": usage})])

    def handle(_: Any) -> Any:
        post(judge, lib, OPENAI, {**CHAT_REQUEST, "messages": [{"role": "user", "content": "Is that so?"}]})
        return lib.Response(200, json=CHAT)

    with through(lib, handle) as client:
        client.post(OPENAI, json=CHAT_REQUEST)
    assert counted(metered) == (2, 1207)
    assert len(priced(metered)) == 2


def test_every_attempt_inside_counts(metered: Metered) -> None:
    """What was sent on is sent again after a failure: each attempt is one record, and none is the outer one's."""
    lib = LIBRARIES[1]

    def handle(request: Any) -> Any:
        Wire(status=500, pieces=[b"{}"]).client(lib).send(request)
        return Wire(pieces=[packed(CHAT)]).client(lib).send(request)

    with through(lib, handle) as client:
        client.post(OPENAI, json=CHAT_REQUEST)
    assert [call.outcome for call in metered.calls] == ["error", "ok"]
    assert counted(metered) == (2, 1200)


def test_a_failure_is_counted_once(metered: Metered) -> None:
    """A request that was sent on and came to nothing is one failed call."""
    lib = LIBRARIES[1]
    inner = Wire(error=lib.ConnectError("made")).client(lib)
    with through(lib, inner.send) as client, pytest.raises(lib.ConnectError):
        client.post(OPENAI, json=CHAT_REQUEST)
    assert [call.outcome for call in metered.calls] == ["error"]


def test_later_calls_are_not_inside(metered: Metered) -> None:
    """Calls that follow one another in a task have nothing to do with each other, the same or not."""
    wire = Wire(pieces=[packed(CHAT)])
    for _ in range(3):
        post(wire, LIBRARIES[1], OPENAI, CHAT_REQUEST)
    assert counted(metered) == (3, 3600)
    assert len(priced(metered)) == 3


def test_budgets_are_asked_once(instrumented: Callable[..., Metered]) -> None:
    """A budget for one call lets the one through that is sent on, and charges it once."""
    metered = instrumented(budget="1 call/day")
    lib = LIBRARIES[1]
    inner = Wire(pieces=[packed(CHAT)]).client(lib)
    with through(lib, inner.send) as client:
        assert client.post(OPENAI, json=CHAT_REQUEST).is_success
        assert client.post(OPENAI, json=CHAT_REQUEST).is_error
    (status,) = tollspan.budget.status()
    assert (status.spent, status.reserved) == (1, 0)
    assert metered.recorder.accumulator.spend == pytest.approx(CHAT_COST * 10**18)
