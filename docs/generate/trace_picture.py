"""Draws docs/trace.svg: the spans that tollspan writes while the demo application runs against the fake provider.

    python -m docs.generate.trace_picture

The application is examples/demo/app.py, with a span around it. The first call to Anthropic is answered 429, so its SDK
sends it again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch
from xml.sax.saxutils import escape

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import tollspan
from examples.demo import app
from examples.demo.run import METERED, environment
from examples.fake_provider import FakeProvider

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

FILE: Final = Path(__file__).parents[1] / "trace.svg"
WIDTH: Final = 960
NAMES: Final = 250
"""Width of the column of names, in pixels."""
FIGURES: Final = 250
"""Width of the column of figures."""
ROW: Final = 24
HEAD: Final = 34

STYLE: Final = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.quiet { fill: #59636e }
.number { text-anchor: end; font-variant-numeric: tabular-nums }
.back { fill: #ffffff }
.line { stroke: #d1d9e0 }
.around { fill: #8c959f }
.openai { fill: #1a7f64 }
.anthropic { fill: #c2693f }
.error { fill: #cf222e }
.waiting { opacity: .45 }
@media (prefers-color-scheme: dark) {
 text { fill: #f0f6fc } .quiet { fill: #9198a1 } .back { fill: #0d1117 } .line { stroke: #3d444d }
 .openai { fill: #2fb490 } .anthropic { fill: #e0885c } .error { fill: #f85149 }
}"""


def spans(pace: float = 1.0) -> list[ReadableSpan]:
    """Run the application, and return its spans in the order of their start, the one around it first."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with FakeProvider(pace=pace) as fake:
        fake.fail_next(429, path="/anthropic/v1/messages", headers={"retry-after-ms": "300"})
        hosts = [f"{fake.netloc}/{name}={name}" for name in METERED]
        variables = environment(fake, FILE)
        wanted = {name: value for name, value in variables.items() if name.endswith(("_URL", "_KEY", "_PROXY"))}
        with patch.dict(os.environ, wanted):
            tollspan.instrument(tracer_provider=provider, hosts=hosts)
            try:
                with provider.get_tracer("demo").start_as_current_span("bookshop assistant"):
                    app.main()
            finally:
                tollspan.uninstrument()
    return sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)


def drawn(trace: Sequence[ReadableSpan]) -> str:
    """Return a picture of the spans of one trace: what each took, until its first chunk and after, and what it cost."""
    begin = min(span.start_time or 0 for span in trace)
    seconds = max(_until(span, begin) for span in trace)
    scale = (WIDTH - NAMES - FIGURES) / seconds
    height = HEAD + ROW * len(trace) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        "<title>The trace of a program with model calls: each span with its time, its tokens and its cost</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{height}"/>',
        f'<text class="quiet" x="12" y="21">span</text><text class="quiet" x="{NAMES}" y="21">0 s</text>',
        f'<text class="quiet number" x="{WIDTH - FIGURES}" y="21">{seconds:.1f} s</text>',
        f'<text class="quiet number" x="{WIDTH - 100}" y="21">tokens in, out</text>',
        f'<text class="quiet number" x="{WIDTH - 12}" y="21">cost</text>',
        f'<line class="line" x1="0" x2="{WIDTH}" y1="{HEAD - 4}" y2="{HEAD - 4}"/>',
    ]
    for row, span in enumerate(trace):
        parts += _row(span, HEAD + ROW * row, (span.start_time or 0) - begin, scale)
    return "\n".join([*parts, "</svg>", ""])


def _until(span: ReadableSpan, begin: int) -> float:
    return ((span.end_time or 0) - begin) / 1e9


def _row(span: ReadableSpan, top: int, offset: int, scale: float) -> list[str]:
    """Return the elements of one span."""
    attributes: dict[str, Any] = dict(span.attributes or {})
    left, length = NAMES + offset / 1e9 * scale, _until(span, span.start_time or 0) * scale
    failed = "error.type" in attributes
    kind = "error" if failed else attributes.get("gen_ai.provider.name", "around")
    waiting = attributes.get("gen_ai.response.time_to_first_chunk", 0) * scale
    name = span.name if span.parent is None else f"  {span.name}"
    text = top + 16
    parts = [f'<text xml:space="preserve" x="12" y="{text}">{escape(name)}</text>']
    if waiting:
        parts.append(_bar(f"{kind} waiting", left, top, waiting))
    parts.append(_bar(kind, left + waiting, top, max(length - waiting, 1)))
    if failed:
        parts.append(
            f'<text class="quiet number" x="{WIDTH - 12}" y="{text}">{escape(str(attributes["error.type"]))}</text>'
        )
    if "gen_ai.usage.cost.amount" in attributes:
        counts = f"{attributes['gen_ai.usage.input_tokens']:,}, {attributes['gen_ai.usage.output_tokens']:,}"
        parts.append(f'<text class="quiet number" x="{WIDTH - 100}" y="{text}">{counts}</text>')
        parts.append(
            f'<text class="number" x="{WIDTH - 12}" y="{text}">${attributes["gen_ai.usage.cost.amount"]:.6f}</text>'
        )
    return parts


def _bar(kind: str, left: float, top: int, width: float) -> str:
    return f'<rect class="{kind}" x="{left:.1f}" y="{top + 4}" width="{width:.1f}" height="{ROW - 8}" rx="2"/>'


def main() -> int:
    """Write the picture."""
    FILE.write_text(drawn(spans()), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
