"""What a call costs over bare httpx2: uninstrumented, with a span written by hand, and with tollspan.

    python -m benchmarks.run --only overhead [--quick]

The transport is in memory, and no SDK takes part: what is left is the client and what meters it. `peers.py` has the
same through the vendors' SDKs.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.measuring import instructions
from benchmarks.measuring.chart import Column, bars
from benchmarks.measuring.pairs import ROOT, Workers, command, compare, worker_environment
from benchmarks.measuring.reports import Report, amount, between, ratio, table
from benchmarks.variants.answers import LENGTHS
from benchmarks.variants.setups import AGAIN, FLOOR, OURS, PLAIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.measuring.pairs import Figures
    from benchmarks.measuring.reports import Options

LEDGER: Final = "tollspan, ledger"
BUDGET: Final = "tollspan, budget"
EVENTS: Final = "tollspan, events"
VARIANTS: Final = (PLAIN, AGAIN, FLOOR, OURS, LEDGER, BUDGET, EVENTS)
SHORT, LONG = LENGTHS
MORE: Final = LONG - SHORT
CHUNKS: Final = {
    "OpenAI": (f"stream {SHORT}", f"stream {LONG}"),
    "OpenAI, async": (f"stream {SHORT}, async", f"stream {LONG}, async"),
    "OpenAI, gzip": (f"stream {SHORT}, gzip", f"stream {LONG}, gzip"),
    "Anthropic": (f"stream {SHORT}, anthropic", f"stream {LONG}, anthropic"),
}
"""Pairs of streams: what the longer one takes more is what its further chunks take."""

_TOLD: Final = ("OpenAI", "Anthropic")

ROUNDS: Final = 25
FLOOR_SHARE: Final = 1.2
_HOW: Final = (
    "Microseconds: medians of the differences between a variant's block and the uninstrumented block of its round, "
    "± how far such a median may be off (the notch of a box plot, about 95%). What a second uninstrumented process "
    "adds is noise. *Written by hand* is one span with 12 attributes and four metric points around the call; "
    "*ledger* includes writing to the file, *budget* is one in memory, *events* has a log event for each call."
)
CHUNK: Final = 1.0  # microseconds
OTHER: Final = 1.0  # the same

Counts = dict[tuple[str, str], float]
"""Instructions of one call, by variant and workload."""


def measure(options: Options) -> Report:
    """Measure and write it down."""
    options.tell("overhead: starting")
    with Workers("raw", VARIANTS) as workers:
        rounds, block = (2, 0.002) if options.quick else (ROUNDS, 0.025)
        figures = compare(workers, rounds, lambda text: options.tell(f"overhead: {text}"), block)
        workloads, has_counter = workers.workloads, workers.counts()
    counts, source = _counts(options, figures, workloads, has_counter=has_counter)
    parts = [
        f"{rounds} rounds. {_HOW}\n",
        "## Added CPU time of one call\n",
        _times(figures, workloads, "cpu"),
        "## Added CPU time of each further chunk of a stream\n",
        _chunks(figures),
        "## Added wall time of one call\n",
        "As the thread that calls sees it; what is done behind is left out.\n",
        _times(figures, workloads, "wall"),
        "## Instructions\n",
        f"{source}\n",
    ]
    if counts:
        parts += [_instructions(counts, workloads)]
    parts += ["## Targets\n", _targets(figures, counts)]
    return Report(
        "What a call costs over httpx2", "\n".join(parts), {"overhead.svg": _chart(figures)}, _summary(figures)
    )


def _times(figures: Figures, workloads: Sequence[str], what: str) -> str:
    rows = []
    for workload in workloads:
        floor, noise = figures.added(FLOOR, workload, what), figures.noise(workload, what)
        cells = [
            between(figures.added(name, workload, what), figures.doubt(name, workload, what))
            for name in (FLOOR, OURS, LEDGER, BUDGET, EVENTS)
        ]
        share = ratio(figures.added(OURS, workload, what), floor, noise) if "other" not in workload else "-"
        plain = amount(figures.middle(PLAIN, workload, what))
        rows.append([workload, plain, amount(noise), *cells[:2], share, *cells[2:]])
    header = ["", PLAIN, "noise", FLOOR, OURS, "tollspan / by hand", "with a ledger", "with a budget", "with events"]
    return table(header, rows)


def _chunks(figures: Figures) -> str:
    rows = [
        [name, *(between(*figures.each(variant, *pair, MORE)) for variant in VARIANTS[1:])]
        for name, pair in CHUNKS.items()
    ]
    return table(["", "noise", FLOOR, OURS, "with a ledger", "with a budget", "with events"], rows)


# Instructions


def _counts(options: Options, figures: Figures, workloads: Sequence[str], *, has_counter: bool) -> tuple[Counts, str]:
    """Return the instructions of one call, and a line that says how they were counted."""
    if has_counter:
        counts = {key: figures.middle(*key, "instructions") for key in figures.samples}
        return counts, "Counted by the processor, in user mode, all threads."
    if options.quick or instructions.valgrind() is None:
        why = "a quick run leaves Valgrind out" if options.quick else "Valgrind is not installed"
        return {}, f"Not counted: the kernel gives no counter of the processor here, and {why}."
    options.tell("overhead: counting instructions under Valgrind, some minutes")
    names = [name for name in VARIANTS if name != AGAIN]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(_under_valgrind, names)
        counts = {
            (name, workload): count
            for name, of_variant in zip(names, found, strict=True)
            for workload, count in of_variant.items()
            if workload in workloads
        }
    return counts, (
        "Counted by Valgrind, user mode, all threads, for the kernel gives no counter of the processor here. Times "
        "move with the machine; these hardly do."
    )


_TIMES: Final = 20
"""How often each workload is run under Valgrind, which is fifty times slower."""


def _under_valgrind(name: str) -> Mapping[str, float]:
    words = command(Path(sys.executable), "raw", name, "--marked", str(_TIMES))
    said, counts = instructions.marked(words, worker_environment(name), ROOT)
    told = json.loads(said)
    return {workload: count / (_TIMES * calls) for (workload, calls), count in zip(told, counts, strict=True)}


def _instructions(counts: Counts, workloads: Sequence[str]) -> str:
    def added(name: str, workload: str) -> float:
        return (counts[name, workload] - counts[PLAIN, workload]) / 1e3

    names = [name for name in VARIANTS if name != AGAIN]
    rows = []
    for workload in workloads:
        floor, ours = added(FLOOR, workload), added(OURS, workload)
        cells = [amount(added(name, workload)) for name in names[1:]]
        share = ratio(ours, floor) if "other" not in workload else "-"
        rows.append([workload, amount(counts[PLAIN, workload] / 1e3), *cells[:2], share, *cells[2:]])
    for name, (short, long) in CHUNKS.items():
        cells = [amount((added(variant, long) - added(variant, short)) / MORE) for variant in names[1:]]
        rows.append([f"each further chunk, {name}", "", *cells[:2], "", *cells[2:]])
    header = [
        "thousands of instructions added",
        PLAIN,
        FLOOR,
        OURS,
        "tollspan / by hand",
        "with a ledger",
        "with a budget",
        "with events",
    ]
    return table(header, rows)


# What it comes to


def _targets(figures: Figures, counts: Counts) -> str:
    floor = figures.added(FLOOR, "call")
    call, doubt = figures.added(OURS, "call") / floor, figures.doubt(OURS, "call") / floor
    post, get = figures.added(OURS, "other POST"), figures.added(OURS, "other GET")
    rows = [
        _target("a plain call, of what one written by hand adds", call, doubt, FLOOR_SHARE, "x"),
        *(_target(f"a streamed chunk, {name}", *figures.each(OURS, *CHUNKS[name], MORE), CHUNK) for name in _TOLD),
        _target("a POST that is no model call", post, figures.doubt(OURS, "other POST"), OTHER),
        _target("a GET that is no model call", get, figures.doubt(OURS, "other GET"), OTHER),
    ]
    if counts:
        added = [counts[name, "call"] - counts[PLAIN, "call"] for name in (OURS, FLOOR)]
        rows.insert(1, _target("the same, in instructions", added[0] / added[1], 0.0, FLOOR_SHARE, "x"))
    return table(["added CPU", "measured", "target: at most", "met"], rows)


def _target(name: str, value: float, doubt: float, target: float, unit: str = " µs") -> list[str]:
    said = f"{between(value, doubt)}{unit}" if doubt else f"{amount(value)}{unit}"
    unclear = doubt and value - doubt <= target < value + doubt
    return [name, said, f"{target:g}{unit}", "cannot be told" if unclear else "yes" if value <= target else "no"]


def _summary(figures: Figures) -> dict[str, str]:
    calls = {"": OURS, ", floor": FLOOR, ", ledger": LEDGER, ", budget": BUDGET, ", events": EVENTS}
    return {
        **{f"plain call{what}": _text(figures, name, "call") for what, name in calls.items()},
        **{f"chunk, {name}": between(*figures.each(OURS, *CHUNKS[name], MORE)) for name in _TOLD},
        **{workload: _text(figures, OURS, workload) for workload in ("other POST", "other GET")},
    }


def _text(figures: Figures, name: str, workload: str) -> str:
    return between(figures.added(name, workload), figures.doubt(name, workload))


def _chart(figures: Figures) -> str:
    rows = {FLOOR: FLOOR, OURS: OURS, LEDGER: "tollspan with a ledger", BUDGET: "tollspan with a budget"}

    def column(title: str, workload: str) -> Column:
        return Column(title, "µs of CPU", {label: figures.added(name, workload) for name, label in rows.items()})

    chunk = {label: figures.each(name, *CHUNKS["OpenAI"], MORE)[0] for name, label in rows.items()}
    return bars(
        "What one call adds over httpx2",
        "Added CPU time, medians. Written by hand: one span with 12 attributes and four metric points around the call.",
        list(rows.values()),
        [
            column("a plain call", "call"),
            column(f"a stream of {SHORT} chunks", f"stream {SHORT}"),
            Column("each further chunk", "µs of CPU", chunk),
        ],
        {FLOOR: "floor", OURS: "ours"},
    )
