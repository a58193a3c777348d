"""Budgets under `tollspan run` hold in whatever the program starts, or the user reads why they do not."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tollspan
from tollspan.cli.run.autoload import SITE
from tollspan.cli.run.interpreters import pythons_of

if TYPE_CHECKING:
    from collections.abc import Callable

CALL = """
import httpx
chat = {"model": "gpt-4o-mini", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 9}}
body = {"model": "gpt-4o-mini", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}
with httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, json=chat))) as client:
    print(client.post("https://api.openai.com/v1/chat/completions", json=body).status_code, flush=True)
"""

STARTS = """
import os, subprocess, sys
here = os.path.dirname(os.path.abspath(__file__))
subprocess.run([sys.executable, *OPTIONS, here + "/call.py"], cwd=here + "/sub", env=ENVIRONMENT)
"""

TOLLSPAN = f"""
import sys
sys.path.insert(0, {str(Path(tollspan.__path__[0]).parent)!r})
from tollspan.cli.main import main
main()
"""
"""The command, of the tollspan that is tested, also if it is not on PYTHONPATH."""

NOT_STARTED = "does not load tollspan, so no budget would hold; nothing was started"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with a program that makes a call, and a folder in it."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "call.py").write_text(CALL)
    return tmp_path


@pytest.fixture
def run(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a command under `tollspan run` in that folder."""

    def started(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "XDG_STATE_HOME": str(project / "state"), **environment}
        words = [sys.executable, "-c", TOLLSPAN, "run", "--no-summary", "--", *command]
        return subprocess.run(  # noqa: S603 - this interpreter
            words, env=variables, cwd=project, capture_output=True, text=True, check=False, timeout=60
        )

    return started


def executable(path: Path, *lines: str) -> str:
    """Write a script that can be run, and return its path."""
    path.write_text("\n".join(lines))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, "call.py"),
        ("bash", "-c", f"cd sub && {sys.executable} ../call.py"),
        ("env", "A=1", sys.executable, "call.py"),
        ("env", "-C", "sub", sys.executable, "../call.py"),
        ("sh", "-c", f"export A=1\n# a comment's end\nif true; then exec {sys.executable} -B call.py; fi"),
        ("./script",),
        ("sub/script.sh",),
    ],
    ids=["python", "shell", "env", "env in another folder", "shell text", "console script", "shell script"],
)
def test_a_limit_of_the_file_holds_in_what_is_started(
    run: Callable[..., subprocess.CompletedProcess[str]], project: Path, command: tuple[str, ...]
) -> None:
    """A budget in the folder's tollspan.toml holds wherever the program goes from there."""
    (project / "tollspan.toml").write_text('[[budget]]\nlimit = "0 USD"\n')
    executable(project / "script", f"#!{sys.executable}", CALL)
    executable(project / "sub" / "script.sh", "#!/bin/sh", "cd sub", f"{sys.executable} ../call.py")
    done = run(*command)
    assert (done.stdout, done.returncode) == ("402\n", 40), done.stderr


@pytest.mark.parametrize("how", ["file", "variable"])
def test_a_child_elsewhere_counts_in_the_same_files(
    run: Callable[..., subprocess.CompletedProcess[str]], project: Path, how: str
) -> None:
    """Relative paths of the file and of variables name the same files in every program of the run."""
    (project / "app.py").write_text(CALL + STARTS.replace("*OPTIONS,", "").replace("ENVIRONMENT", "None"))
    settings = {"budget": "1 call/day", "budget_store": "sqlite:b.db", "ledger": "calls.db", "refusals": "refused.txt"}
    variables = {}
    if how == "file":
        (project / "tollspan.toml").write_text("".join(f'{name} = "{value}"\n' for name, value in settings.items()))
    else:
        variables = {f"TOLLSPAN_{name.upper()}": value for name, value in settings.items()}
    done = run(sys.executable, "app.py", **variables)
    assert done.stdout.split() == ["200", "402"], done.stderr
    assert not list((project / "sub").iterdir())
    assert {"b.db", "calls.db", "refused.txt"} <= {path.name for path in project.iterdir()}


@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, "-Ic", "print('started')"),
        (sys.executable, "-sE", "call.py"),
        ("env", "-i", sys.executable, "call.py"),
        ("env", "-u", "PYTHONPATH", sys.executable, "call.py"),
        ("env", "PYTHONPATH=.", sys.executable, "call.py"),
        ("nice", "-n", "1", "timeout", "9", sys.executable, "-I", "call.py"),
        ("bash", "-ec", f"echo started; {sys.executable} -I call.py"),
        ("bash", "-c", f"echo started; PYTHONPATH=. {sys.executable} call.py"),
        ("sh", "script.sh"),
        ("./isolated",),
        ("./isolated-env",),
    ],
    ids=" ".join,
)
def test_a_limit_that_cannot_hold_starts_nothing(
    run: Callable[..., subprocess.CompletedProcess[str]], project: Path, command: tuple[str, ...]
) -> None:
    """A Python that would not load tollspan is not started, however it is named, if there is a budget."""
    (project / "script.sh").write_text(f"echo started\n{sys.executable} -I call.py\n")
    executable(project / "isolated", f"#!{sys.executable} -I", CALL)
    executable(project / "isolated-env", f"#!/usr/bin/env -S {sys.executable} -I", CALL)
    done = run(*command, TOLLSPAN_BUDGET="5 USD")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert NOT_STARTED in " ".join(done.stderr.split())


def test_without_a_budget_it_is_started_and_told(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """A Python that would not load tollspan runs as ever if nothing is limited, and one line says what that means."""
    done = run(sys.executable, "-I", "call.py")
    assert (done.returncode, done.stdout) == (0, "200\n")
    assert "-I does not load tollspan: its calls are not metered" in done.stderr


@pytest.mark.parametrize(
    ("options", "environment", "why"),
    [('"-I",', "None", "with -I, -E or -S"), ("", "{}", "with an environment without the PYTHONPATH of tollspan run")],
)
def test_a_child_that_no_limit_reaches_is_told(
    run: Callable[..., subprocess.CompletedProcess[str]], project: Path, options: str, environment: str, why: str
) -> None:
    """A program that starts an isolated Python has a line that says that no budget holds in it."""
    (project / "app.py").write_text(STARTS.replace("*OPTIONS,", options).replace("ENVIRONMENT", environment))
    done = run(sys.executable, "app.py", TOLLSPAN_BUDGET="5 USD")
    assert done.returncode == 0
    assert done.stderr.count("no budget holds in a program that was started") == 1
    assert why in done.stderr
    assert "no budget holds" not in run(sys.executable, "app.py").stderr


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment that has a client but no tollspan, with a sitecustomize of its own."""
    folder = tmp_path_factory.mktemp("other")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "httpx.py").write_text("print('httpx is used')")
    (site / "sitecustomize.py").write_text("import os; os.environ['SITE_RAN'] = 'yes'")
    return folder / "bin" / "python"


def test_another_environment_uses_no_client_past_a_limit(
    run: Callable[..., subprocess.CompletedProcess[str]], other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python without tollspan is not started; one that another program starts cannot use what would be limited."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert run(str(other), "call.py", TOLLSPAN_BUDGET="5 USD").returncode == 2
    text = f"{other} -c 'import os; print(os.environ[\"SITE_RAN\"])'; {other} -c 'import httpx'"
    limited = run("bash", "-c", text, TOLLSPAN_BUDGET="5 USD")
    assert (limited.returncode, limited.stdout) == (1, "yes\n")
    assert f"no budget would hold: {other} has no tollspan; install it into its environment" in limited.stderr
    free = run("bash", "-c", text)
    assert (free.returncode, free.stdout) == (0, "yes\nhttpx is used\n")
    assert "calls are not metered here" in free.stderr


def test_tollspan_that_does_not_start_lifts_no_limit(
    run: Callable[..., subprocess.CompletedProcess[str]], project: Path
) -> None:
    """If tollspan fails at its start, programs run without it, and with a budget none of them can use a client."""
    (project / "broken").mkdir()
    (project / "broken" / "opentelemetry.py").write_text("raise RuntimeError('broken')")
    text = f"export PYTHONPATH={SITE}:{project / 'broken'}:$PYTHONPATH; {sys.executable} call.py"
    limited = run("bash", "-c", text, TOLLSPAN_BUDGET="5 USD")
    assert (limited.returncode, limited.stdout) == (1, "")
    assert "no budget would hold: tollspan could not start" in limited.stderr
    free = run("bash", "-c", text)
    assert (free.returncode, free.stdout) == (0, "200\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["python", "-W", "ignore", "-X", "dev", "-u", "app.py", "-I"], [("python -W ignore -X dev -u", False)]),
        (["python3.12", "-Bc", "-I"], [("python3.12 -B", False)]),
        (["python", "-WIgnore", "-m", "x", "-E"], [("python -WIgnore", False)]),
        (["python"], [("python", False)]),
        (["bash", "-c", "a='x; python -S y' && (python -E z | python w)"], [("python -E", True), ("python", False)]),
        (["bash", "-c", "echo 'no end"], []),
        (["ls", "python", "-I"], []),
        (["nice", "ls", "python", "-I"], []),
        (["timeout", "9", "python", "-I"], [("timeout 9 python -I", True)]),
        ([], []),
    ],
)
def test_which_pythons_a_command_starts(words: list[str], expected: list[tuple[str, bool]]) -> None:
    """Options count up to the program's own, and a shell's text is read as the shell would read it."""
    assert [(python.name, python.is_isolated) for python in pythons_of(words, dict(os.environ))] == expected
