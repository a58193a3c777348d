"""What asking for usage must not show: in requests, redirects, errors, lengths, odd events, and doubled refusals."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.capture.mock_wires import CHAT_REQUEST, LIBRARIES, OPENAI, chat_stream, sse, stream
from tollspan.capture.stream_usage import EncodedChunkFilter, UsageChunkFilter

if TYPE_CHECKING:
    from types import ModuleType

    from tests.conftest import Metered

pytestmark = pytest.mark.usefixtures("hosts_forgotten")

REQUEST = {**CHAT_REQUEST, "stream": True}
EVENTS = chat_stream()
REST = b"".join(piece for piece in EVENTS if b'"choices":[]' not in piece)
MOVED = "https://api.openai.com/moved/chat/completions"
every_library = pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)


def redirected(lib: ModuleType, status: int) -> Any:
    """Return a transport that redirects once, then streams; and keep what it was sent."""

    def answer(request: Any) -> Any:
        if request.url != MOVED:
            return lib.Response(status, headers={"location": MOVED})
        return lib.Response(200, headers={"content-type": "text/event-stream"}, content=iter(EVENTS))

    return lib.MockTransport(answer)


def told(request: Any) -> tuple[str, str, bytes, dict[str, str]]:
    """Return what a request says of itself."""
    return request.method, str(request.url), request.read(), dict(request.headers)


@every_library
@pytest.mark.parametrize("status", [302, 307, 308])
def test_the_chunk_is_taken_out_after_a_redirect(metered: Metered, lib: ModuleType, status: int) -> None:
    """A followed redirect takes the flag along: the chunk is cut, and no request shows that it was asked for."""
    found = []
    for mode in ("never", "always"):
        object.__setattr__(metered.recorder.settings, "stream_usage", mode)
        with lib.Client(transport=redirected(lib, status), follow_redirects=True) as client:
            own = client.build_request("POST", OPENAI, json=REQUEST)
            response = client.send(own, stream=True)
            body = response.read()
        assert response.history[0].request is own
        found.append((told(response.request), told(own)))
    assert body == REST
    assert found[0] == found[1]
    assert metered.errors() == {}


@every_library
def test_a_redirect_that_is_left_to_the_application(metered: Metered, lib: ModuleType) -> None:
    """The request that it may go on with is the one that its own led to: without the flag."""
    with lib.Client(transport=redirected(lib, 307)) as client:
        response = client.send(client.build_request("POST", OPENAI, json=REQUEST), stream=True)
        response.close()
        assert b"stream_options" not in response.next_request.read()
        assert client.send(response.next_request, stream=True).read() == REST
    assert metered.errors() == {}


@every_library
def test_an_answer_that_is_there_at_once(metered: Metered, lib: ModuleType) -> None:
    """Where nothing is left to stream, the response is to the application's request all the same."""

    def answer(_: Any) -> Any:
        return lib.Response(503, json={"error": {"message": "busy"}})

    with lib.Client(transport=lib.MockTransport(answer)) as client:
        own = client.build_request("POST", OPENAI, json=REQUEST)
        assert client.send(own, stream=True).request is own
    assert metered.errors() == {}


@every_library
def test_an_error_after_a_redirect_names_the_applications_request(metered: Metered, lib: ModuleType) -> None:
    """The request that an exception carries has no flag, whichever of them failed."""

    def answer(request: Any) -> Any:
        if request.url != MOVED:
            return lib.Response(307, headers={"location": MOVED})
        raise lib.ReadTimeout("late", request=request)

    with lib.Client(transport=lib.MockTransport(answer), follow_redirects=True) as client:
        with pytest.raises(lib.ReadTimeout) as caught, client.stream("POST", OPENAI, json=REQUEST):
            pass
        assert str(caught.value.request.url) == MOVED
        assert b"stream_options" not in caught.value.request.read()
    assert metered.errors() == {}


@every_library
def test_what_an_auth_flow_adds_is_in_the_applications_request(metered: Metered, lib: ModuleType) -> None:
    """The header that `auth=` writes is found in `response.request`, as without us."""
    with sse(EVENTS).client(lib, auth=("user", "made")) as client, client.stream("POST", OPENAI, json=REQUEST) as got:
        got.read()
    assert got.request.headers["authorization"].startswith("Basic ")
    assert b"stream_options" not in got.request.content
    assert metered.errors() == {}


@every_library
def test_a_declared_length_holds(metered: Metered, lib: ModuleType) -> None:
    """Nothing is taken out of a body whose length its headers say."""
    wire = sse(EVENTS)
    wire.headers["content-length"] = str(len(b"".join(EVENTS)))
    assert b"".join(stream(wire, lib, OPENAI, REQUEST, how="raw")) == b"".join(EVENTS)
    assert metered.errors() == {}


@pytest.mark.parametrize("ending", [b"\n\n", b""], ids=["whole", "cut off"])
@every_library
def test_deeply_nested_events_arrive(metered: Metered, lib: ModuleType, ending: bytes) -> None:
    """An event that is nested too deeply to be read is handed on, whole or cut off, in whatever pieces it comes."""
    deep = b'data: {"usage":{},"choices":[],"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}" + ending
    small = b'data: {"usage":{},"choices":[],"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}" + ending
    for event in (deep, small):
        pieces = [EVENTS[0], event[:20_000], event[20_000:]]
        assert b"".join(stream(sse(pieces), lib, OPENAI, REQUEST)) == b"".join(pieces)
    assert "stream_usage" not in metered.errors()


@pytest.mark.parametrize("method", ["feed", "close"])
def test_a_failure_of_ours_loses_nothing(metered: Metered, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Where taking out fails, what was held back is handed on, and the rest as it is."""
    kept = UsageChunkFilter.feed

    def feed(self: UsageChunkFilter, piece: bytes) -> bytes:
        if method == "feed" and self.rest():
            raise RuntimeError("made")
        return kept(self, piece)

    def close(_: UsageChunkFilter) -> bytes:
        raise RuntimeError("made")

    monkeypatch.setattr(UsageChunkFilter, "feed", feed)
    monkeypatch.setattr(UsageChunkFilter, "close", close)
    pieces = [EVENTS[0], EVENTS[1][:20], EVENTS[1][20:], *EVENTS[2:-1], EVENTS[-1][:-1]]
    if method == "close":
        pieces = [piece for piece in pieces if b'"choices":[]' not in piece]
    assert b"".join(stream(sse(pieces), LIBRARIES[0], OPENAI, REQUEST)) == b"".join(pieces)
    assert "stream_usage" in str(metered.errors())


def test_what_an_encoded_stream_holds_back_can_be_had() -> None:
    """What was decoded and held back is given encoded, in its place in the stream."""
    cut = EncodedChunkFilter("gzip", zlib.MAX_WBITS | 16)
    first = cut.feed(gzip.compress(EVENTS[0] + EVENTS[1][:20]))
    assert zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(first + cut.rest()) == EVENTS[0] + EVENTS[1][:20]


def test_a_host_that_refuses_everything_does_not_get_it_twice(metered: Metered) -> None:
    """After refusals that were not for the flag it is asked ever less often, so few requests are repeated."""
    lib, seen = LIBRARIES[0], []

    def answer(request: Any) -> Any:
        seen.append(b"stream_options" in request.content)
        return lib.Response(400, json={"error": {"code": "context_length_exceeded"}})

    with lib.Client(transport=lib.MockTransport(answer)) as client:
        for _ in range(10):
            with client.stream("POST", OPENAI, json=REQUEST) as response:
                response.read()
    assert seen == [True, False, True, False, False, True, False, False, False, False, True, False, False, False]
    assert len(metered.spans) == 10
