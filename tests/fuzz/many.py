"""Runs one target with very many inputs, fast: `python -m tests.fuzz.many answer 1000000 SEED FOUND CORPUS...`.

What `long.py` finds by looking at coverage costs it ten times as long for each input. This looks at nothing: inputs are
mutations of those in the folders CORPUS (`mutations.py`), or with `made-answer` and so on bodies of the formats' words.
An input that raises, or takes longer than `PATIENCE`, is written to the folder FOUND, and the program fails. At the end
it prints, as JSON, how many inputs there were, in how many seconds, and what the process held of memory in KB, after a
tenth of them and at the end.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys
from pathlib import Path
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING, Final

from tests.fuzz.generated_bodies import body
from tests.fuzz.mutations import Mutator
from tests.fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MADE: Final = "made-"
PATIENCE: Final = 20
"""Seconds that one input may take."""


class Hang(BaseException):
    """Raised in an input that takes too long; no boundary of tollspan's catches it."""


def inputs(name: str, corpus: Sequence[bytes], seed: int, count: int) -> Iterator[bytes]:
    """Return so many inputs for a target."""
    random = Random(f"{name} {seed}")  # noqa: S311 - the same inputs each time
    if name.startswith(MADE):
        make: Callable[[Random], bytes] = _made
    else:
        make = Mutator(corpus).make
    for _ in range(count):
        yield make(random)


def _made(random: Random) -> bytes:
    return body(random.randbytes(30 + random.randrange(300)))


def run_inputs(name: str, bodies: Iterator[bytes], found: Path) -> Iterator[int]:
    """Run a target with each input and yield its number; an input that breaks something is written to `found`."""
    target = TARGETS[name.removeprefix(MADE)]
    before = signal.signal(signal.SIGALRM, _hang)
    try:
        for number, data in enumerate(bodies, 1):
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
            try:
                target(data)
            except BaseException:
                (found / f"{name}-{number}").write_bytes(data)
                raise
            yield number
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _hang(*_: object) -> None:
    raise Hang


def held(what: str = "VmRSS") -> int:
    """Return the memory that this process holds, in KB; as "VmHWM" the most that it has held.

    `getrusage` would do for that elsewhere; on Linux it counts what held the process that started this one, too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(f"{what}:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Run all inputs (see the module's docstring)."""
    name, count, seed, found, *folders = sys.argv[1:]
    logging.disable()  # a model without a price is logged, which does not matter here
    corpus = [path.read_bytes() for folder in folders for path in sorted(Path(folder).iterdir())]
    start, early = perf_counter(), 0
    for number in run_inputs(name, inputs(name, corpus, int(seed), int(count)), Path(found)):
        if number == int(count) // 10:
            early = held()
    report = {"target": name, "inputs": int(count), "seconds": round(perf_counter() - start, 1)}
    sys.stdout.write(json.dumps({**report, "early": early, "late": held(), "peak": held("VmHWM")}) + "\n")


if __name__ == "__main__":
    main()
