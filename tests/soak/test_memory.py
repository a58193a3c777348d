"""Memory stays where it is: over many calls, over many names of models, and for streams that stay open."""

from __future__ import annotations

import gc
import itertools
import os
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

import tollspan
from tests.capture.mock_wires import CHAT, CHAT_REQUEST, OPENAI, Wire, chat_stream, packed, sse
from tests.fuzz.many import held
from tollspan.setup.instrument import current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tollspan.capture.recorder import Recorder

LONG: Final = bool(os.environ.get("SOAK"))
CALLS: Final = 500_000 if LONG else 600
STREAMS: Final = 10_000 if LONG else 150
PER_STREAM: Final = 4096
"""Bytes that one open stream may take, beside what it takes without tollspan and the span that the SDK keeps."""

NAMES: Final = ("gpt-4o-mini", "made-up-{}") if LONG else ("gpt-4o-mini",)
"""Models: always the same, and ever new ones, for which what is bounded has to be filled first: 30,000 calls."""
FILLED: Final = 30_000 if LONG else 300
MOST_KB: Final = 8192
"""What the process may hold more after `CALLS` calls more: the allocator's and SQLite's own, no part of a call."""


@pytest.fixture
def start() -> Iterator[Callable[..., Recorder]]:
    """Instrument with providers that keep nothing but sums."""

    def instrument(**options: Any) -> Recorder:
        tollspan.instrument(
            tracer_provider=TracerProvider(shutdown_on_exit=False),
            meter_provider=MeterProvider(metric_readers=[InMemoryMetricReader()], shutdown_on_exit=False),
            **options,
        )
        recorder = current()
        assert recorder is not None
        return recorder

    yield instrument
    tollspan.uninstrument()


def after(calls: int, call: Callable[[int], object], numbers: Iterator[int]) -> tuple[int, int]:
    """Return the interpreter's allocated blocks, and the KB that it holds, after calls that the ledger has written."""
    for number in itertools.islice(numbers, calls):
        call(number)
    assert tollspan.flush()
    gc.collect()
    return sys.getallocatedblocks(), held()


def answered(model: str) -> tuple[int, bytes]:
    """Answer as the provider does: a name that it does not know is an error."""
    known = model.startswith("gpt-4o")
    return (200, packed(CHAT)) if known else (404, packed({"error": {"code": "model_not_found", "message": model}}))


@pytest.mark.parametrize("model", NAMES)
def test_calls_leave_nothing_behind(
    start: Callable[..., Recorder], tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """After as many calls again the interpreter holds what it held: of one model, and of ever new names."""
    start(ledger=str(tmp_path / "ledger.db"), budget="1000000 USD/month")
    status, body = answered(model)
    wire = Wire(status=status, pieces=[body])
    numbers = itertools.count()
    with wire.client(httpx2) as client:

        def call(number: int) -> None:
            client.post(OPENAI, json={**CHAT_REQUEST, "model": model.format(number)})
            wire.requests.clear()

        after(FILLED, call, numbers)
        blocks, resident = after(CALLS, call, numbers)
        more_blocks, more_resident = after(CALLS, call, numbers)
    growth, grown = more_blocks - blocks, more_resident - resident
    if LONG:
        with capsys.disabled():
            sys.stdout.write(f" {model}: {growth} blocks, {grown} KB of {resident} KB after {CALLS} calls more\n")
    assert growth < 200 + CALLS // 50, f"{growth} blocks for {CALLS} calls"
    assert grown < MOST_KB, f"{grown} KB for {CALLS} calls"


def test_open_streams_take_little(start: Callable[..., Recorder]) -> None:
    """A stream that stays open after its first text takes at most 4 KB, beside the span that any tracing has."""
    bare = _bytes_per_stream() + _bytes_per_span()
    recorder = start()
    _bytes_per_stream()  # modules and tables are loaded by now
    metered = _bytes_per_stream()
    assert metered - bare <= PER_STREAM, f"{metered - bare:.0f} bytes for each of {STREAMS} streams"
    assert recorder.accumulator.calls == 2 * STREAMS
    assert not recorder.open


def _bytes_per_span() -> float:
    """Return what a span of the SDK takes, with seven attributes."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    tracemalloc.start()
    spans = [tracer.start_span("made", attributes={f"name{n}": "value" for n in range(7)}) for _ in range(STREAMS)]
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return taken / len(spans)


def _bytes_per_stream() -> float:
    """Open streams, read each to its third piece, and give what each takes."""
    wire = sse(chat_stream(words=20))
    opened: list[Any] = []
    with wire.client(httpx2) as client:
        request = client.build_request("POST", OPENAI, json={**CHAT_REQUEST, "stream": True, "stream_options": {}})
        gc.collect()
        tracemalloc.start()
        for _ in range(STREAMS):
            response = client.send(request, stream=True)
            pieces = response.iter_bytes()
            for _ in range(3):
                next(pieces)
            opened.append((response, pieces))
        wire.requests.clear()
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        for response, _ in opened:
            response.close()
    return taken / STREAMS
