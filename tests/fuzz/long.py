"""Fuzzes one target by coverage, with atheris: `python -m tests.fuzz.long answer -runs=100000 GROWN tests/fuzz/corpus`.

Targets are those of `targets.py`; `made-answer`, `made-request` and so on are given bodies made of the formats' own
words (`generated_bodies.py`), and no corpus. The rest of the line is libFuzzer's: it writes its findings into the first
folder, and an input that breaks something to `crash-*`, `timeout-*` or `oom-*` under `-artifact_prefix`.

`make soak` runs all of them (tests/soak/test_fuzzing.py).
"""

from __future__ import annotations

import logging
import sys

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

with atheris.instrument_imports(include=["tollspan"]):
    from tests.fuzz.generated_bodies import body
    from tests.fuzz.targets import TARGETS

MADE = "made-"


def main() -> None:
    """Fuzz until something breaks, or the runs are done."""
    logging.disable()  # a model without a price is logged, which does not matter here
    name = sys.argv.pop(1)
    target = TARGETS[name.removeprefix(MADE)]
    atheris.Setup(sys.argv, (lambda data: target(body(data))) if name.startswith(MADE) else target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
