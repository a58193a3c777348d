"""What is fuzzed, and what holds for every input: one function a boundary, each given nothing but bytes.

An input is a head line and a body: `openai_chat text/event-stream gzip 7`, a line end, then the bytes of an answer (or
a request). The head names the format, the content type, the content encoding ("-" for none) and the size of the pieces
in which the body arrives; words that are unknown stand for one that is known, so that every mutation means something.

    answer(data)     a reader: nothing but WireError, the same facts however it was cut, a price that adds up
    request(data)    a format, the estimates and the budgets' bounds, given a request's body
    framing(data)    each framing by itself: the same blocks however it was cut
    passage(data)    the whole way through a client: the application gets the bytes, exceptions and pieces of before

`TARGETS` has them by name; each raises AssertionError, or the exception that escaped, if something does not hold.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import httpx2
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

import tollspan
from tollspan.budget.bounds import Bounds, RequestShape
from tollspan.model.errors import WireError
from tollspan.model.records import Billable, Facts, Usage
from tollspan.prices import price
from tollspan.prices.loader import PriceSource
from tollspan.setup.instrument import current
from tollspan.tokens.estimates import input_tokens, output_tokens
from tollspan.tokens.model_families import family_of
from tollspan.wire.dialects import ROUTES, load
from tollspan.wire.dialects.fields import LONGEST, MAX_COST, MAX_COUNT
from tollspan.wire.framing import eventstream, jsonarray, ndjson, sse
from tollspan.wire.providers import bundled
from tollspan.wire.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tollspan.prices import PriceTable
    from tollspan.wire.framing import Framing

DIALECTS: Final = sorted({route.dialect for provider in bundled().values() for route in (*provider.routes, *ROUTES)})
CONTENT_TYPES: Final = (
    "text/event-stream",
    "application/json",
    "application/x-ndjson",
    "application/vnd.amazon.eventstream",
    "audio/mpeg",
    "text/html",
)
ENCODINGS: Final = ("-", "-", "gzip", "deflate", "br", "zstd", "gzip,br")
FRAMINGS: Final[tuple[Callable[[], Framing], ...]] = (
    sse.ServerSentEvents,
    ndjson.JsonLines,
    jsonarray.JsonArray,
    eventstream.EventStream,
)
NOON: Final = datetime(2026, 11, 18, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Input:
    """One input, taken apart."""

    dialect: str
    content_type: str
    encoding: str | None
    size: int
    body: bytes

    @property
    def pieces(self) -> list[bytes]:
        """Return the body as it arrives."""
        return [self.body[at : at + self.size] for at in range(0, len(self.body), self.size)]


def taken_apart(data: bytes) -> Input:
    """Read the head line; words that are unknown choose by their checksum."""
    head, _, body = data.partition(b"\n")
    words = [*head.split(b" "), b"", b"", b"", b""][:4]
    encoding = _one_of(ENCODINGS, words[2])
    return Input(
        dialect=_one_of(DIALECTS, words[0]),
        content_type=_one_of(CONTENT_TYPES, words[1]),
        encoding=None if encoding == "-" else encoding,
        size=max(int(words[3]) if words[3].isdigit() and len(words[3]) < 7 else zlib.crc32(words[3]) % 97, 1),
        body=body,
    )


def _one_of(known: tuple[str, ...] | list[str], word: bytes) -> str:
    text = word.decode("latin-1")
    return text if text in known else known[zlib.crc32(word) % len(known)]


# A reader


def answer(data: bytes) -> None:
    """Read an answer at once and in pieces; what was learned is the same, and can be priced and estimated."""
    given = taken_apart(data)
    whole, cut = _read(given, [given.body]), _read(given, given.pieces)
    if whole is None or cut is None:
        assert (whole is None) is (cut is None), "whether a body can be read depends on how it was cut"
        return
    assert _told(whole[0]) == _told(cut[0]), "the facts of a body depend on how it was cut"
    assert _text(whole[1]) == _text(cut[1]), "the text of a body depends on how it was cut"
    assert whole[1].text.calls == cut[1].text.calls, "the tool calls of a body depend on how it was cut"
    _check_facts(whole[0])
    family = family_of(whole[0].response_model, whole[0].request_model)
    low, value, high = output_tokens(whole[1].text, family)
    assert 0 <= low <= value <= high


def _read(given: Input, pieces: list[bytes]) -> tuple[Facts, Reader] | None:
    """Return what a reader learned of these pieces, None where their framing or encoding is broken."""
    dialect = load(given.dialect)
    facts = Facts(dialect.operation)
    try:
        reader = Reader(dialect, facts, given.content_type, given.encoding)
        for piece in pieces:
            reader.feed(piece)
        reader.close()
    except WireError:
        return None
    return facts, reader


def _told(facts: Facts) -> dict[str, Any]:
    return {name: repr(getattr(facts, name)) for name in Facts.__slots__}  # by text: NaN is not equal to itself


def _text(reader: Reader) -> str | None:
    return reader.text.text()


_TEXTS: Final = (
    "cached_by",
    "error_type",
    "geography",
    "operation",
    "output_type",
    "previous_response_id",
    "reasoning_level",
    "region",
    "request_model",
    "request_tier",
    "response_id",
    "response_model",
    "search_context",
    "speed",
    "tier",
)


def _check_texts(facts: Facts) -> None:
    """All that becomes a span's name, an attribute or a label is a text that an exporter can encode, and not long."""
    texts = [value for name in _TEXTS if (value := getattr(facts, name)) is not None]
    for text in (*texts, *facts.finish_reasons):
        assert type(text) is str
        assert text.encode()
        assert len(text) <= LONGEST


def _check_facts(facts: Facts) -> None:
    """Everything that is learned is of its kind, and any price that comes of it adds up."""
    _check_texts(facts)
    usages = [facts.usage, *(part.usage for part in facts.parts)]
    for usage in usages:
        if usage is not None:
            _check_usage(usage)
    billable = Billable(
        usage=facts.usage or Usage(),
        price_providers=("openai", "anthropic", "gemini"),
        model=facts.response_model or "gpt-4o-mini",
        request_model=facts.request_model,
        operation=facts.operation,
        tier=facts.tier,
        geography=facts.geography,
        speed=facts.speed,
        region=facts.region,
        search_context=facts.search_context,
        parts=facts.parts,
        provider_cost=facts.provider_cost,
        upstream_cost=facts.upstream_cost,
    )
    assert max(facts.provider_cost or 0, facts.upstream_cost or 0) <= MAX_COST
    cost = price(billable, _table(), NOON)
    assert cost.amount is None or cost.amount >= 0
    assert cost.computed is None or cost.computed == sum(cost.breakdown.values())


def _check_usage(usage: Usage) -> None:
    for name in Usage.__slots__:
        if name == "units":
            assert all(count >= 0 for count in usage.units.values()), usage
            continue
        count = getattr(usage, name)
        assert count is None or (type(count) is int and 0 <= count <= 100 * MAX_COUNT), (name, usage)


@cache
def _table() -> PriceTable:
    """Return the bundled prices."""
    return PriceSource()()


# A request


def request(data: bytes) -> None:
    """Read a request's body, its path and its headers; estimate it, and bound what it may cost."""
    given = taken_apart(data)
    dialect, facts = load(given.dialect), Facts()
    path = given.body[:80].decode("latin-1")
    dialect.read_path(facts, path)
    dialect.read_headers(facts, {"x-count": path, "content-type": path, "x-billed-units": path})
    body = _object(given.body)
    dialect.read_request(facts, body)
    _check_texts(facts)
    estimate = input_tokens(body, family_of(facts.request_model))
    assert estimate is None or 0 <= estimate.low <= estimate.value <= estimate.high
    shape = RequestShape(
        facts=facts,
        prices=("openai",),
        body=body,
        content=given.body,
        size=len(given.body),
        dialect=given.dialect,
    )
    bound = _bounds().strict(shape, 0.0)
    assert bound.input >= 0
    assert bound.output >= 0
    assert bound.cost is None or bound.cost >= 0
    tollspan.estimate("gpt-4o-mini", body, provider="openai")


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if type(value) is dict else {}


@cache
def _bounds() -> Bounds:
    return Bounds(_table)


# A framing by itself


def framing(data: bytes) -> None:
    """Cut a body by each framing: the blocks do not depend on how it arrived, and nothing is made up."""
    given = taken_apart(data)
    for make in FRAMINGS:
        whole, cut = _blocks(make(), [given.body]), _blocks(make(), given.pieces)
        assert whole == cut, f"{make.__name__} depends on how the bytes arrive"
        if whole is not None:
            assert sum(len(payload) for _, payload in whole) <= len(given.body)


def _blocks(framed: Framing, pieces: list[bytes]) -> list[tuple[str, bytes]] | None:
    blocks = []
    try:
        for piece in pieces:
            blocks += framed.feed(piece)
        blocks += framed.close()
        return [pair for pair in map(framed.split, blocks) if pair != ("", b"")]
    except WireError:
        return None


# The whole way


def passage(data: bytes) -> None:
    """Send a request and read its answer as a stream and whole; all is as it is without tollspan."""
    given = taken_apart(data)
    path = PATHS.get(given.dialect, PATHS["openai_chat"])
    _metered()
    for streamed in (True, False):
        seen = _exchange(given, path, streamed=streamed)
        with _bare():
            expected = _exchange(given, path, streamed=streamed)
        assert seen == expected, "the application notices"
    recorder = current()
    assert recorder is not None
    wrong = {kind: count for kind, count in recorder.accumulator.errors.items() if not kind.endswith(":WireError")}
    assert not wrong, wrong


PATHS: Final = {
    "openai_chat": "https://api.openai.com/v1/chat/completions",
    "openai_completions": "https://api.openai.com/v1/completions",
    "openai_responses": "https://api.openai.com/v1/responses",
    "openai_embeddings": "https://api.openai.com/v1/embeddings",
    "openai_images": "https://api.openai.com/v1/images/generations",
    "openai_speech": "https://api.openai.com/v1/audio/speech",
    "anthropic": "https://api.anthropic.com/v1/messages",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:streamGenerateContent",
    "bedrock_converse": "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.nova-lite-v1:0/converse-stream",
    "bedrock_invoke": "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.nova-lite-v1:0/invoke",
    "cohere": "https://api.cohere.com/v2/chat",
    "ollama": "http://localhost:11434/api/chat",
}
_ASKED: Final = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}


def _exchange(given: Input, url: str, *, streamed: bool) -> list[Any]:
    """Return all that an application sees of one exchange."""
    headers = {"content-type": given.content_type}
    if given.encoding:
        headers["content-encoding"] = given.encoding

    def pieces() -> Iterator[bytes]:
        yield from given.pieces

    def answered(_: Any) -> Any:
        return httpx2.Response(200, headers=headers, content=pieces())

    seen: list[Any] = []
    with httpx2.Client(transport=httpx2.MockTransport(answered)) as client:
        try:
            if not streamed:
                seen.append(client.post(url, json=_ASKED).content)
            else:
                with client.stream("POST", url, json={**_ASKED, "stream_options": {}, "stream": True}) as response:
                    seen.extend(response.iter_bytes())
        except httpx2.HTTPError as error:
            seen.append(repr(error))
    return seen


@cache
def _metered() -> None:
    """Instrument this process, once."""
    tollspan.instrument(
        tracer_provider=TracerProvider(shutdown_on_exit=False),
        meter_provider=MeterProvider(metric_readers=[InMemoryMetricReader()], shutdown_on_exit=False),
        prices=_table(),
    )


class _bare:  # noqa: N801 - read as a verb: with _bare()
    """Send as the client does without tollspan."""

    def __enter__(self) -> None:
        self._send = httpx2.Client.send
        httpx2.Client.send = self._send.__tollspan_original__  # type: ignore[attr-defined, method-assign]

    def __exit__(self, *_: object) -> None:
        httpx2.Client.send = self._send  # type: ignore[method-assign]


def dismantle() -> None:
    """Take the instrumentation of `passage` away again."""
    tollspan.uninstrument()
    _metered.cache_clear()


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "answer": answer,
    "framing": framing,
    "passage": passage,
    "request": request,
}
