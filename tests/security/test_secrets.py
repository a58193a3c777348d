"""No credential and no word of a prompt or an answer leaves by anything that tollspan writes."""

from __future__ import annotations

import base64
import json
import logging
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest

import tollspan
from tests.capture.mock_wires import ANTHROPIC, CHAT, MESSAGE_REQUEST, OPENAI, Wire, chat_stream, event, packed, sse
from tollspan.model.errors import BudgetExceeded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Metered

WORD: Final = "xyzzyplugh"
"""Planted everywhere with something behind it that tells the place."""


def planted(place: str) -> str:
    """Return a secret that tells where it was planted."""
    return f"{WORD}-{place}"


HEADERS: Final = {
    "authorization": f"Bearer {planted('bearer')}",
    "x-api-key": planted("api-key"),
    "x-goog-api-key": planted("goog-key"),
    "api-key": planted("azure-key"),
    "cookie": f"session={planted('cookie')}",
    "openai-organization": planted("organization"),
    "x-custom": planted("custom-header"),
}
REQUEST: Final[dict[str, Any]] = {
    "model": "gpt-4o-mini",
    "messages": [
        {"role": "system", "content": planted("system")},
        {"role": "user", "content": [{"type": "text", "text": planted("prompt")}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": planted("arguments")}}]},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": planted("tool")}}],
    "user": planted("user"),
    "metadata": {"note": planted("metadata")},
    "prompt_cache_key": planted("cache-key"),
}
ANSWER: Final[dict[str, Any]] = {
    **CHAT,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": planted("completion"), "refusal": planted("refusal")},
            "finish_reason": "stop",
        }
    ],
}
ERROR: Final = {
    "error": {
        "type": f"bad {planted('error-type')} {' ' * 60}",
        "code": f"Incorrect API key provided: {planted('error-code')}",
        "message": f"Your key {planted('error-message')} is wrong",
        "param": planted("error-param"),
    }
}
QUERY: Final = f"?key={planted('query-key')}&note={planted('query')}"


def streamed() -> list[bytes]:
    """Return a stream whose text, error and unknown fields hold secrets."""
    pieces = chat_stream(words=2, usage=False)
    chunk = {"id": "chatcmpl-made-3", "choices": [{"index": 0, "delta": {"content": planted("streamed")}}]}
    return [*pieces[:2], event(chunk), event({"error": {"message": planted("stream-error"), "code": None}})]


EXCHANGES: Final[dict[str, Callable[[], Wire]]] = {
    "plain": lambda: Wire(pieces=[packed(ANSWER)]),
    "stream": lambda: sse(streamed()),
    "refused": lambda: Wire(status=401, pieces=[packed(ERROR)]),
    "no json": lambda: Wire(status=500, pieces=[f"<html>{planted('html')}".encode()]),
    "cut off": lambda: sse([*streamed()[:3], f'data: {{"x": "{planted("cut")}'.encode()]),
    "broken": lambda: sse(streamed()[:3], error=httpx2.ReadError(planted("exception"))),
    "no connection": lambda: Wire(error=httpx2.ConnectError(planted("connection"))),
    "not its encoding": lambda: Wire(headers={"content-encoding": "gzip"}, pieces=[planted("no-gzip").encode()]),
}


def send(name: str) -> None:
    """Send one call in which everything is secret, by OpenAI's path and by Anthropic's."""
    for url, request in ((OPENAI, REQUEST), (ANTHROPIC, {**MESSAGE_REQUEST, **REQUEST})):
        wire = EXCHANGES[name]()
        with wire.client(httpx2) as client:
            try:
                with client.stream("POST", url + QUERY, json={**request, "stream": True}, headers=HEADERS) as response:
                    response.read()
            except (httpx2.HTTPError, BudgetExceeded):
                continue


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what tollspan has logged; httpx2 writes URLs, with or without us."""
    return [record for record in caplog.records if record.name.partition(".")[0] == "tollspan"]


def check(text: str) -> None:
    """Fail where a secret stands in a text, as it is or encoded."""
    found = {text[at : at + 40] for at in _places(text, WORD)}
    assert not found, found
    assert base64.b64encode(WORD.encode()).decode()[:8] not in text


def _places(text: str, word: str) -> list[int]:
    places, at = [], text.find(word)
    while at >= 0:
        places.append(at)
        at = text.find(word, at + 1)
    return places


@pytest.mark.parametrize("name", EXCHANGES)
def test_nothing_secret_is_written(
    instrumented: Callable[..., Metered],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
) -> None:
    """Spans, metrics, logs at every level, ledger, summaries and records hold nothing that was planted."""
    caplog.set_level(logging.DEBUG, logger="tollspan")
    metered = instrumented(
        ledger=str(tmp_path / "ledger.db"),
        log_calls=True,
        chunk_metric=True,
        cost_aliases=True,
        metrics="both",
        budget="5 USD/day",
    )
    send(name)
    assert len(metered.spans) == 2
    data = metered.reader.get_metrics_data()
    last = tollspan.last_call()
    assert data is not None
    assert last is not None
    check(data.to_json())
    check(repr(list(metered.calls)) + json.dumps(last.to_dict()))
    tollspan.uninstrument()  # writes ledger and summaries
    check("\n".join(span.to_json() for span in metered.spans))
    check("".join(capfd.readouterr()))
    check("\n".join(logging.Formatter().format(record) for record in ours(caplog)))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "ledger.db" for path in files)
    for path in files:
        check(path.read_bytes().decode("latin-1"))


@pytest.mark.parametrize("budget", [{"on_exceed": "block"}, {"on_exceed": "reply"}, {"on_exceed": "raise"}], ids=str)
def test_denials_tell_no_secret(instrumented: Callable[..., Metered], budget: dict[str, str]) -> None:
    """What a budget says in place of an answer holds nothing of the request, and nothing was sent."""
    metered = instrumented(budget=[{"limit": "0.0000001 USD", "period": "day", "hard": True, **budget}])
    wire = Wire(pieces=[packed(ANSWER)])
    with wire.client(httpx2) as client:
        try:
            said = client.post(OPENAI + QUERY, json=REQUEST, headers=HEADERS).text
        except BudgetExceeded as error:
            said = repr(error)
    assert said
    check(said)
    check(metered.span.to_json())
    assert wire.requests == []


@pytest.mark.parametrize(
    "place",
    [
        "tollspan.wire.reader.Reader.feed",
        "tollspan.capture.attempt_record.billed_usage",
        "tollspan.capture.exchange.load",
        "tollspan.capture.recorder.price",
    ],
)
def test_failures_of_our_own_tell_no_secret(
    metered: Metered, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """An exception inside tollspan may quote what was being read: its text is not logged, only where it happened."""

    def fail(*_: object, **__: object) -> Any:
        raise ValueError(f"invalid literal for int() with base 10: {planted('quoted')!r}")

    caplog.set_level(logging.DEBUG)
    with monkeypatch.context() as broken:
        broken.setattr(place, fail)
        send("plain")
    assert metered.errors()
    assert "your call was not affected. Traceback:" in caplog.text
    check("\n".join(logging.Formatter().format(record) for record in ours(caplog)))
    check("\n".join(span.to_json() for span in metered.spans))


def test_what_is_planted_is_found() -> None:
    """The check fails where a secret is written: otherwise the tests above say nothing."""
    for text in (planted("x"), f"before {WORD} behind", json.dumps({"a": [planted("y")]})):
        with pytest.raises(AssertionError):
            check(text)
