"""Calls that end without usage are charged what they can have used; and real requests are bounded by what they send."""

from __future__ import annotations

import base64
import io
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest

import tollspan
from tests.budget import media_bytes as made
from tollspan.capture.billed_usage import FASTEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

    from tests.conftest import Metered

URL = "https://api.openai.com/v1/chat/completions"
SPEECH_URL = "https://api.openai.com/v1/audio/transcriptions"
MODEL = "gpt-5.5"  # 5 dollars per million tokens in, 30 out, 128,000 tokens of output at most
HELLO: list[Any] = [{"role": "user", "content": "hello"}]


def words(*texts: str, usage: dict[str, int] | None = None) -> Iterator[bytes]:
    """Yield the events of a stream with these texts."""
    base = {"id": "c", "object": "chat.completion.chunk", "model": MODEL}
    for text in texts:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        yield b"data: " + json.dumps({**base, "choices": [choice]}).encode() + b"\n\n"
    if usage is not None:
        yield b"data: " + json.dumps({**base, "choices": [], "usage": usage}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def stream_of(*texts: str) -> httpx.MockTransport:
    """Answer each request with a stream of these texts."""
    headers = {"content-type": "text/event-stream"}
    return httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=words(*texts)))


def leave_a_stream(**more: Any) -> None:
    """Request a stream, read its first piece, and leave it."""
    body = {"model": MODEL, "messages": HELLO, "stream": True, **more}
    with (
        httpx.Client(transport=stream_of("one ", "two ", "three ")) as client,
        client.stream("POST", URL, json=body) as response,
    ):
        next(response.iter_raw())


def budget(**more: Any) -> list[dict[str, Any]]:
    """Return a budget that is large enough for any call here."""
    return [{"limit": "20 USD", "period": "total", **more}]


def test_streams_that_a_user_stops(instrumented: Callable[..., Metered]) -> None:
    """Three streams that are left at once cost in the budget what they cost in the ledger: input and output seen."""
    metered = instrumented(budgets=budget())
    for _ in range(3):
        leave_a_stream()
    (status,) = tollspan.budget.status()
    assert status.spent == sum(Decimal(call.cost.amount or 0) for call in metered.calls) / 10**18
    assert 0 < status.spent < Decimal("0.002")
    assert status.uncertain == 0


def test_streams_that_a_user_stops_under_a_wall(instrumented: Callable[..., Metered]) -> None:
    """Under a hard budget they are charged what can have been written by then, and that is shown as uncertain."""
    metered = instrumented(budgets=budget(hard=True))
    for _ in range(3):
        leave_a_stream()
    (status,) = tollspan.budget.status()
    known = Decimal(sum(call.cost.amount or 0 for call in metered.calls)) / 10**18
    seconds = sum(call.duration for call in metered.calls)
    written = Decimal(seconds * FASTEST + 3) * 30 / 10**6
    assert known < status.spent
    assert Decimal(status.uncertain) == Decimal(status.spent) - known
    assert status.spent <= 3 * Decimal("0.01") + written
    assert seconds < 1


def test_never_more_than_its_bound(instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that was open for an hour is charged no more than it could use when it was sent."""
    metered = instrumented(budgets=budget(hard=True))
    exchange = "tollspan.capture.exchange.perf_counter_ns"
    monkeypatch.setattr(exchange, lambda: -3600 * 10**9)
    leave_a_stream(max_completion_tokens=100)
    (call,) = metered.calls
    (status,) = tollspan.budget.status()
    assert call.duration > 3600
    assert call.output_most is not None
    assert call.output_most > 3600 * FASTEST
    assert status.spent <= Decimal("0.02")


def test_many_texts_are_written_at_once(instrumented: Callable[..., Metered]) -> None:
    """The time that a stream was open counts for each text that it was to have."""
    metered = instrumented(budgets=budget(hard=True))
    leave_a_stream(n=4, max_completion_tokens=100)
    (call,) = metered.calls
    assert call.output_most is not None
    assert call.output_most >= call.duration * FASTEST * 4


def test_no_response_is_charged_its_bound(instrumented: Callable[..., Metered]) -> None:
    """Where no response had begun, the provider may go on: a hard budget is charged all that was reserved."""

    def hang(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("")

    instrumented(budgets=budget(hard=True))
    with httpx.Client(transport=httpx.MockTransport(hang)) as client, pytest.raises(httpx.ReadTimeout):
        client.post(URL, json={"model": MODEL, "messages": HELLO})
    (status,) = tollspan.budget.status()
    assert status.spent > Decimal("3.84")  # 128,000 tokens of output


def test_response_without_usage(instrumented: Callable[..., Metered]) -> None:
    """A response that was read to its end without usage is charged its text or its time, not the model's limit."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}
    answer = {"id": "c", "object": "chat.completion", "model": MODEL, "choices": [choice]}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    instrumented(budgets=[*budget(hard=True), {"name": "t", "limit": "900000 tokens", "hard": True}])
    with httpx.Client(transport=transport) as client:
        client.post(URL, json={"model": MODEL, "messages": HELLO})
    dollars, tokens = tollspan.budget.status()
    assert 0 < dollars.uncertain < dollars.spent < Decimal("0.5")
    assert 0 < tokens.spent < 20_000


def test_a_wall_refuses_what_cannot_be_bounded(instrumented: Callable[..., Metered]) -> None:
    """A hard budget refuses an image by URL and says what to change; one that expects lets it through."""
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    body = {"model": MODEL, "messages": [{"role": "user", "content": [part]}]}
    instrumented(budgets=budget(name="wall", hard=True))
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        response = client.post(URL, json=body)
    assert (response.status_code, response.headers["x-tollspan-denied"], sent) == (402, "unbounded", [])
    assert response.json()["error"]["message"] == (
        'Budget "wall" refused this call: it is hard, and the cost of an image by URL cannot be bounded before it is '
        "sent. Send the image itself, in base64, or set hard = false for this budget."
    )
    tollspan.uninstrument()
    instrumented(budgets=budget(name="limit"))
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        assert client.post(URL, json=body).status_code == 200


@pytest.mark.parametrize("lib", [httpx, httpx2])
@pytest.mark.parametrize("kind", ["bytes", "memory", "file", "encoded"])
def test_files_of_forms(instrumented: Callable[..., Metered], tmp_path: Path, lib: ModuleType, kind: str) -> None:
    """A transcription reserves the length of its sound, out of the file's header, and the upload stays as it is."""
    wav = made.wav(30)
    path = tmp_path / "a.wav"
    path.write_bytes(wav)
    received: list[bytes] = []

    def answer(request: Any) -> Any:
        received.append(request.read())
        reserved.append(Decimal(tollspan.budget.status()[0].reserved))
        return lib.Response(200, json={"text": "hello", "usage": {"type": "duration", "seconds": 30}})

    reserved: list[Decimal] = []
    instrumented(budgets=budget(hard=True))
    with path.open("rb") as opened, lib.Client(transport=lib.MockTransport(answer)) as client:
        content = {"bytes": wav, "memory": io.BytesIO(wav), "file": opened, "encoded": wav}[kind]
        files = {"file": ("a.wav", content, "audio/wav")}
        request = client.build_request("POST", SPEECH_URL, data={"model": "whisper-1"}, files=files)
        if kind == "encoded":  # as a hook of the application leaves it that has looked at the body
            request.read()
            request = lib.Request("POST", SPEECH_URL, headers=request.headers, content=request.content)
        assert client.send(request).status_code == 200
    assert reserved == [Decimal("0.003")]  # 0.006 dollars per minute
    assert wav in received[0]
    (status,) = tollspan.budget.status()
    assert (status.spent, status.reserved) == (Decimal("0.003"), 0)


def test_files_that_cannot_be_sought(instrumented: Callable[..., Metered]) -> None:
    """A file that can be read only once is left alone: its length is not known, so a hard budget refuses it."""

    class Pipe(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise AssertionError(size)

    files: Any = {"file": ("a.wav", Pipe())}
    instrumented(budgets=budget(hard=True))
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={}))) as client:
        response = client.post(SPEECH_URL, data={"model": "whisper-1"}, files=files)
    assert response.headers["x-tollspan-denied"] == "unbounded"


def test_streams_with_images_are_not_cut_for_their_bytes(instrumented: Callable[..., Metered]) -> None:
    """A budget that cuts counts an image by its size: one of a megabyte does not end a stream that costs a cent."""
    url = "data:image/png;base64," + base64.b64encode(made.png(640, 480, padded=1_000_000)).decode()
    part = {"type": "image_url", "image_url": {"url": url}}
    body = {"model": MODEL, "messages": [{"role": "user", "content": [part]}], "stream": True}
    instrumented(budgets=[{"limit": "0.5 USD", "period": "total", "on_exceed": "cut"}])
    with httpx.Client(transport=stream_of(*["word "] * 50)) as client:
        text = client.post(URL, json=body).text
    assert text.count("word ") == 50
    assert "length" not in text


def test_conversations_of_other_processes(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """A process that continues a conversation of another one knows its size out of the ledger."""
    url = "https://api.openai.com/v1/responses"
    answer = {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": MODEL,
        "usage": {"input_tokens": 1000, "output_tokens": 500},
    }
    reserved: list[Decimal] = []

    def respond(_: httpx.Request) -> httpx.Response:
        reserved.append(Decimal(tollspan.budget.status()[0].reserved))
        return httpx.Response(200, json=answer)

    ledger = str(tmp_path / "ledger.db")
    body = {"model": MODEL, "input": "and then?", "max_output_tokens": 100}
    limit = budget(hard=True)
    with httpx.Client(transport=httpx.MockTransport(respond)) as client:
        instrumented(budgets=limit, ledger=ledger)
        client.post(url, json=body)
        tollspan.flush()
        tollspan.uninstrument()
        for response in ("resp_1", "resp_2"):
            instrumented(budgets=limit, ledger=ledger)
            client.post(url, json={**body, "previous_response_id": response})
            tollspan.uninstrument()
    first, known, unknown = reserved
    assert known - first < Decimal("0.02")  # 1,500 tokens and the id
    assert unknown > 5  # a million tokens
