"""`tollspan run` and its ledger: one run over all its processes, summarized at the end, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.test_run import ONE_CALL
from tollspan.ledger.queries import Ledger
from tollspan.ledger.runs import name_of

if TYPE_CHECKING:
    from pathlib import Path

    from examples.fake_provider import FakeProvider

CHILDREN = """
import os, subprocess, sys
from multiprocessing import get_context
one_call = os.environ["ONE_CALL"]
if __name__ == "__main__":
    exec(one_call.replace("sys.exit", "print"))
    subprocess.run([sys.executable, "-c", one_call], check=True)
    children = [get_context("fork").Process(target=exec, args=(one_call, {})) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
"""
SLEEPS = """
import os, sys, time, openai
client = openai.OpenAI(base_url=os.environ["URL"], api_key="any")
client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hello"}])
print("called", flush=True)
while True:
    time.sleep(60)
"""


def start(fake: FakeProvider, folder: Path, *command: str, words: tuple[str, ...] = (), **environment: str) -> Any:
    """Start a command under `tollspan run`."""
    settings = {
        "TOLLSPAN_HOSTS": f"{fake.netloc}/openai=openai",
        "URL": fake.base_url("openai"),
        "XDG_STATE_HOME": str(folder),
        "TOLLSPAN_SUMMARY_JSON": str(folder / "summary.json"),
        "ONE_CALL": ONE_CALL,
    }
    return subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-m", "tollspan", "run", *words, "--", *command],
        env={**os.environ, **settings, **environment},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: Any, **options: Any) -> tuple[int, str]:
    """Run a command to its end; give its status and what it wrote to stderr."""
    with start(*arguments, **options) as program:
        _, told = program.communicate(timeout=60)
        return program.returncode, told


def test_a_run_is_all_its_processes(fake: FakeProvider, tmp_path: Path) -> None:
    """What a program, its subprocess and its forked children spent is printed once, as the provider counts it."""
    status, told = run(fake, tmp_path, sys.executable, "-c", CHILDREN)
    assert status == 0, told
    assert told.count("what this run spent") == 1
    assert "what this process spent" not in told
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["calls"] == fake.tally()["calls"] == 4
    assert float(summary["spend_usd"]) == float(fake.tally()["spend_usd"]) > 0
    with Ledger(tmp_path / "tollspan" / "ledger.db") as ledger:
        (found,) = ledger.runs()
    assert (found.figures.calls, found.exit_status) == (4, 0)
    assert f"tollspan inspect --run {found.id}" in told


def test_runs_are_told_apart(fake: FakeProvider, tmp_path: Path) -> None:
    """Two runs share a ledger and have each its own summary; a name for the run may be given."""
    for name in ("first", "second"):
        run(fake, tmp_path, sys.executable, "-c", ONE_CALL, TOLLSPAN_RUN_ID=name)
        assert json.loads((tmp_path / "summary.json").read_text())["calls"] == 1
    with Ledger(tmp_path / "tollspan" / "ledger.db") as ledger:
        assert [found.id for found in ledger.runs()] == ["second", "first"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_are_handed_on(number: signal.Signals, fake: FakeProvider, tmp_path: Path) -> None:
    """A signal ends the program; `tollspan run` prints a summary, ends by that signal, and the call is recorded."""
    with start(fake, tmp_path, sys.executable, "-c", SLEEPS) as program:
        assert program.stdout.readline() == "called\n"
        program.send_signal(number)
        _, told = program.communicate(timeout=60)
    assert program.returncode == -number
    assert "what this run spent" in told
    with Ledger(tmp_path / "tollspan" / "ledger.db") as ledger:
        (found,) = ledger.runs()
    assert (found.figures.calls, found.exit_status) == (1, -number)


def test_a_killed_program_is_told(fake: FakeProvider, tmp_path: Path) -> None:
    """A program that is killed (kill -9) has its calls in the ledger all the same, when they are to be durable."""
    code = SLEEPS.replace("while True:", "os.kill(os.getpid(), 9)\nwhile True:")
    status, told = run(fake, tmp_path, sys.executable, "-c", code, TOLLSPAN_DURABILITY="call")
    assert status == -signal.SIGKILL
    assert json.loads((tmp_path / "summary.json").read_text())["calls"] == 1, told


@pytest.mark.parametrize(
    ("words", "environment"),
    [(("--ledger", "off"), {}), ((), {"TOLLSPAN_LEDGER": "off"}), ((), {"AWS_LAMBDA_FUNCTION_NAME": "f"})],
)
def test_without_a_ledger_the_process_tells(
    words: tuple[str, ...], environment: dict[str, str], fake: FakeProvider, tmp_path: Path
) -> None:
    """With the ledger off, no file is created, and the process prints its own spend."""
    status, told = run(fake, tmp_path, sys.executable, "-c", ONE_CALL, words=words, **environment)
    assert status == 0
    assert "what this process spent" in told
    assert json.loads((tmp_path / "summary.json").read_text())["calls"] == 1
    assert not (tmp_path / "tollspan" / "ledger.db").exists()


def test_a_ledger_that_cannot_be_written_stops_nothing(fake: FakeProvider, tmp_path: Path) -> None:
    """With a damaged ledger the program runs; one line says so, the file stays, the process prints its own spend."""
    path = tmp_path / "letter.db"
    path.write_text("a letter; " * 100)
    status, told = run(fake, tmp_path, sys.executable, "-c", ONE_CALL, words=("--ledger", str(path)), STATUS="5")
    assert status == 5
    assert told.count(str(path)) == 1
    assert "runs without a ledger" in told
    assert "what this process spent" in told
    assert path.read_text() == "a letter; " * 100


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python3", "app.py", "--prompt", "secret"], "python3 app.py"),
        (["/usr/bin/python3", "-X", "dev", "src/app.py"], "python3 app.py"),
        (["python", "-m", "package.app", "secret"], "python -m package.app"),
        (["python", "-c", "print('secret')"], "python"),
        (["ask", "secret prompt"], "ask"),
    ],
)
def test_a_run_is_named_without_its_arguments(command: list[str], name: str) -> None:
    """A run is named by program and script: other arguments may be prompts or keys."""
    assert name_of(command) == name
