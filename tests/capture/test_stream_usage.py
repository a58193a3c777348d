"""Streams are asked for their usage where the host accepts it, and the application does not notice."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.fake_provider import FakeProvider
from tests.capture.mock_wires import (
    ANTHROPIC,
    CHAT_REQUEST,
    CHAT_USAGE,
    LIBRARIES,
    MESSAGE_REQUEST,
    OPENAI,
    Wire,
    as_sent,
    chat_stream,
    event,
    message_stream,
    post,
    sse,
    stream,
)
from tollspan.capture.stream_usage import HostSupport, UsageChunkFilter

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tests.conftest import Metered

pytestmark = pytest.mark.usefixtures("hosts_forgotten")

REQUEST = {**CHAT_REQUEST, "stream": True}
ASKED = {"include_usage": True}
EVENTS = chat_stream()
EXTRA = next(piece for piece in EVENTS if b'"choices":[]' in piece)
REST = b"".join(piece for piece in EVENTS if piece is not EXTRA)
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
UNKNOWN = "https://models.example.test/v1/chat/completions"


def body_of(wire: Wire, at: int = -1) -> dict[str, Any]:
    """Return the JSON body of a request that went out."""
    body: dict[str, Any] = json.loads(wire.requests[at].content)
    return body


def cut(text: bytes, size: int) -> list[bytes]:
    """Cut bytes into pieces."""
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
@pytest.mark.parametrize("size", [1, 7, 100, 10**9])
@pytest.mark.parametrize("how", ["raw", "bytes", "text", "lines"])
def test_the_application_sees_what_it_asked_for(
    metered: Metered, lib: ModuleType, how: str, size: int, is_async: bool
) -> None:
    """However a stream is cut and read, all of it but the extra chunk arrives, and the usage is measured."""
    wire = sse(cut(b"".join(EVENTS), size))
    got = stream(wire, lib, OPENAI, REQUEST, is_async=is_async, how=how)
    whole: Any = REST if how in {"raw", "bytes"} else REST.decode()
    assert (got == whole.splitlines()) if how == "lines" else (type(whole)().join(got) == whole)
    assert body_of(wire) == {**REQUEST, "stream_options": ASKED}
    attributes = metered.attributes
    assert attributes["gen_ai.usage.input_tokens"] == CHAT_USAGE["prompt_tokens"]
    assert "tollspan.usage.quality" not in attributes
    assert metered.errors() == {}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
@pytest.mark.parametrize("size", [1, 50, 10**9])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encoded_streams(metered: Metered, lib: ModuleType, encoding: str, size: int, is_async: bool) -> None:
    """A compressed stream is cleaned too, and stays compressed as its headers say."""
    packed = cut(ENCODINGS[encoding](b"".join(EVENTS)), size)
    headers = {"content-type": "text/event-stream", "content-encoding": encoding}
    assert b"".join(stream(Wire(headers=headers, pieces=packed), lib, OPENAI, REQUEST, is_async=is_async)) == REST
    raw = b"".join(stream(Wire(headers=headers, pieces=packed), lib, OPENAI, REQUEST, is_async=is_async, how="raw"))
    assert zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(raw) == REST
    assert [dict(span.attributes or {})["gen_ai.usage.input_tokens"] for span in metered.spans] == [1200, 1200]


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_only_encodings_that_can_be_redone_are_accepted(metered: Metered, lib: ModuleType) -> None:
    """Of the encodings that the application accepts, those are offered that the stream can be given back in."""
    with sse(EVENTS).client(lib, headers={"Accept-Encoding": "br;q=1.0, gzip;q=0.8, zstd"}) as client:
        wire_request = client.build_request("POST", OPENAI, json=REQUEST)
        response = client.send(wire_request, stream=True)
        response.read()
    assert response.request is wire_request
    assert wire_request.headers["accept-encoding"] == "br;q=1.0, gzip;q=0.8, zstd"
    assert metered.attributes["gen_ai.usage.output_tokens"] == 345


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_the_request_is_otherwise_the_same(metered: Metered, lib: ModuleType) -> None:
    """Method, address, headers and extensions stay; the body has the flag at its end, and its length fits."""
    wire = sse(EVENTS)
    with wire.client(lib, headers={"X-Own": "1", "Authorization": "Bearer made"}) as client:
        own = client.build_request("POST", OPENAI, params={"v": "1"}, json=REQUEST, extensions={"made": object()})
        client.send(own, stream=True).close()
    (sent,) = wire.requests
    assert sent is not own
    assert (sent.method, sent.url) == (own.method, own.url)
    assert sent.extensions["made"] is own.extensions["made"]
    changed = {"content-length", "accept-encoding"}
    assert {k: v for k, v in sent.headers.items() if k not in changed} == {
        k: v for k, v in own.headers.items() if k not in changed
    }
    assert sent.headers["content-length"] == str(len(sent.content))
    assert sent.content.startswith(own.content[:-1])
    assert len(metered.spans) == 1


def test_streams_stay_lazy(metered: Metered) -> None:
    """The first event is handed over before the second is drawn."""
    wire = sse(EVENTS)
    with wire.client(LIBRARIES[0]) as client, client.stream("POST", OPENAI, json=REQUEST) as response:
        for number, piece in enumerate(response.iter_raw(), 1):
            assert piece == [each for each in EVENTS if each is not EXTRA][number - 1]
            assert wire.drawn <= number + 1
    assert len(metered.spans) == 1


def unasked(wire: Wire, lib: ModuleType, url: str, body: dict[str, Any], pieces: list[bytes]) -> None:
    """Check that a request goes out, and its answer comes in, as they are."""
    got = stream(wire, lib, url, body, how="raw")
    assert got == pieces
    assert body_of(wire) == body


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": True}], ids=str)
def test_the_callers_own_options_are_kept(metered: Metered, options: object) -> None:
    """Who sets stream options, whichever, gets what they asked for, extra chunk included."""
    unasked(sse(EVENTS), LIBRARIES[0], OPENAI, {**REQUEST, "stream_options": options}, EVENTS)
    assert len(metered.spans) == 1


def test_unknown_hosts_and_other_formats_are_not_asked(metered: Metered) -> None:
    """By default only hosts whose provider file says so are asked, and only in the one format that knows the flag."""
    unasked(sse(EVENTS), LIBRARIES[0], UNKNOWN, REQUEST, EVENTS)
    messages = message_stream()
    unasked(sse(messages), LIBRARIES[0], ANTHROPIC, {**MESSAGE_REQUEST, "stream": True}, messages)
    assert len(metered.spans) == 2


def test_always_and_never(instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting asks every host, or none."""
    monkeypatch.setenv("TOLLSPAN_STREAM_USAGE", "always")
    instrumented()
    wire = sse(EVENTS)
    assert b"".join(stream(wire, LIBRARIES[0], UNKNOWN, REQUEST)) == REST
    assert body_of(wire)["stream_options"] == ASKED


def test_never(instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch) -> None:
    """Switched off, no request is changed; a stream without usage is then estimated."""
    monkeypatch.setenv("TOLLSPAN_STREAM_USAGE", "never")
    metered = instrumented()
    pieces = chat_stream(usage=False)
    unasked(sse(pieces), LIBRARIES[0], OPENAI, REQUEST, pieces)
    assert metered.attributes["tollspan.usage.quality"] == "estimated"


def test_not_asked_where_the_chunk_could_not_be_taken_out(metered: Metered) -> None:
    """A body that the client or a hook reads by itself, a plain answer, or a sealed request is left alone."""
    lib = LIBRARIES[0]
    wire = sse(EVENTS)
    assert post(wire, lib, OPENAI, REQUEST).content == b"".join(EVENTS)
    post(wire, lib, OPENAI, CHAT_REQUEST)
    with wire.client(lib, event_hooks={"response": [lambda response: response.read()]}) as client:
        client.send(client.build_request("POST", OPENAI, json=REQUEST), stream=True).close()
    with wire.client(lib, headers={"content-digest": "made"}) as client:
        client.send(client.build_request("POST", OPENAI, json=REQUEST), stream=True).close()
    assert all("stream_options" not in body_of(wire, at) for at in range(len(wire.requests)))
    assert len(metered.spans) == 4


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("status", [400, 422])
def test_a_host_that_refuses_is_remembered(metered: Metered, lib: ModuleType, status: int, is_async: bool) -> None:
    """A refusal is repeated without the flag, once; the application sees one good answer, and there is one record."""
    wire = Refusing(status)
    for _ in range(3):
        got = stream(wire, lib, OPENAI, REQUEST, is_async=is_async, how="raw")
        assert got == wire.pieces
    assert ["stream_options" in body_of(wire, at) for at in range(4)] == [True, False, False, False]
    assert len(wire.requests) == 4
    outcomes = [(span.attributes or {})["tollspan.outcome"] for span in metered.spans]
    assert outcomes == ["ok"] * 3


class Refusing(Wire):
    """A wire that answers with an error wherever stream options are set, or always."""

    def __init__(self, refusal: int, *, always: bool = False) -> None:
        """Refuse with that status."""
        super().__init__(headers={"content-type": "text/event-stream"}, pieces=chat_stream(usage=False))
        self._refusal = refusal
        self._always = always

    def _transport(self, lib: ModuleType, draw: Callable[[], Any]) -> Any:
        def answer(request: Any) -> Any:
            self.requests.append(as_sent(lib, request))
            if self._always or b"stream_options" in request.content:
                return lib.Response(self._refusal, json={"error": {"type": "invalid_request_error"}})
            return lib.Response(self.status, headers=self.headers, content=draw())

        return lib.MockTransport(answer)


def test_other_refusals_are_not_laid_to_the_flag(metered: Metered) -> None:
    """A request that is refused without the flag too is the caller's mistake: nothing is learned of the host."""
    wire = Refusing(400, always=True)
    lib = LIBRARIES[0]
    with wire.client(lib) as client, client.stream("POST", OPENAI, json=REQUEST) as response:
        assert response.status_code == 400
        assert json.loads(response.read())["error"]["type"] == "invalid_request_error"
    stream(sse(EVENTS), lib, OPENAI, REQUEST)  # it is asked again
    wire = Refusing(400, always=True)
    with wire.client(lib) as client, client.stream("POST", OPENAI, json=REQUEST) as response:
        response.read()
    assert len(wire.requests) == 1  # it had accepted the flag: no use in sending again
    assert [(span.attributes or {}).get("error.type") for span in metered.spans] == [
        "invalid_request_error",
        None,
        "invalid_request_error",
    ]


def test_what_is_remembered_is_bounded() -> None:
    """However many hosts there are, only the newest are remembered."""
    verdicts = HostSupport()
    for number in range(HostSupport.MOST + 10):
        verdicts.put((f"{number}.example.test", 443, None), accepted=False)
    assert verdicts.get(("0.example.test", 443, None)) is None
    assert verdicts.get((f"{HostSupport.MOST + 9}.example.test", 443, None)) is False


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_line_ends_of_all_kinds(ending: bytes) -> None:
    """Events end in blank lines of whatever kind; wherever they are cut, the chunk alone is missing."""
    text = b": keep-alive\n\n" + b"".join(EVENTS)
    text, rest = text.replace(b"\n", ending), text.replace(EXTRA, b"").replace(b"\n", ending)
    for size in range(1, 40):
        cleaning = UsageChunkFilter()
        assert b"".join(map(cleaning.feed, cut(text, size))) + cleaning.close() == rest


@pytest.mark.parametrize(
    "kept",
    [
        event({"choices": [], "usage": None, "prompt_filter_results": []}),  # Azure's first
        event({"choices": [{"index": 0, "delta": {"content": "[]"}}], "usage": CHAT_USAGE}),
        event({"choices": [], "error": {"message": "usage"}}),
        event(b'{"choices":[],"usage":{"prompt_tokens":1'),
        b": choices [] usage\n\n",
    ],
    ids=["no usage", "with a choice", "an error", "no json", "a comment"],
)
def test_other_chunks_are_kept(kept: bytes) -> None:
    """Only a chunk with usage and empty choices is taken out."""
    cleaning = UsageChunkFilter()
    assert cleaning.feed(kept) + cleaning.close() == kept


@given(st.binary(max_size=300), st.integers(min_value=1, max_value=20))
def test_arbitrary_bytes_pass(text: bytes, size: int) -> None:
    """Bytes that are no events pass unchanged, and nothing is raised."""
    cleaning = UsageChunkFilter()
    assert b"".join(map(cleaning.feed, cut(text, size))) + cleaning.close() == text


def test_endless_events_are_not_hoarded() -> None:
    """An event that never ends is passed on after a while."""
    cleaning = UsageChunkFilter()
    got = sum(len(cleaning.feed(b"x" * 100)) for _ in range(3000))
    assert got > 200_000


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_stream_that_breaks_gives_what_had_come(metered: Metered, lib: ModuleType, is_async: bool) -> None:
    """Half an event before a broken connection reaches the application, then the error does."""
    wire = sse([*EVENTS[:3], EVENTS[3][:40]], error=lib.ReadError("made"))
    got: list[bytes] = []
    if is_async:
        with pytest.raises(lib.ReadError):
            asyncio.run(_gather_async(wire, lib, got))
    else:
        with pytest.raises(lib.ReadError):
            _gather(wire, lib, got)
    assert b"".join(got) == b"".join(EVENTS[:3]) + EVENTS[3][:40]
    assert metered.attributes["tollspan.usage.quality"] == "estimated"


def _gather(wire: Wire, lib: ModuleType, got: list[bytes]) -> None:
    with wire.client(lib) as client, client.stream("POST", OPENAI, json=REQUEST) as response:
        got.extend(response.iter_raw())


async def _gather_async(wire: Wire, lib: ModuleType, got: list[bytes]) -> None:
    async with wire.async_client(lib) as client, client.stream("POST", OPENAI, json=REQUEST) as response:
        async for piece in response.aiter_raw():
            got.append(piece)  # noqa: PERF401 - what had come is wanted although it raises


def test_broken_encoding_is_the_applications_to_see(metered: Metered) -> None:
    """A body that is not what its encoding says raises the library's own error, as ever."""
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
    lib = LIBRARIES[0]
    with pytest.raises(lib.DecodingError):
        stream(Wire(headers=headers, pieces=[b"no gzip at all"]), lib, OPENAI, REQUEST)
    assert len(metered.spans) == 1


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_the_sdk_gets_only_chunks_with_choices(
    instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch, encoding: Any
) -> None:
    """OpenAI's SDK against a server: every chunk has its choice, and the cost is the server's own tally."""
    with FakeProvider(encoding=encoding) as fake:
        monkeypatch.setenv("TOLLSPAN_HOSTS", f"{fake.netloc}/openai=openai")
        metered = instrumented()
        client = openai.OpenAI(base_url=fake.base_url("openai"), api_key="made", max_retries=0)
        with (
            client,
            client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": "Count to ten."}], stream=True
            ) as chunks,
        ):
            assert all(chunk.choices for chunk in chunks)
        assert metered.attributes["gen_ai.usage.cost.amount"] == pytest.approx(float(fake.tally()["spend_usd"]))
        assert "tollspan.usage.quality" not in metered.attributes


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
def test_it_is_the_applications_request_that_is_sent(metered: Metered, lib: ModuleType) -> None:
    """A request of a class of its own reaches hooks and transport, and keeps what they write; so it is without us."""

    class Own(lib.Request):  # type: ignore[name-defined, misc]
        tenant = "acme"

    sent: list[Any] = []

    def before(request: Any) -> None:
        request.extensions["began"] = 1
        request.note = "mine"
        del request.headers["x-internal"]
        request.headers["x-added"] = "yes"

    def answer(request: Any) -> Any:
        sent.append((request, b"stream_options" in request.content, request.tenant))
        return lib.Response(200, headers={"content-type": "text/event-stream"}, content=iter(EVENTS))

    request = Own("POST", OPENAI, headers={"x-internal": "1"}, json=REQUEST)
    content, length = request.content, request.headers["content-length"]
    with lib.Client(transport=lib.MockTransport(answer), event_hooks={"request": [before]}) as client:
        response = client.send(request, stream=True)
        assert response.read() == REST
    assert sent == [(request, True, "acme")]
    assert response.request is request
    assert (request.extensions["began"], request.note) == (1, "mine")
    assert ("x-internal" in request.headers, request.headers["x-added"]) == (False, "yes")
    assert (request.content, request.headers["content-length"], b"".join(request.stream)) == (content, length, content)
    assert metered.attributes["gen_ai.usage.input_tokens"] == CHAT_USAGE["prompt_tokens"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_unicode_is_sent_as_it_is(metered: Metered, encoding: str) -> None:
    """A body in another encoding than UTF-8, which JSON's readers take as well, is not added to."""
    wire, body = sse(EVENTS), json.dumps(REQUEST).encode(encoding)
    with wire.client(LIBRARIES[1]) as client, client.stream("POST", OPENAI, content=body) as response:
        assert response.read() == b"".join(EVENTS)
    assert wire.requests[0].content == body
    assert metered.errors() == {}


@pytest.mark.parametrize(
    "header",
    [
        {"x-amz-content-sha256": "00"},
        {"x-acs-content-sha256": "00"},
        {"x-request-signature": "00"},
        {"authorization": "AWS4-HMAC-SHA256 Credential=x, Signature=00"},
    ],
)
def test_signed_bodies_are_sent_as_they_are(metered: Metered, header: dict[str, str]) -> None:
    """What is signed as it stands is not added to."""
    wire = sse(EVENTS)
    with (
        wire.client(LIBRARIES[1]) as client,
        client.stream("POST", OPENAI, json=REQUEST, headers=header) as response,
    ):
        response.read()
    assert "stream_options" not in body_of(wire)
    assert metered.errors() == {}
