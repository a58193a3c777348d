"""Whatever a server sends, the application sees what it would have seen, and nothing of ours fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from opentelemetry import baggage
from opentelemetry.context import attach, detach
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

import tollspan
from tests.capture.mock_wires import CHAT, CHAT_REQUEST, LIBRARIES, OPENAI, Wire, chat_stream, packed, post, stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from opentelemetry.sdk.metrics.export import MetricsData

    from tests.conftest import Metered

JSON, EVENTS, HTML = "application/json", "text/event-stream", "text/html"
BODIES = {
    "empty": (200, JSON, b""),
    "malformed": (200, JSON, b'{"id": "x", "usage": {"prompt_tokens": 1'),
    "html error page": (502, HTML, b"<html><body>Bad gateway</body></html>"),
    "html with status 200": (200, JSON, b"<!doctype html><title>maintenance</title>"),
    "not utf-8": (200, JSON, b'{"id": "\xff\xfe", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}'),
    "a list": (200, JSON, b"[1, 2, 3]"),
    "a number": (200, JSON, b"7"),
    "nested deeply": (200, JSON, b"[" * 200_000),
    "counts that are none": (200, JSON, packed({"usage": {"prompt_tokens": "many", "completion_tokens": -1}})),
    "huge counts": (200, JSON, packed({"usage": {"prompt_tokens": 10**30, "completion_tokens": 1e300}})),
    "choices that are none": (200, JSON, packed({**CHAT, "choices": [None, 3, "x", {"delta": 5, "finish_reason": 9}]})),
    "everything null": (200, JSON, packed(dict.fromkeys(CHAT))),
    "a cost that cannot be": (200, JSON, packed({**CHAT, "usage": {**CHAT["usage"], "cost": "1e999990"}})),
    "a cost beyond numbers": (200, JSON, packed({**CHAT, "usage": {**CHAT["usage"], "cost": "1e999999999"}})),
    "fields from the future": (200, JSON, packed({**CHAT, "usage": {**CHAT["usage"], "dreams": {"lucid": 3}}})),
    "binary": (200, "application/octet-stream", bytes(range(256)) * 40),
    "events, truncated": (200, EVENTS, b"".join(chat_stream())[:-300]),
    "events in the middle of a character": (200, EVENTS, 'data: {"x": "ä'.encode()[:-1]),
    "events labelled as json": (200, JSON, b"".join(chat_stream())),
    "json labelled as events": (400, EVENTS, packed({"error": {"type": "invalid_request_error"}})),
    "only blank lines": (200, EVENTS, b"\n\n\r\n\r\n\n"),
    "only comments": (200, EVENTS, b": keep-alive\n\n: keep-alive\n\n"),
    "events that are no json": (200, EVENTS, b"data: hello\n\ndata: [DONE]\n\n"),
    "bytes that are no gzip": (200, JSON, b"plain"),
}


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_strange_answers_pass_through(metered: Metered, lib: ModuleType, name: str, streamed: bool) -> None:
    """The body arrives byte for byte, there is one span, and no failure of ours is counted."""
    status, kind, body = BODIES[name]
    wire = Wire(
        status=status, headers={"content-type": kind}, pieces=[body[at : at + 999] for at in range(0, len(body), 999)]
    )
    request = {**CHAT_REQUEST, "stream": streamed}
    got = b"".join(stream(wire, lib, OPENAI, request)) if streamed else post(wire, lib, OPENAI, request).content
    assert got == body
    assert metered.attributes["http.response.status_code"] == status
    assert ("error.type" in metered.attributes) is (status >= 400) or streamed
    assert metered.errors() == {}


def test_undecodable_body_raises_as_ever(metered: Metered) -> None:
    """A body that is not what its content encoding says raises the library's error; ours is counted, once."""
    lib = LIBRARIES[1]
    wire = Wire(headers={"content-type": EVENTS, "content-encoding": "gzip"}, pieces=[b"this is no gzip"])
    with pytest.raises(lib.DecodingError):
        stream(wire, lib, OPENAI, CHAT_REQUEST)
    assert len(metered.spans) == 1


@pytest.mark.parametrize("body", [b"", b"no json", b'{"model": 3}', b'["model"]', b'{"model": "gpt-4o-mini"', b"\xff"])
def test_strange_requests_are_sent_as_they_are(metered: Metered, body: bytes) -> None:
    """A request that makes no sense is sent unchanged; its answer is metered all the same."""
    wire = Wire(pieces=[packed(CHAT)])
    with wire.client(LIBRARIES[1]) as client:
        client.post(OPENAI, content=body)
    assert wire.requests[0].content == body
    assert metered.attributes["gen_ai.usage.input_tokens"] == 1200


def test_request_bodies_that_stream_are_not_touched(metered: Metered) -> None:
    """A body given as a generator is sent as it comes; what only it would tell stays unknown."""
    wire = Wire(pieces=[packed(CHAT)])

    def parts() -> object:
        yield b'{"model": "gpt-4o-mini", '
        yield b'"messages": []}'

    with wire.client(LIBRARIES[1]) as client:
        client.post(OPENAI, content=parts())
    assert "gen_ai.request.model" not in metered.attributes
    assert metered.attributes["gen_ai.response.model"] == "gpt-4o-mini-2024-07-18"


def test_our_own_failure_is_counted_and_harmless(
    metered: Metered, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in a dialect leaves the call as it is, is counted for every call, and logged once."""
    from tollspan.wire.dialects.openai_chat import DIALECT

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tollspan.capture.exchange.load", lambda _: type(DIALECT)(name="x", read_response=fail))
    for _ in range(3):
        assert post(Wire(pieces=[packed(CHAT)]), LIBRARIES[1], OPENAI, CHAT_REQUEST).json() == CHAT
    assert metered.errors() == {"response:ZeroDivisionError": 3}
    assert len(metered.spans) == 3
    assert len([r for r in caplog.records if "ZeroDivisionError" in r.getMessage()]) == 1


HALF = "x\ud800"
"""A text with half of a surrogate pair, which JSON can say and UTF-8 cannot."""


def test_half_a_surrogate_keeps_nothing_from_being_exported(
    instrumented: Callable[..., Metered], caplog: pytest.LogCaptureFixture
) -> None:
    """What is no Unicode goes to the provider as it was written, and to telemetry as a question mark.

    A span's name that cannot be encoded would take every span of its batch with it, the application's own included.
    """
    metered = instrumented(metric_attributes=("user", "session", "tag.half"))
    answer = {**CHAT, "model": HALF, "id": HALF, "service_tier": HALF, "choices": [{"index": 0, "finish_reason": HALF}]}
    wire = Wire(pieces=[json.dumps(answer).encode()])
    request = json.dumps({**CHAT_REQUEST, "model": HALF}).encode()
    with (
        tollspan.attribution(user=HALF, session=HALF, tags={"half": HALF, HALF: HALF}),
        wire.client(LIBRARIES[1]) as client,
    ):
        client.post(OPENAI, content=request)
        tollspan.record(HALF, provider=HALF, tier=HALF, region=HALF)
        tollspan.record(tool=HALF, provider="search")
    assert wire.requests[0].content == request
    assert [span.name for span in metered.spans] == ["chat x?", "chat x?", "execute_tool x?"]
    data: MetricsData | None = metered.reader.get_metrics_data()
    assert data is not None
    caplog.clear()
    encode_metrics(data)
    encode_spans(metered.spans)  # raises for a name, and writes to the log for an attribute
    assert caplog.text == ""
    assert metered.errors() == {}


def test_long_names_are_cut(metered: Metered) -> None:
    """A name of megabytes is no more than a thousand characters on spans and metrics, and arrives as it was sent."""
    long = "x" * 3_000_000
    wire = Wire(pieces=[packed({**CHAT, "id": long, "model": long, "service_tier": long})])
    response = post(wire, LIBRARIES[1], OPENAI, {**CHAT_REQUEST, "model": long})
    assert response.json()["model"] == json.loads(wire.requests[0].content)["model"] == long
    data: MetricsData | None = metered.reader.get_metrics_data()
    assert data is not None
    assert encode_spans(metered.spans).ByteSize() + encode_metrics(data).ByteSize() < 50_000
    assert metered.attributes["gen_ai.response.model"] == long[:1024]


def test_reasons_that_are_no_codes_are_not_repeated(metered: Metered) -> None:
    """Why a choice ended is a code; a sentence may quote a prompt. Of thousands of choices not each is told."""
    told = "blocked: 'my password is hunter2' was flagged"
    answers = [{"index": place, "finish_reason": "stop" if place else told, "message": {}} for place in range(5000)]
    post(Wire(pieces=[packed({**CHAT, "choices": answers})]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    assert metered.attributes["gen_ai.response.finish_reasons"] == ("other", *["stop"] * 127)


def test_a_tag_without_a_value_is_no_tag(metered: Metered) -> None:
    """None is left out, as it is for the other values of a block: it is not the text `None`."""
    with tollspan.attribution(user=None, tags={"team": "a", "tenant": None}):
        post(Wire(pieces=[packed(CHAT)]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    assert metered.attributes["tollspan.tag.team"] == "a"
    assert "tollspan.tag.tenant" not in metered.attributes


def test_tags_leave_room_for_what_a_call_is(instrumented: Callable[..., Metered]) -> None:
    """However many values the baggage or a block brings, the span says what was called, by whom and what it cost."""
    metered = instrumented(trust_baggage=True)
    context = baggage.set_baggage("tollspan.user", "ann")
    for number in range(150):
        context = baggage.set_baggage(f"tollspan.tag.t{number}", "x", context)
    token = attach(context)
    try:
        with tollspan.attribution(session="mine", tags={"y" * 1000: "x", 7: "x"}):  # type: ignore[dict-item]
            post(Wire(pieces=[packed(CHAT)]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    finally:
        detach(token)
    attributes = metered.attributes
    assert attributes["gen_ai.request.model"] == CHAT_REQUEST["model"]
    assert (attributes["user.id"], attributes["session.id"]) == ("ann", "mine")
    assert {"gen_ai.usage.cost.amount", "tollspan.call.id"} <= set(attributes)
    assert max(map(len, attributes)) < 300
