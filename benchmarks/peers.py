"""What a call costs through the vendors' SDKs: with tollspan, and with each of its peers in an environment of its own.

    python -m benchmarks.run --only peers [--quick]

Peers instrument the SDKs and not the HTTP client, so all are measured around the `openai` and `anthropic` SDKs, of the
same versions, over the same transport in memory. The environments are those of the tests beside other instrumentations
(tests/emitters/environments); they are built where they are not there yet.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measuring.chart import Column, bars
from benchmarks.measuring.pairs import Workers, compare
from benchmarks.measuring.reports import Report, amount, between, ratio, table
from benchmarks.overhead import BUDGET, CHUNKS, LEDGER, LONG, MORE
from benchmarks.variants.answers import INPUT, OUTPUT
from benchmarks.variants.setups import AGAIN, FLOOR, OURS, PEERS, PLAIN, SETUPS
from tests.emitters.environments import python_of
from tests.emitters.verdicts import COST
from tests.emitters.verdicts import INPUT as INPUT_NAMES
from tests.emitters.verdicts import OUTPUT as OUTPUT_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.measuring.pairs import Figures
    from benchmarks.measuring.reports import Options

VARIANTS: Final = (PLAIN, AGAIN, FLOOR, OURS, LEDGER, BUDGET, *PEERS)
ALONE: Final = (PLAIN, AGAIN, FLOOR, OURS)
"""What a quick run measures: these need no environment but ours."""

ROUNDS: Final = 15
_HOW: Final = (
    "Microseconds that a variant adds to the uninstrumented SDK: medians of the differences within a round, ± how "
    "far such a median may be off (the notch of a box plot, about 95%). What a second uninstrumented process adds "
    "is noise. All have the same OpenTelemetry SDK with a batch processor whose exporter drops spans, so what an "
    "exporter costs is left out: more attributes cost more there. The Anthropic SDK's own spans are switched off in "
    "all rows. Langfuse does not instrument that SDK."
)
PACKAGES: Final = {
    "genai": "opentelemetry-instrumentation-genai-openai",
    "openinference": "openinference-instrumentation-openai",
    "openllmetry": "opentelemetry-instrumentation-openai",
    "logfire": "logfire",
    "langfuse": "langfuse",
}


def measure(options: Options) -> Report:
    """Measure and write it down."""
    names = ALONE if options.quick else VARIANTS
    pythons = {} if options.quick else _pythons(options, names)
    options.tell("peers: starting")
    with Workers("sdk", names, pythons) as workers:
        rounds, block = (1, 0.001) if options.quick else (ROUNDS, 0.02)
        figures = compare(workers, rounds, lambda text: options.tell(f"peers: {text}"), block)
        workloads = workers.workloads
        recorded = {name: _recorded(workers, name) for name in names if name not in {PLAIN, AGAIN}}
    shown = [name for name in names if name not in {PLAIN, AGAIN}]
    parts = [
        f"{rounds} rounds. {_HOW}\n",
        "## Added CPU time of one call\n",
        _times(figures, workloads, shown, "cpu"),
        "## Added CPU time of each further chunk of a stream\n",
        _chunks(figures, shown),
        "## How many times what tollspan adds\n",
        "Where the noise is as large as what is compared, there is a dash.\n",
        _shares(figures, workloads, shown),
        "## Added wall time of one call\n",
        _times(figures, workloads, shown, "wall"),
        "## What is recorded for that\n",
        f"Of one plain call with {INPUT:,} input and {OUTPUT} output tokens.\n",
        table(["", "spans", "attributes", "metric points", "tokens", "cost", "version", ""], _rows(recorded, pythons)),
    ]
    charts = {} if options.quick else {"peers.svg": _chart(figures, shown)}
    return Report(
        "What a call costs through the SDKs, beside others", "\n".join(parts), charts, _summary(figures, shown)
    )


def _pythons(options: Options, names: Sequence[str]) -> dict[str, Path]:
    found = {}
    for name in names:
        options.tell(f"peers: environment of {name}")
        found[name] = python_of(SETUPS[name].home)
    return found


# Tables


def _title(name: str) -> str:
    return SETUPS[name].title


def _added(figures: Figures, name: str, workload: str, what: str) -> str:
    if not figures.has(name, workload):
        return "-"
    return between(figures.added(name, workload, what), figures.doubt(name, workload, what))


def _times(figures: Figures, workloads: Sequence[str], names: Sequence[str], what: str) -> str:
    rows = [[f"*{PLAIN} takes*", *(amount(figures.middle(PLAIN, workload, what)) for workload in workloads)]]
    rows += [["*noise*", *(amount(figures.noise(workload, what)) for workload in workloads)]]
    rows += [[_title(name), *(_added(figures, name, workload, what) for workload in workloads)] for name in names]
    return table(["", *workloads], rows)


def _pairs(figures: Figures) -> Mapping[str, tuple[str, str]]:
    return {name: pair for name, pair in CHUNKS.items() if all(figures.has(PLAIN, workload) for workload in pair)}


def _chunk(figures: Figures, name: str, pair: tuple[str, str]) -> tuple[float, float] | None:
    return figures.each(name, *pair, MORE) if figures.has(name, pair[0]) else None


def _chunks(figures: Figures, names: Sequence[str]) -> str:
    pairs = _pairs(figures)
    rows = []
    for name in (AGAIN, *names):
        found = [_chunk(figures, name, pair) for pair in pairs.values()]
        label = "*noise*" if name == AGAIN else _title(name)
        rows.append([label, *("-" if value is None else between(*value) for value in found)])
    return table(["", *pairs], rows)


def _shares(figures: Figures, workloads: Sequence[str], names: Sequence[str]) -> str:
    pairs = _pairs(figures)
    rows = []
    for name in names:
        if name == OURS:
            continue
        cells = []
        for workload in workloads:
            ours, noise = figures.added(OURS, workload), figures.noise(workload)
            theirs = figures.added(name, workload) if figures.has(name, workload) else 0.0
            cells.append(ratio(theirs, ours, max(noise, figures.doubt(OURS, workload))))
        for pair in pairs.values():
            (ours, doubt), (noise, _) = figures.each(OURS, *pair, MORE), figures.each(AGAIN, *pair, MORE)
            found = _chunk(figures, name, pair)
            cells.append("-" if found is None else ratio(found[0], ours, max(abs(noise), doubt)))
        rows.append([_title(name), *cells])
    return table(["", *workloads, *(f"chunk, {name}" for name in pairs)], rows)


# What is recorded


def _recorded(workers: Workers, name: str) -> dict[str, Any]:
    return workers.workers[name].ask(check="call")


def _rows(recorded: Mapping[str, dict[str, Any]], pythons: Mapping[str, Path]) -> list[list[str]]:
    rows = []
    for name, found in recorded.items():
        spans: list[dict[str, Any]] = found["spans"]
        told = (_of(spans, INPUT_NAMES, "prompt_tokens"), _of(spans, OUTPUT_NAMES, "completion_tokens"))
        right = "right" if told == (INPUT, OUTPUT) else "none" if told == (None, None) else "wrong"
        counts = [str(len(spans)), str(sum(map(len, spans))), str(found["points"])]
        cost = "yes" if any(COST in span for span in spans) else "no"
        version = _version(pythons[name], PACKAGES[name]) if name in PACKAGES else ""
        rows.append([_title(name), *counts, right if name != FLOOR else "-", cost, version, SETUPS[name].note])
    return rows


def _of(spans: Sequence[dict[str, Any]], names: Sequence[str], in_details: str) -> int | None:
    """Return a count of the first span that has it, under its own name or in Langfuse's JSON."""
    for span in spans:
        for name in names:
            if name in span:
                return int(span[name])
        details = json.loads(span.get("langfuse.observation.usage_details", "{}"))
        if in_details in details:
            return int(details[in_details])
    return None


def _version(python: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


# What it comes to


def _summary(figures: Figures, names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        found[f"{name}, call"] = _added(figures, name, "call", "cpu")
        for kind in ("OpenAI", "Anthropic"):
            chunk = _chunk(figures, name, CHUNKS[kind])
            if chunk is not None:
                found[f"{name}, chunk, {kind}"] = between(*chunk)
    return found


def _chart(figures: Figures, names: Sequence[str]) -> str:
    labels = {name: _title(name) for name in names if name not in {LEDGER, BUDGET}}

    def chunks(title: str, kind: str) -> Column:
        found = {label: _chunk(figures, name, CHUNKS[kind]) for name, label in labels.items()}
        return Column(title, "µs of CPU", {label: chunk and chunk[0] for label, chunk in found.items()})

    def calls(title: str, workload: str, unit: str, share: float) -> Column:
        found = {
            label: figures.added(name, workload) / share if figures.has(name, workload) else None
            for name, label in labels.items()
        }
        return Column(title, unit, found)

    return bars(
        "What instrumentation adds to the openai and anthropic SDKs",
        "Added CPU time, medians; exporters drop what they are given. Less is better.",
        list(labels.values()),
        [
            calls("a plain call", "call", "µs of CPU", 1),
            calls(f"a stream of {LONG:,} chunks", f"stream {LONG}", "ms of CPU", 1e3),
            chunks("each chunk, OpenAI", "OpenAI"),
            chunks("each event, Anthropic", "Anthropic"),
        ],
        {FLOOR: "floor", OURS: "ours"},
    )
