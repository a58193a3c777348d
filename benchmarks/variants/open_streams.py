"""Open streams and leave them open: how many bytes each takes.

    python -m benchmarks.variants.open_streams VARIANT COUNT HOW

Each stream is read to its third piece. HOW is `traced` (what Python allocated, exactly) or `resident` (what the process
has of the machine's memory). Prints bytes for each stream.
"""

from __future__ import annotations

import gc
import os
import sys
import tracemalloc
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from benchmarks.variants.setups import FLOOR, SETUPS, World
from benchmarks.variants.transports import transport
from benchmarks.variants.workloads import OPENAI_URL, stream_body

if TYPE_CHECKING:
    from collections.abc import Callable


def opener(variant: str) -> Callable[[], object]:
    """Return a function that opens a stream and gives what is to be kept of it."""
    lib = import_module("httpx2")
    client = lib.Client(transport=transport(lib))
    tracer = trace.get_tracer("floor")
    attributes = {f"gen_ai.usage.{number}": number for number in range(12)}

    def open_one() -> object:
        span: Any = None
        if variant == FLOOR:
            span = tracer.start_span("chat gpt-4o-mini", kind=SpanKind.CLIENT, attributes=attributes)
        request = client.build_request(
            "POST", OPENAI_URL, content=stream_body(), headers={"content-type": "application/json"}
        )
        response = client.send(request, stream=True)
        pieces = response.iter_bytes()
        for _ in islice(pieces, 3):
            pass
        return span, response, pieces

    return open_one


def resident() -> int:
    """Return the bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Open them and print what each takes."""
    variant, count, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    SETUPS[variant].apply(World())
    open_one = opener(variant)
    kept = [open_one() for _ in range(50)]  # what is made once is made
    kept.clear()
    gc.collect()
    if how == "traced":
        tracemalloc.start()
    taken: Callable[[], int] = (lambda: tracemalloc.get_traced_memory()[0]) if how == "traced" else resident
    before = taken()
    kept = [open_one() for _ in range(count)]
    gc.collect()
    print((taken() - before) / count, flush=True)
    os._exit(0)  # the streams stay as they are


if __name__ == "__main__":
    main()
