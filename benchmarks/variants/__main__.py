"""One variant, alive: reads a command a line on standard input, answers each with a line of JSON.

    python -m benchmarks.variants KIND VARIANT            (KIND: raw or sdk; VARIANT: a name of setups.SETUPS)
    {"run": WORKLOAD, "times": N}  ->  {"cpu": us, "own": us, "wall": us, "instructions": N or null} of one call
    {"check": WORKLOAD}            ->  {"spans": [attributes of each], "points": recordings of histograms} of one call

`cpu` is the time of all threads, and what a variant still does behind the calls is waited for; `own` and `wall` are of
the thread that makes the calls, without that. The first line is {"ready": names of the workloads, "setup": ms, ...}.

    python -m benchmarks.variants KIND VARIANT --start

answers with the milliseconds that setting up took, and ends.

    python -m benchmarks.variants KIND VARIANT --marked N

runs every workload N times instead, with a mark in front of each and behind the last (see measuring/instructions.py),
and answers with their names and how many calls each makes at a time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.measuring.instructions import counter, mark
from benchmarks.variants.setups import SETUPS, World
from benchmarks.variants.workloads import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.variants.workloads import Workload

_WARM = 2


class Variant:
    """A variant that is put in place, and its workloads."""

    def __init__(self, kind: str, name: str) -> None:
        for needed in ("openai", "anthropic") if kind == "sdk" else ("httpx2",):
            import_module(needed)  # the application has them anyway
        self.world = World()
        setup = SETUPS[name]
        began, wall = time.process_time(), time.perf_counter()
        setup.apply(self.world)
        self.setup = {
            "cpu": (time.process_time() - began) * 1e3,
            "wall": (time.perf_counter() - wall) * 1e3,
        }
        self.runner = asyncio.Runner()
        self.workloads: dict[str, Workload] = {
            workload: found.inside(self.world)
            for workload, found in KINDS[kind](self.world).items()
            if setup.anthropic or "anthropic" not in workload
        }

    def warm(self) -> None:
        """Run everything until nothing is done for the first time; what is loaded by then is no garbage."""
        for workload in self.workloads.values():
            workload.run(_WARM, self.runner)
        self.flush()
        gc.collect()
        gc.freeze()

    def flush(self) -> None:
        """Wait until what the variant does behind the calls is done."""
        for function in self.world.flush:
            function()

    def run(self, name: str, times: int, instructions: Callable[[], int | None]) -> dict[str, float | None]:
        """Run a workload and give what one call took."""
        workload = self.workloads[name]
        counted = instructions()
        cpu, own, wall = time.process_time(), time.thread_time(), time.perf_counter()
        calls = workload.run(times, self.runner)
        own, wall = time.thread_time() - own, time.perf_counter() - wall
        self.flush()
        cpu = time.process_time() - cpu
        after = instructions()
        return {
            "cpu": cpu / calls * 1e6,
            "own": own / calls * 1e6,
            "wall": wall / calls * 1e6,
            "instructions": None if counted is None or after is None else (after - counted) / calls,
        }

    def check(self, name: str) -> dict[str, Any]:
        """Run a workload once and give what was recorded of it."""
        self.flush()
        self.world.reader.get_metrics_data()
        self.world.exporter.kept = []
        self.workloads[name].run(1, self.runner)
        self.flush()
        spans, self.world.exporter.kept = self.world.exporter.kept, None
        data = self.world.reader.get_metrics_data()
        points = [
            getattr(point, "count", 0)
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]
        return {"spans": [dict(span.attributes or {}) for span in spans], "points": sum(points)}

    def marked(self, times: int) -> list[tuple[str, int]]:
        """Run every workload so many times with a mark between them; give their names, and their calls in one time."""
        for workload in self.workloads.values():
            mark()
            workload.run(times, self.runner)
            self.flush()
        mark()
        return [(name, workload.at_once) for name, workload in self.workloads.items()]


def main() -> None:
    """Serve until standard input ends."""
    kind, name, *rest = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer

    def say(answer: object) -> None:
        answers.write(json.dumps(answer, default=str) + "\n")

    instructions = counter()  # before any thread is started, for threads are counted with who starts them
    variant = Variant(kind, name)
    if rest == ["--start"]:
        say(variant.setup)
        os._exit(0)
    variant.warm()
    if rest:
        say(variant.marked(int(rest[1])))
    else:
        say({"ready": list(variant.workloads), "setup": variant.setup, "counts": instructions() is not None})
        for line in sys.stdin:
            command = json.loads(line)
            if "check" in command:
                say(variant.check(command["check"]))
            else:
                say(variant.run(command["run"], command["times"], instructions))
    answers.flush()
    os._exit(0)  # some variants try for a while to export what is left


if __name__ == "__main__":
    main()
