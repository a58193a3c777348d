"""One variant, alive: reads `{"workload": ..., "times": ...}` lines, answers with CPU microseconds.

Variants: `plain` (an httpx2 client and nothing else), `floor` (one SDK span with 12 attributes and four metric points
written by hand around each call), `tollspan`. The transport is in memory; spans go to a batch processor that drops
them.
"""

from __future__ import annotations

import gc
import json
import sys
from time import process_time
from typing import TYPE_CHECKING, Any, Final

import httpx2
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

URL: Final = "https://api.openai.com/v1/chat/completions"
USAGE: Final = {
    "prompt_tokens": 1200,
    "completion_tokens": 345,
    "total_tokens": 1545,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 64, "audio_tokens": 0},
}
TEXT: Final = "The quick brown fox jumps over the lazy dog while a careful engineer reads the meter. " * 3
HEAD: Final = {"id": "chatcmpl-made", "model": "gpt-4o-mini-2024-07-18", "service_tier": "default"}
MESSAGE: Final = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
PLAIN: Final = json.dumps({**HEAD, "object": "chat.completion", "choices": [MESSAGE], "usage": USAGE}).encode()


class Nowhere(SpanExporter):
    """Drops what it is given: what an exporter costs is no part of these figures."""

    def export(self, spans: object) -> SpanExportResult:
        """Say that all is well."""
        del spans
        return SpanExportResult.SUCCESS


def events(count: int) -> list[bytes]:
    """Give a streamed completion of that many pieces of text, one event a piece, as OpenAI writes them."""

    def event(**parts: object) -> bytes:
        whole = {**HEAD, "object": "chat.completion.chunk", **parts}
        return b"data: " + json.dumps(whole, separators=(",", ":")).encode() + b"\n\n"

    def delta(content: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": content, "logprobs": None, "finish_reason": reason}
        return event(choices=[choice], usage=None, obfuscation="aB3xY")

    words = TEXT.split()
    texts = [delta({"content": " " + words[number % len(words)]}) for number in range(count)]
    first, last = delta({"role": "assistant", "content": ""}), delta({}, "stop")
    return [first, *texts, last, event(choices=[], usage=USAGE), b"data: [DONE]\n\n"]


STREAMS: Final = {200: events(200), 1000: events(1000)}


def body(stream: int = 0) -> bytes:
    """Give a request's body."""
    asked: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"n={stream}"}]}
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(asked, separators=(",", ":")).encode()


BODIES: Final = {number: body(number) for number in (0, *STREAMS)}


def answer(request: httpx2.Request) -> httpx2.Response:
    """Answer from memory, a stream piece by piece."""
    for number, pieces in STREAMS.items():
        if request.content is BODIES[number]:
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=iter(pieces))
    return httpx2.Response(200, headers={"content-type": "application/json"}, content=iter([PLAIN]))


CLIENT: Final = httpx2.Client(transport=httpx2.MockTransport(answer))


def send(content: bytes, url: str = URL, *, stream: bool = False) -> httpx2.Response:
    """Send a body."""
    request = CLIENT.build_request("POST", url, content=content, headers={"content-type": "application/json"})
    return CLIENT.send(request, stream=stream)


def call() -> None:
    """Make a plain call and parse its answer, as an SDK does."""
    send(BODIES[0]).json()


def other() -> None:
    """Make a call that is no model call."""
    send(BODIES[0], "https://example.com/v1/orders/17").json()


def streamed(number: int) -> Callable[[], None]:
    """Give a function that reads a stream of `number` pieces to its end."""

    def read() -> None:
        response = send(BODIES[number], stream=True)
        for _ in response.iter_bytes():
            pass
        response.close()

    return read


WORKLOADS: Final = {"call": call, "other": other, "stream 200": streamed(200), "stream 1000": streamed(1000)}


def by_hand(work: Callable[[], None]) -> Callable[[], None]:
    """Put the floor around a workload: one span with 12 attributes, and four metric points."""
    tracer, meter = trace.get_tracer("floor"), metrics.get_meter("floor")
    histograms = [meter.create_histogram(f"floor.{number}") for number in range(4)]
    start = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini"}
    end = {
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        **{f"gen_ai.usage.{number}": number for number in range(8)},
    }
    labels = {**start, "gen_ai.response.model": "gpt-4o-mini-2024-07-18", "server.address": "api", "server.port": 443}

    def run() -> None:
        with tracer.start_as_current_span("chat gpt-4o-mini", kind=SpanKind.CLIENT, attributes=start) as span:
            work()
            span.set_attributes(end)
            for histogram in histograms:
                histogram.record(345, labels)

    return run


def lines() -> Iterator[dict[str, Any]]:
    """Give the commands as they come."""
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    """Serve one variant until stdin ends."""
    (variant,) = sys.argv[1:]
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider(metric_readers=[InMemoryMetricReader()]))
    work: dict[str, Callable[[], None]] = dict(WORKLOADS)
    if variant == "floor":
        work = {name: by_hand(function) if name != "other" else function for name, function in work.items()}
    if variant == "tollspan":
        import tollspan

        tollspan.instrument()
    for function in work.values():
        function()
    gc.collect()
    gc.freeze()  # what is loaded by now is no garbage, and the collector need not look at it in the middle of a block
    print("ready", flush=True)
    for command in lines():
        function, times = work[command["workload"]], command["times"]
        start = process_time()
        for _ in range(times):
            function()
        print((process_time() - start) / times * 1e6, flush=True)


if __name__ == "__main__":
    main()
