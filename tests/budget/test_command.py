"""`tollspan run --budget` and `tollspan budget`: limits for programs that know nothing of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from examples.fake_provider import FakeProvider

    Command = Callable[..., subprocess.CompletedProcess[str]]

CALLS = """
import os, sys, openai
client = openai.OpenAI(base_url=os.environ["URL"], api_key="any")
for _ in range(int(sys.argv[1])):
    client.chat.completions.create(model="gpt-4o-mini", max_tokens=100, messages=[{"role": "user", "content": "hello"}])
"""


@pytest.fixture
def command(fake: FakeProvider, tmp_path: Path) -> Command:
    """Give the command `tollspan` with state and settings of its own."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {
            "TOLLSPAN_HOSTS": f"{fake.netloc}/openai=openai",
            "URL": fake.base_url("openai"),
            "XDG_STATE_HOME": str(tmp_path / "state"),
        }
        return subprocess.run(  # noqa: S603 - ours
            [sys.executable, "-m", "tollspan", *words],
            env={**os.environ, **settings, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def calls(budget: str, number: int, *words: str) -> list[str]:
    """Give the words that run a program of so many calls."""
    return ["run", "--budget", budget, *words, "--", sys.executable, "-c", CALLS, str(number)]


def test_session_over_restarts(command: Command, fake: FakeProvider) -> None:
    """A session keeps its total when the program starts again; a refused call has an exit status of its own."""
    budget = "5 calls/session, 1 USD/day"
    assert command(*calls(budget, 3, "--session", "s1")).returncode == 0
    refused = command(*calls(budget, 3, "--session", "s1"))
    assert refused.returncode == 40
    assert "budgets refused 1 call" in refused.stderr
    assert "5 of 5 calls" in refused.stderr
    assert command(*calls(budget, 3, "--session", "s2")).returncode == 0
    assert fake.tally()["attempts"] == 8


def test_status_set_and_reset_from_another_process(command: Command, fake: FakeProvider) -> None:
    """What another process sets or resets applies to the next call."""
    budget = "3 calls/day"
    command(*calls(budget, 2))
    (status,) = json.loads(command("budget", "status", "--json").stdout)
    assert (status["budget"], status["spent"], status["remaining"]) == (budget, "2", "1")
    assert "2 of 3" in command("budget", "status").stdout
    (listed,) = json.loads(command("budget", "list", "--json").stdout)
    assert (listed["budget"], listed["set"]) == (budget, None)
    assert command("budget", "set", budget, "2 calls").returncode == 0
    assert command(*calls(budget, 1)).returncode == 40
    assert command("budget", "set", budget, "default").returncode == 0
    assert command(*calls(budget, 1)).returncode == 0
    assert command("budget", "reset", budget).returncode == 0
    assert command(*calls(budget, 3)).returncode == 0
    assert fake.tally()["attempts"] == 6


def test_mistakes_are_told(command: Command) -> None:
    """A budget that is none starts nothing; a name that is none, or another unit, is told."""
    for words in (["run", "--budget", "5 EUR/day", "--", "true"], ["run", "--budget", " ", "--", "true"]):
        done = command(*words)
        assert done.returncode == 2
        assert "5 USD/day" in done.stderr or "5 USD" in done.stderr
    assert command("budget", "reset", "nope").returncode == 1
    command(*calls("3 calls/day", 1))
    wrong = command("budget", "set", "3 calls/day", "3 USD")
    assert wrong.returncode == 1
    assert "calls" in wrong.stderr
    assert command("budget", "status", "--store", "memory").returncode == 1
