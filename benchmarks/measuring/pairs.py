"""Measures variants against each other: one live process for each, short blocks in turn, all in one run.

    with Workers("raw", names) as workers:
        figures = compare(workers, rounds=25, tell=...)
    figures.added("tollspan", "call")      # microseconds of CPU time that one call takes beyond the uninstrumented one

In each round every variant runs every workload once, in an order that is drawn anew; a figure is the median over the
rounds of the differences within a round, so that a machine that slows down for a while slows both of a pair. What the
second uninstrumented process adds is what these figures cannot tell from nothing; `doubt` is how far a median may be
off.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Final

from benchmarks.variants.setups import AGAIN, PLAIN, environment_of
from benchmarks.variants.workloads import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

ROOT: Final = Path(__file__).resolve().parents[2]
BLOCK: Final = 0.025
"""Seconds that a block of the uninstrumented variant is to take: long for the clock, short for the machine's moods."""

LONGER: Final = 4
"""Times as long a block, for requests that are no model calls."""

_FEW: Final = 4  # of so few figures there are no quartiles


@dataclass(frozen=True, slots=True)
class Sample:
    """What one call took in one block: microseconds, and instructions where they can be counted."""

    cpu: float
    own: float
    wall: float
    instructions: float | None = None


@dataclass
class Figures:
    """All samples by variant and workload, one a round."""

    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)

    def has(self, variant: str, workload: str) -> bool:
        """Return whether a variant was measured with a workload."""
        return (variant, workload) in self.samples

    def middle(self, variant: str, workload: str, what: str = "cpu") -> float:
        """Return the median of a figure itself."""
        return median(self._values(variant, workload, what))

    def added(self, variant: str, workload: str, what: str = "cpu") -> float:
        """Return the median of what a variant adds to the uninstrumented call of its round."""
        return median(self._differences(variant, workload, what))

    def doubt(self, variant: str, workload: str, what: str = "cpu") -> float:
        """Return how far off that median may well be."""
        return _doubt(self._differences(variant, workload, what))

    def each(self, variant: str, short: str, long: str, more: int) -> tuple[float, float]:
        """Return what each piece adds of the `more` that the `long` stream has beyond the `short` one, and a doubt."""
        pairs = zip(self._differences(variant, long, "cpu"), self._differences(variant, short, "cpu"), strict=True)
        found = [(after - before) / more for after, before in pairs]
        return median(found), _doubt(found)

    def noise(self, workload: str, what: str = "cpu") -> float:
        """Return what the second uninstrumented process seems to add."""
        return abs(self.added(AGAIN, workload, what))

    def _values(self, variant: str, workload: str, what: str) -> list[float]:
        return [getattr(sample, what) for sample in self.samples[variant, workload]]

    def _differences(self, variant: str, workload: str, what: str) -> list[float]:
        pairs = zip(self._values(variant, workload, what), self._values(PLAIN, workload, what), strict=True)
        return [value - plain for value, plain in pairs]


def _doubt(found: Sequence[float]) -> float:
    """Return half the width of the notch of a box plot: 95% confidence of a median (McGill, Tukey, Larsen 1978)."""
    if len(found) < _FEW:
        return max(found) - min(found)
    low, _, high = quantiles(found, n=4)
    return 1.57 * (high - low) / sqrt(len(found))


class Worker:
    """A variant's process (see variants/__main__.py)."""

    def __init__(self, kind: str, variant: str, python: Path) -> None:
        """Start it; `ready` waits until it is warm."""
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process lives
        self._name = f"{kind}, {variant}"
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            command(python, kind, variant),
            env=worker_environment(variant),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def ready(self) -> dict[str, Any]:
        """Wait until it is, and give what it says then."""
        return self._answer()

    def ask(self, **question: object) -> dict[str, Any]:
        """Return a command and wait for the answer."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"the process of {self._name} ended early:\n{self._log.read()[-3000:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def stop(self) -> None:
        """End it."""
        self._process.communicate()
        self._log.close()


def command(python: Path, kind: str, variant: str, *more: str) -> list[str]:
    """Return the command of a variant's process."""
    return [str(python), "-m", "benchmarks.variants", kind, variant, *more]


def worker_environment(variant: str) -> dict[str, str]:
    """Return the environment of a variant's process, in which this checkout can be imported."""
    return {**environment_of(variant), "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


class Workers:
    """The processes of several variants, for a `with` block."""

    def __init__(self, kind: str, variants: Iterable[str], pythons: Mapping[str, Path] | None = None) -> None:
        """Start them, each with its interpreter of `pythons`, or with ours."""
        own = Path(sys.executable)
        self.workers = {name: Worker(kind, name, (pythons or {}).get(name, own)) for name in variants}
        self.told: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        self.told = {name: worker.ready() for name, worker in self.workers.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers.values():
            worker.stop()

    @property
    def workloads(self) -> list[str]:
        """Return the names of the workloads."""
        found: list[str] = self.told[PLAIN]["ready"]
        return found

    def counts(self) -> bool:
        """Return whether instructions are counted."""
        return all(told["counts"] for told in self.told.values())


def compare(workers: Workers, rounds: int, tell: Callable[[str], object], block: float = BLOCK) -> Figures:
    """Run the rounds and give the figures; `tell` hears how far it is."""
    figures, order = Figures(), random.Random(7)  # noqa: S311 - the same order each time
    times = {workload: _times(workers.workers[PLAIN], workload, block) for workload in workers.workloads}
    for number in range(rounds):
        for workload, count in times.items():
            names = [name for name in workers.workers if workload in workers.told[name]["ready"]]
            order.shuffle(names)
            for name in names:
                taken = workers.workers[name].ask(run=workload, times=count)
                figures.samples.setdefault((name, workload), []).append(Sample(**taken))
        tell(f"round {number + 1} of {rounds}")
    return figures


def _times(worker: Worker, workload: str, block: float) -> int:
    """Return how often a workload is to run for a block to take its time."""
    worker.ask(run=workload, times=1)
    one = float(worker.ask(run=workload, times=1)["cpu"]) / 1e6
    at_once = AT_ONCE if "at once" in workload else 1
    # What costs next to nothing needs a longer look.
    return max(1, round(block * (LONGER if "other" in workload else 1) / (one * at_once)))
