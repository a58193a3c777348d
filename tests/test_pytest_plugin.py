"""The pytest plugin: what a test's calls cost, one budget for a run in any number of processes, and the summary."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from pathlib import Path

TESTS: Final = """
from decimal import Decimal
import httpx, pytest

def ask(tokens):
    answer = {"model": "gpt-4o", "usage": {"prompt_tokens": tokens, "completion_tokens": 0}}
    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=answer)))
    client.post("https://api.openai.com/v1/chat/completions", json={"model": "gpt-4o", "max_tokens": 1, "messages": []}
    ).raise_for_status()

@pytest.mark.parametrize("number", range(6))
def test_asks(number):
    ask(4000)

def test_knows_its_cost(tollspan):
    ask(1000)
    ask(200)
    assert (tollspan.calls, tollspan.tokens, tollspan.cost) == (2, 1200, Decimal("0.003"))
    assert tollspan.records[0].model == "gpt-4o"

def test_asks_nothing(tollspan):
    assert (tollspan.calls, tollspan.cost) == (0, 0)
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests above in a process of their own, with a home of their own."""
    (folder / "test_asking.py").write_text(TESTS)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOLLSPAN_", "PYTEST_"))}
    return subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *options, "test_asking.py"],
        cwd=folder,
        env={**kept, "HOME": str(folder), "XDG_STATE_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_fixture_alone(tmp_path: Path) -> None:
    """The fixture needs no option, and without options nothing is told."""
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "tollspan" not in done.stdout


@pytest.mark.parametrize("processes", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_summary(tmp_path: Path, processes: tuple[str, ...]) -> None:
    """The most expensive tests come first, under a line for all of them, whichever process ran them."""
    done = run(tmp_path, "--tollspan", *processes)
    assert done.returncode == 0, done.stdout
    rows = re.findall(r"\$ +([\d.]+) +(\d+) calls +([\d,]+) tokens +(\S+)", done.stdout)
    assert rows[0][:3] == ("0.0100", "1", "4,000")
    assert rows[-2:] == [
        ("0.0030", "2", "1,200", "test_asking.py::test_knows_its_cost"),
        ("0.0630", "8", "25,200", "total"),
    ]


@pytest.mark.parametrize("processes", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_budget(tmp_path: Path, processes: tuple[str, ...]) -> None:
    """All processes share one budget; a refused call fails its test, and the counters of the run leave nothing."""
    done = run(tmp_path, "--tollspan-budget", "3 calls", *processes, "-k", "test_asks")
    assert done.returncode == 1, done.stdout
    assert "3 failed, 4 passed" in done.stdout
    assert "budget: 3 calls" in done.stdout
    assert run(tmp_path, "--tollspan-budget", "100 calls", *processes).returncode == 0


def test_budget_that_cannot_be_read(tmp_path: Path) -> None:
    """No test is run under a limit that is none."""
    done = run(tmp_path, "--tollspan-budget", "five dollars")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "limit='five dollars' is not valid" in done.stderr
