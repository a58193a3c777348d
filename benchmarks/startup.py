"""How much longer a program takes to start: importing tollspan and `instrument()`, over the OpenTelemetry SDK alone.

    python -m benchmarks.run --only startup [--quick]

Every start is a process of its own. Nothing but the SDK is imported before the clock starts, so that no module comes
for free; the SDK's own start is measured in the same processes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.measuring.pairs import ROOT, command, worker_environment
from benchmarks.measuring.reports import Report, amount, table
from benchmarks.variants.setups import FLOOR, OURS, PEERS, PLAIN, SETUPS
from tests.emitters.environments import python_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.measuring.reports import Options

STARTS: Final = 21
_NO_BYTECODE: Final = "PYTHONDONTWRITEBYTECODE"  # left out: what is installed is compiled once, not at each start
PEER_STARTS: Final = 3
MOST: Final = 40.0  # milliseconds

_PROGRAM: Final = """
import sys, time
began = time.process_time(), time.perf_counter()
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider())
ready = time.process_time(), time.perf_counter()
{steps}
import json
print(json.dumps([[after - before for before, after in zip(one, next)] for one, next in zip(marks, marks[1:])]))
"""
_STEPS: Final = """
import tollspan
imported = time.process_time(), time.perf_counter()
tollspan.instrument({options})
marks = [began, ready, imported, (time.process_time(), time.perf_counter())]
"""
_FORMS: Final = {
    "tollspan": "",
    "tollspan, ledger": "ledger={folder!r} + '/ledger.db'",
    "tollspan, budget": "budget='5 USD/day'",
}


def measure(options: Options) -> Report:
    """Measure and write it down."""
    starts = 1 if options.quick else STARTS
    rows, figures = [], {}
    for number, (name, given) in enumerate(_FORMS.items()):
        options.tell(f"startup: {name}, {starts} starts")
        found = _starts(given, starts, number)
        sdk, imported, made = (
            [median(start[step][clock] for start in found) * 1e3 for clock in (0, 1)] for step in range(3)
        )
        total = [sum(pair) for pair in zip(imported, made, strict=True)]
        rows.append([name, *(f"{amount(cpu)} / {amount(wall)}" for cpu, wall in (sdk, imported, made, total))])
        figures[name] = total
    met = ["met" if value <= MOST else "not met" for value in figures[OURS]]
    parts = [
        f"Milliseconds of CPU / wall time, medians of {starts} starts, with files that the system has read before.\n",
        table(["", "the OpenTelemetry SDK", "import tollspan", "instrument()", "the two together"], rows),
        f"Target: at most {MOST:.0f} ms together; {met[0]} in CPU time, {met[1]} in wall time.\n",
    ]
    if not options.quick:
        parts += ["## Beside others\n", _beside(options)]
    return Report(
        "What a start costs", "\n".join(parts), figures={name: amount(total[0]) for name, total in figures.items()}
    )


def _starts(given: str, count: int, number: int) -> list[list[list[float]]]:
    """Start a program so often, and give what its steps took; one more start before, that the system has its files."""
    found = []
    for turn in range(count + 1):
        with tempfile.TemporaryDirectory(prefix=f"tollspan-bench-{number}-") as folder:
            program = _PROGRAM.format(steps=_STEPS.format(options=given.format(folder=folder)))
            done = subprocess.run(  # noqa: S603 - our own program
                [sys.executable, "-c", program],
                env=_environment(OURS),
                cwd=folder,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        if turn:
            found.append(json.loads(done.stdout))
    return found


def _beside(options: Options) -> str:
    """Return what setting up takes where the vendors' SDKs and the OpenTelemetry SDK are imported already."""
    names = (PLAIN, FLOOR, OURS, *PEERS)
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in names}
    for turn in range(PEER_STARTS + 1):
        options.tell(f"startup: others, start {turn} of {PEER_STARTS}")
        for name in names:
            told = _setup(name)
            if turn:
                found[name].append(told)
    rows: list[Sequence[str]] = []
    for name in names[1:]:
        over = [
            median(one[clock] for one in found[name]) - median(one[clock] for one in found[PLAIN])
            for clock in ("cpu", "wall")
        ]
        rows.append([SETUPS[name].title, *map(amount, over)])
    return (
        "Milliseconds that setting up takes in a program that has imported `openai`, `anthropic` and the OpenTelemetry "
        f"SDK, so that modules which these have too come for free; medians of {PEER_STARTS} starts.\n\n"
        + table(["", "CPU", "wall"], rows)
    )


def _environment(name: str) -> dict[str, str]:
    return {key: value for key, value in worker_environment(name).items() if key != _NO_BYTECODE}


def _setup(name: str) -> Mapping[str, float]:
    words = command(Path(python_of(SETUPS[name].home)), "sdk", name, "--start")
    done = subprocess.run(  # noqa: S603 - our own program
        words, env=_environment(name), cwd=ROOT, capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found
