"""Fuzzing by coverage, for long: no target breaks, hangs or grows. `FUZZ_RUNS` says how many inputs each is given.

The inputs that are found to reach something new are kept in the user's cache folder, and are where the next run begins.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.concurrency.test_programs import ROOT
from tests.fuzz.targets import TARGETS

RUNS: Final = int(os.environ.get("FUZZ_RUNS", "150000"))
SHARES: Final = {"passage": 0.05, "made-passage": 0.05}
"""The whole way through a client takes a hundred times as long as a reader alone."""

GROWN: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollspan-fuzz"
LIMITS: Final = ("-timeout=20", "-rss_limit_mb=1024", "-max_len=4096", "-len_control=0", "-verbosity=0")


@pytest.mark.parametrize("name", [f"{prefix}{target}" for target in TARGETS for prefix in ("", "made-")])
def test_target(name: str, tmp_path: Path) -> None:
    """So many inputs: no exception, none that takes 20 seconds, no more than a gigabyte."""
    grown = GROWN / name
    grown.mkdir(parents=True, exist_ok=True)
    folders = [str(grown)] if name.startswith("made-") else [str(grown), str(ROOT / "tests" / "fuzz" / "corpus")]
    runs = round(RUNS * SHARES.get(name, 1))
    command = [sys.executable, "-m", "tests.fuzz.long", name, f"-runs={runs}", f"-artifact_prefix={tmp_path}/", *LIMITS]
    ended = subprocess.run(  # noqa: S603 - our own program
        [*command, *folders], cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
    )
    broke = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert ended.returncode == 0, f"{ended.stderr[-6000:]}\n{broke}"
    assert broke == {}
