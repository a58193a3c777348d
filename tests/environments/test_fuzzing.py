"""Fuzzing for long: no target breaks, hangs or grows. `FUZZ_INPUTS` says how many inputs there are in all, ten million.

Nearly all of them are mutations that look at nothing (`tests/fuzz/many.py`); one in `GUIDED` is found by coverage
(`tests/fuzz/long.py`), which costs ten times as much. What coverage finds to reach something new is kept in the user's
cache folder: the next run begins there, and the mutations are made of it too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.concurrency.test_programs import ROOT

INPUTS: Final = int(os.environ.get("FUZZ_INPUTS", "10_000_000"))
GUIDED: Final = 25
SHARES: Final = {
    "answer": 0.32,
    "made-answer": 0.16,
    "framing": 0.12,
    "made-framing": 0.05,
    "request": 0.23,
    "made-request": 0.11,
    "passage": 0.005,
    "made-passage": 0.005,
}
"""The whole way through a client takes twenty times as long as a reader alone."""

CORPUS: Final = ROOT / "tests" / "fuzz" / "corpus"
GROWN: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollspan-fuzz"
LIMITS: Final = ("-timeout=20", "-rss_limit_mb=1024", "-max_len=4096", "-len_control=0", "-verbosity=0")
MOST_KB: Final = 256 * 1024
"""What a process may hold of memory at any time."""
GROWTH_KB: Final = 16 * 1024
"""What it may hold at the end beyond what it held after a tenth of its inputs."""


def test_shares() -> None:
    """The shares are of all there is."""
    assert sum(SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", SHARES)
def test_by_coverage(name: str, tmp_path: Path) -> None:
    """So many inputs, found by coverage: no exception, none that takes 20 seconds, no more than a gigabyte."""
    runs = round(INPUTS * SHARES[name] / GUIDED)
    folders = [str(folder) for folder in _folders(name)][::-1]  # what is found goes into the first
    command = [sys.executable, "-m", "tests.fuzz.long", name, f"-runs={runs}", f"-artifact_prefix={tmp_path}/", *LIMITS]
    _run([*command, *folders], tmp_path)


@pytest.mark.parametrize("name", SHARES)
def test_many(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All the others: no exception, none that takes 20 seconds, and memory stays where it is."""
    count = round(INPUTS * SHARES[name] * (1 - 1 / GUIDED))
    folders = [str(folder) for folder in _folders(name)]
    told: dict[str, Any] = json.loads(
        _run([sys.executable, "-m", "tests.fuzz.many", name, str(count), "1", str(tmp_path), *folders], tmp_path)
    )
    with capsys.disabled():
        sys.stdout.write(f" {told}\n")
    assert told["inputs"] == count
    assert told["peak"] < MOST_KB
    assert told["late"] - told["early"] < GROWTH_KB


def _folders(name: str) -> list[Path]:
    grown = GROWN / name
    grown.mkdir(parents=True, exist_ok=True)
    return [grown] if name.startswith("made-") else [CORPUS, grown]


def _run(command: list[str], found: Path) -> str:
    ended = subprocess.run(  # noqa: S603 - our own program
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
    )
    broke = {path.name: path.read_bytes() for path in found.iterdir()}
    assert ended.returncode == 0, f"{ended.stderr[-6000:]}\n{broke}"
    assert broke == {}
    return ended.stdout
