"""HTTP as the fake provider speaks it, and the formats whose SDKs these tests do not install."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from examples.fake_provider import FakeProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY: Any = {"model": "gpt-5.5", "messages": [{"role": "user", "content": "Hello, world"}]}
STREAMED = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
CHAT = "/openai/v1/chat/completions"


def events(made: httpx.Response) -> list[Any]:
    """Return the JSON of a stream's events."""
    lines = (line.removeprefix("data: ") for line in made.text.splitlines() if line.startswith("data: "))
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_it_says_that_it_is_fake(http: httpx.Client) -> None:
    """Every answer carries a header, and the tally a sentence, that nobody can mistake."""
    assert http.post(CHAT, json=BODY).headers["x-fake-provider"] == "tollspan-demo"
    assert "fake" in http.get("/_tally").json()["fake"]


def test_a_connection_is_kept_alive(http: httpx.Client) -> None:
    """Plain and streamed answers follow one another over one connection."""
    streams = []
    for body in (BODY, STREAMED, BODY, STREAMED):
        with http.stream("POST", CHAT, json=body) as made:
            made.read()
            streams.append(made.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(set(streams)) == 1


def test_pipelined_requests_are_answered_in_order(fake: FakeProvider) -> None:
    """Requests that arrive together, and in pieces, are answered one after the other."""
    import socket

    one = f"GET /v1/models HTTP/1.1\r\nhost: {fake.netloc}\r\n\r\n".encode()
    last = f"GET /_tally HTTP/1.1\r\nhost: {fake.netloc}\r\nconnection: close\r\n\r\n".encode()
    host, port = fake.netloc.split(":")
    with socket.create_connection((host, int(port))) as wire:
        wire.sendall(one + one[:9])
        wire.sendall(one[9:] + last)
        got = b"".join(iter(lambda: wire.recv(65536), b""))
    assert got.count(b"HTTP/1.1 200 OK") == 3
    assert got.rstrip().endswith(b'"control":{"/v1/models":2}}')


@pytest.mark.parametrize("body", [BODY, STREAMED])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_is_compressed_where_the_client_accepts_it(http: httpx.Client, body: Any, encoding: str) -> None:
    """A content encoding is used only for a client that accepts it, and the client reads the same."""
    wish = {"x-fake": f"encoding={encoding}, output=9"}
    packed = http.post(CHAT, json=body, headers=wish)
    plain = http.post(CHAT, json=body, headers={**wish, "accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == encoding
    assert "content-encoding" not in plain.headers
    assert len(packed.text) == len(plain.text)


def test_a_compressed_stream_can_be_read_event_by_event(http: httpx.Client) -> None:
    """The compressor is flushed after every event, as a streaming provider has to."""
    with http.stream("POST", CHAT, json=STREAMED, headers={"x-fake": "encoding=gzip, output=5"}) as made:
        pieces = list(made.iter_raw())
    assert len(pieces) == 1 + 5 + 1 + 1 + 1  # role, words, finish, usage, [DONE]
    assert gzip.decompress(b"".join(pieces)).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("body", [BODY, STREAMED])
def test_a_body_is_cut_anywhere(http: httpx.Client, body: Any) -> None:
    """With cuts, no chunk is longer than asked, wherever that falls in the text."""
    with http.stream("POST", CHAT, json=body, headers={"x-fake": "cuts=7"}) as made:
        pieces = list(made.iter_raw())
    assert max(map(len, pieces)) == 7
    assert b"prompt_tokens" in b"".join(pieces)


def test_a_request_may_be_chunked(http: httpx.Client) -> None:
    """A body of unknown length, sent in chunks, is put together again."""

    def pieces() -> Iterator[bytes]:
        text = json.dumps(BODY).encode()
        yield text[:10]
        yield text[10:]

    assert http.post(CHAT, content=pieces()).json()["usage"]["prompt_tokens"] == 7


def test_a_client_that_leaves_is_billed_for_what_was_sent(fake: FakeProvider, http: httpx.Client) -> None:
    """Closing a paced stream after its first event leaves a partial call with all its input and some of its output."""
    paced = {"x-fake": "pace=0.5, output=400"}
    with http.stream("POST", CHAT, json=STREAMED, headers=paced) as made:
        next(made.iter_bytes())
    [row] = fake.tally()["partial_by"]
    assert row["input"] == 7
    assert 0 <= row["output"] < 400


def test_the_tally_waits_for_answers_under_way(fake: FakeProvider, http: httpx.Client) -> None:
    """Whoever has read the end of an answer finds it in the tally, paced or not."""
    for pace in ("0", "0.1"):
        http.post(CHAT, json=STREAMED, headers={"x-fake": f"pace={pace}, output=5"})
    assert fake.tally()["calls"] == 2


def test_the_tally_is_written_at_the_end(tmp_path: Path) -> None:
    """The file has what `tally()` gives."""
    file = tmp_path / "tally.json"
    with FakeProvider(tally_file=file) as fake, httpx.Client(trust_env=False) as client:
        client.post(fake.url + CHAT, json=BODY, headers={"authorization": "Bearer any"})
        view = fake.tally()
    assert json.loads(file.read_text()) == view


def test_orders_can_be_given_over_http(http: httpx.Client) -> None:
    """A test in another process queues faults and empties the books by HTTP."""
    assert http.post("/_fail", json={"status": 503, "times": 1}).status_code == 200
    assert [http.post(CHAT, json=BODY).status_code for _ in range(2)] == [503, 200]
    http.post("/_reset", json={})
    assert http.get("/_tally").json()["attempts"] == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", CHAT])
def test_paths_work_with_and_without_a_prefix(fake: FakeProvider, http: httpx.Client, path: str) -> None:
    """A bare path means the provider that the path is known for."""
    assert http.post(path, json=BODY).status_code == 200
    assert fake.tally()["by"][0]["provider"] == "openai"


def test_nonsense_is_refused_and_the_server_lives_on(http: httpx.Client) -> None:
    """Broken JSON, JSON that is no object, and fields of the wrong kind get a 400; an unknown path gets a 404."""
    bodies = (b"{", b"[]", b'{"model": "gpt-5.5", "messages": 7}', b'{"model": "gpt-5.5", "messages": [7]}')
    assert [http.post(CHAT, content=body).status_code for body in bodies] == [400] * 4
    assert http.post("/openai/v1/nowhere", json=BODY).status_code == 404
    assert http.post(CHAT, json=BODY).status_code == 200


def test_groq_reports_usage_in_its_own_place(fake: FakeProvider, http: httpx.Client) -> None:
    """Groq's last chunk has the usage under `x_groq` unasked, and on top as well when asked."""
    body = {**STREAMED, "model": "openai/gpt-oss-120b", "reasoning_effort": "low"}
    asked = events(http.post("/groq/openai/v1/chat/completions", json=body))
    unasked = events(http.post("/groq/openai/v1/chat/completions", json={**body, "stream_options": None}))
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"] == asked[-2]["usage"] == asked[-2]["x_groq"]["usage"] == unasked[-1]["x_groq"]["usage"]
    assert not any("usage" in event for event in unasked)
    assert any("reasoning" in event["choices"][0]["delta"] for event in unasked)
    [row] = fake.tally()["by"]
    assert (row["calls"], row["reasoning"]) == (2, 128)


def test_mistral_reports_usage_on_the_last_chunk_unasked(fake: FakeProvider, http: httpx.Client) -> None:
    """Mistral needs no include_usage."""
    body = {**BODY, "model": "mistral-small-latest", "stream": True}
    made = events(http.post("/mistral/v1/chat/completions", json=body))
    assert [("usage" in event) for event in made] == [False] * (len(made) - 1) + [True]
    output = made[-1]["usage"]["completion_tokens"]
    assert float(fake.tally()["spend_usd"]) == pytest.approx((7 * 0.15 + output * 0.6) / 1e6, abs=1e-12)


def test_cohere_bills_fewer_tokens_than_it_counts(fake: FakeProvider, http: httpx.Client) -> None:
    """Billed units are what the tally goes by, plain and streamed; the template's tokens are only counted."""
    body = {**BODY, "model": "command-a-03-2025"}
    plain = http.post("/cohere/v2/chat", json=body).json()
    last = events(http.post("/cohere/v2/chat", json={**body, "stream": True}))[-1]
    assert (last["type"], last["delta"]["usage"]) == ("message-end", plain["usage"])
    billed = plain["usage"]["billed_units"]
    assert (billed["input_tokens"], plain["usage"]["tokens"]["input_tokens"]) == (7, 73)
    cost = 2 * (7 * 2.5 + billed["output_tokens"] * 10) / 1e6
    assert float(fake.tally()["spend_usd"]) == pytest.approx(cost, abs=1e-12)


@pytest.mark.parametrize("alt", ["?alt=sse", ""])
def test_gemini_counts_thoughts_beside_the_candidates(fake: FakeProvider, http: httpx.Client, alt: str) -> None:
    """Thoughts are no candidates' tokens, every chunk has the usage so far, and the last has the plain answer's."""
    body = {
        "contents": [{"role": "user", "parts": [{"text": "Hello, world"}]}],
        "generationConfig": {"thinkingConfig": {"thinkingBudget": 512}},
    }
    model = "/gemini/v1beta/models/gemini-2.5-flash"
    plain = http.post(f"{model}:generateContent", json=body).json()
    made = http.post(f"{model}:streamGenerateContent{alt}", json=body)
    chunks = events(made) if alt else made.json()
    usage = plain["usageMetadata"]
    assert len(chunks) > 2
    assert chunks[-1]["usageMetadata"] == usage
    assert (usage["promptTokenCount"], usage["thoughtsTokenCount"]) == (7, 64)
    assert usage["totalTokenCount"] == 7 + 64 + usage["candidatesTokenCount"]
    [row] = fake.tally()["by"]
    assert row["output"] == 2 * (64 + usage["candidatesTokenCount"])


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/gemini/v1beta/models/gemini-2.5-flash:generateContent", ("error", "status")),
        ("/cohere/v2/chat", ("message",)),
        ("/groq/openai/v1/chat/completions", ("error", "message")),
        ("/mistral/v1/chat/completions", ("error", "message")),
    ],
)
def test_each_provider_words_its_errors_in_its_own_way(
    fake: FakeProvider, http: httpx.Client, path: str, where: tuple[str, ...]
) -> None:
    """A 429 has the shape that the provider's SDK looks into."""
    fake.fail_next(429)
    found = http.post(path, json=BODY).json()
    for name in where:
        found = found[name]
    assert isinstance(found, str)
