"""What a call and a streamed chunk cost with tollspan, beside an unmetered client and a hand-written span.

    python benchmarks/overhead.py [--rounds 15]

One live process per variant, measured in turn in short blocks of CPU time, so that a machine that slows down slows
all of them. A figure is the lower quartile over the rounds. Machines differ: read the ratios.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import quantiles
from typing import Final

VARIANTS: Final = ("plain", "floor", "tollspan")
BLOCKS: Final = {"call": 150, "other": 400, "stream 200": 8, "stream 1000": 3}
CHUNKS: Final = 800  # the pieces by which the two streams differ


class Worker:
    """A variant's process (see worker.py)."""

    def __init__(self, variant: str) -> None:
        """Start it and wait until it is ready."""
        command = [sys.executable, str(Path(__file__).parent / "worker.py"), variant]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        self._ask("")

    def _ask(self, line: str) -> str:
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        if line:
            process.stdin.write(line + "\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise SystemExit(f"a worker ended early: {process.args}")
        return answer

    def run(self, workload: str) -> float:
        """Give the CPU microseconds that one call of a workload takes."""
        return float(self._ask(json.dumps({"workload": workload, "times": BLOCKS[workload]})))


def measure(rounds: int) -> dict[tuple[str, str], float]:
    """Give the figure of each variant and workload."""
    workers = {variant: Worker(variant) for variant in VARIANTS}
    taken: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 1):
        for workload in BLOCKS:
            for variant, worker in workers.items():
                microseconds = worker.run(workload)
                if number:  # the first round warms up
                    taken.setdefault((variant, workload), []).append(microseconds)
    return {key: quantiles(values, n=4)[0] for key, values in taken.items()}


def report(figures: dict[tuple[str, str], float]) -> str:
    """Give the figures as a Markdown table."""

    def added(variant: str, workload: str) -> float:
        return figures[variant, workload] - figures["plain", workload]

    def chunk(variant: str) -> float:
        return (added(variant, "stream 1000") - added(variant, "stream 200")) / CHUNKS

    rows = [
        "| added CPU, microseconds | unmetered takes | written by hand | tollspan | ratio |",
        "|---|---|---|---|---|",
    ]
    for name, workload in (("a plain call", "call"), ("a stream of 200 pieces", "stream 200")):
        floor, ours = added("floor", workload), added("tollspan", workload)
        rows.append(f"| {name} | {figures['plain', workload]:.0f} | {floor:.0f} | {ours:.0f} | {ours / floor:.2f} |")
    rows.append(f"| each further piece of a stream | | {chunk('floor'):.2f} | {chunk('tollspan'):.2f} | |")
    others = figures["plain", "other"], added("tollspan", "other")
    rows.append(f"| a request that is no model call | {others[0]:.0f} | 0 | {others[1]:.1f} | |")
    return "\n".join(rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    print(report(measure(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
