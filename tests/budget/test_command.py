"""`tollspan run --budget` and `tollspan budget`: limits for programs that know nothing of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from tollspan.budget.stores import CounterUpdate
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from examples.fake_provider import FakeProvider

    Command = Callable[..., subprocess.CompletedProcess[str]]

BERLIN = ZoneInfo("Europe/Berlin")
CALLS = """
import os, sys, httpx
key = {"authorization": "Bearer any"}
body = {"model": "gpt-4o-mini", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
for _ in range(int(sys.argv[1])):
    response = httpx.post(os.environ["URL"] + "/chat/completions", json=body, headers=key)
    if response.is_error:
        sys.exit(response.text)
"""  # without an SDK, whose import would take most of the time


@pytest.fixture
def process(fake: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return the command `tollspan` in a process of its own, with state and settings of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOLLSPAN_HOSTS", f"{fake.netloc}/openai=openai")
    monkeypatch.setenv("URL", fake.base_url("openai"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - ours
            [sys.executable, "-m", "tollspan", *words],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def command(process: Command) -> Command:
    """Return the command `tollspan`: in this process, which is faster, unless it starts a program."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        if words[0] == "run":
            return process(*words, **environment)
        result = CliRunner().invoke(main, words, env=environment)
        return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)

    return run


def calls(budget: str, number: int, *words: str) -> list[str]:
    """Return the words that run a program of so many calls."""
    return ["run", "--budget", budget, *words, "--", sys.executable, "-c", CALLS, str(number)]


def test_session_over_restarts(command: Command, fake: FakeProvider) -> None:
    """A session keeps its total when the program starts again; a refused call has an exit status of its own."""
    budget = "5 calls/session, 1 USD/day"
    assert command(*calls(budget, 3, "--session", "s1")).returncode == 0
    refused = command(*calls(budget, 3, "--session", "s1"))
    assert refused.returncode == 40
    assert "tollspan run: 5 calls/session refused 1 call: its limit is spent. Raise the budget with" in refused.stderr
    assert "5 of 5 calls" in refused.stderr
    assert command(*calls(budget, 3, "--session", "s2")).returncode == 0
    assert fake.tally()["attempts"] == 8


def test_status_set_and_reset_from_another_process(command: Command, process: Command, fake: FakeProvider) -> None:
    """What another process sets or resets applies to the next call."""
    budget = "3 calls/day"
    command(*calls(budget, 2))
    (status,) = json.loads(process("budget", "status", "--json").stdout)
    assert (status["budget"], status["spent"], status["remaining"]) == (budget, "2", "1")
    (heads, row) = command("budget", "status").stdout.splitlines()
    assert heads.split() == ["budget", "counted", "for", "spent", "limit", "used"]
    assert row.split()[-4:] == ["2", "3", "calls", "66%"]
    (listed,) = json.loads(command("budget", "list", "--json").stdout)
    assert listed == {"budget": budget, "limit": "3 calls", "period": "day", "time_zone": "UTC", "set": None}
    assert json.loads(command("budget", "set", budget, "2 calls", "--json").stdout)["set"] == "2 calls"
    assert command(*calls(budget, 1)).returncode == 40
    assert command("budget", "set", budget, "default").returncode == 0
    assert command(*calls(budget, 1)).returncode == 0
    (key,) = json.loads(command("budget", "reset", budget, "--json").stdout)["reset"]
    assert key == status["counter"]
    assert command(*calls(budget, 3)).returncode == 0
    assert fake.tally()["attempts"] == 6


TABLES = """
[[budget]]
name = "per-user daily"
limit = "2.50 USD"
period = "day"
time_zone = "Europe/Berlin"
per = ["user"]

[[budget]]
name = "never used"
limit = "1000 tokens"
period = "rolling 1h"
"""


def test_tables_are_plain_and_fit(command: Command, tmp_path: Path) -> None:
    """Tables fit 80 columns, have every budget, those unspent too, and leave periods out that are over."""
    (tmp_path / "tollspan.toml").write_text(TABLES)
    assert "never used" in command("budget", "status").stdout
    store = SqliteStore(tmp_path / "state" / "tollspan" / "budgets.sqlite")
    for key in ("per-user daily/2020-01-01/user=alice", f"per-user daily/{datetime.now(BERLIN).date()}/user=bob"):
        store.charge([CounterUpdate(key, "per-user daily", 10**18, None, kept_until=2e9)], 1.6e9)
    store.close()
    listed = command("budget", "list").stdout
    assert "day, Europe/Berlin" in listed
    assert "rolling 1h" in listed
    shown = command("budget", "status").stdout
    assert all(len(line) <= 80 for line in (listed + shown).splitlines())
    assert "user bob" in shown.replace("\n", "")
    assert "nothing yet" in shown
    assert "$1.0000" in shown
    assert "alice" not in shown
    assert "alice" in command("budget", "status", "--all").stdout
    rows = json.loads(command("budget", "status", "--json").stdout)
    (idle,) = [row for row in rows if row["budget"] == "never used"]
    assert (idle["counter"], idle["spent"], idle["utilization"]) == (None, "0", 0.0)
    assert command("budget", "status", "nobody's").returncode == 1


def test_forget(command: Command, tmp_path: Path) -> None:
    """A budget that is no longer used can be deleted; one that is configured, or unknown, cannot."""
    budget = "3 calls/day"
    command(*calls(budget, 2))
    command("budget", "set", budget, "9 calls")
    (tmp_path / "tollspan.toml").write_text('[[budget]]\nlimit = "3 calls"\nperiod = "day"\nname = "3 calls/day"\n')
    assert "is configured here" in command("budget", "forget", budget, "--yes").stderr
    (tmp_path / "tollspan.toml").unlink()
    asked = command("budget", "forget", budget)
    assert asked.returncode == 1
    assert "1 counter?" in asked.stdout
    assert command("budget", "forget", budget, "--yes").stdout == "deleted budget 3 calls/day\n"
    assert command("budget", "list", "--json").stdout.strip() == "[]"
    assert command("budget", "forget", budget, "--yes").returncode == 1
    assert command(*calls(budget, 3)).returncode == 0


def test_reset_of_a_session(command: Command, fake: FakeProvider) -> None:
    """`tollspan reset SESSION` gives that session its budget back, and no other."""
    for session in ("s1", "s2"):
        assert command(*calls("2 calls/session", 2, "--session", session)).returncode == 0
        assert command(*calls("2 calls/session", 1, "--session", session)).returncode == 40
    done = command("reset", "s1")
    assert (done.returncode, done.stdout) == (0, "reset session s1 and 1 budget\n")
    assert command(*calls("2 calls/session", 1, "--session", "s1")).returncode == 0
    assert command(*calls("2 calls/session", 1, "--session", "s2")).returncode == 40
    assert command("reset", "s3").returncode == 1
    assert fake.tally()["attempts"] == 5


def test_a_file_that_may_have_budgets_starts_nothing(command: Command, tmp_path: Path) -> None:
    """Where the settings' file cannot be found or read, nothing starts: it may have had a limit."""
    for environment, text in (({"TOLLSPAN_CONFIG": "nowhere.toml"}, ""), ({}, '[[budget]]\nlimit = "5')):
        (tmp_path / "tollspan.toml").write_text(text)
        done = command("run", "--", sys.executable, "-c", "print('started')", **environment)
        assert done.returncode == 2
        assert "started" not in done.stdout
        assert "toml" in done.stderr


def test_mistakes_are_reported(command: Command) -> None:
    """An invalid budget starts nothing; an unknown name, or another unit, is reported."""
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
