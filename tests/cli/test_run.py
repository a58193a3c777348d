"""`tollspan run`: the program is metered, unchanged, and its exit status is its own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tollspan.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    from examples.fake_provider import FakeProvider

ONE_CALL = """
import os, sys, openai
client = openai.OpenAI(base_url=os.environ["URL"], api_key="any")
client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hello"}])
sys.exit(int(os.environ.get("STATUS", "0")))
"""


def run(fake: FakeProvider, folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command under `tollspan run` with the fake counting as OpenAI, in a separate folder."""
    settings = {
        "TOLLSPAN_HOSTS": f"{fake.netloc}/openai=openai",
        "URL": fake.base_url("openai"),
        "XDG_STATE_HOME": str(folder),
        "TOLLSPAN_SUMMARY_JSON": str(folder / "summary.json"),
    }
    return subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-m", "tollspan", "run", "--", *command],
        env={**os.environ, **settings, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_program_is_metered_and_its_spend_is_told(fake: FakeProvider, tmp_path: Path) -> None:
    """A program that knows nothing of tollspan is metered; what it spent is printed and agrees with the provider."""
    done = run(fake, tmp_path, sys.executable, "-c", ONE_CALL)
    assert done.returncode == 0, done.stderr
    assert "gpt-4o-mini" in done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["calls"] == 1
    assert float(summary["spend_usd"]) == float(fake.tally()["spend_usd"]) > 0


def test_exit_status_is_the_programs(fake: FakeProvider, tmp_path: Path) -> None:
    """The command ends with the status of the program that it ran."""
    assert run(fake, tmp_path, sys.executable, "-c", ONE_CALL, STATUS="7").returncode == 7


def test_exit_status_where_nothing_can_be_told(tmp_path: Path) -> None:
    """Standard error that is closed or full loses messages, and not the program's exit status."""
    command = f"{sys.executable} -m tollspan run -- {sys.executable} -c 'raise SystemExit(3)'"
    for redirect in ("2>&-", "2>/dev/full", ">&-", ">/dev/full"):
        done = subprocess.run(["sh", "-c", f"{command} {redirect}"], cwd=tmp_path, check=False, timeout=60)  # noqa: S603, S607
        assert done.returncode == 3, redirect


def test_exit_status_where_children_are_not_waited_for(tmp_path: Path) -> None:
    """A supervisor that ignores SIGCHLD hands that down: the status is known, and the program has the same."""
    program = "import signal, sys; sys.exit(5 + (signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN))"
    command = [sys.executable, "-m", "tollspan", "run", "--no-summary", "--", sys.executable, "-c", program]
    launcher = (
        f"import os, signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv({command[0]!r}, {command!r})"
    )
    done = subprocess.run([sys.executable, "-c", launcher], cwd=tmp_path, check=False, timeout=60)  # noqa: S603
    assert done.returncode == 6


def test_scripts_are_started_as_a_shell_does(tmp_path: Path) -> None:
    """A script without a first line that names its interpreter is run by sh; one that cannot be started is told."""
    for name, text in (("plain", "exit 5\n"), ("lost", "#!/no/such/interpreter\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    started = [sys.executable, "-m", "tollspan", "run", "--no-summary", "--"]
    plain, lost = (
        subprocess.run([*started, f"./{name}"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
        for name in ("plain", "lost")
    )
    assert (plain.returncode, lost.returncode) == (5, 126)
    assert lost.stderr == "tollspan run: cannot start ./lost: No such file or directory\n"


def test_one_interrupt_from_a_terminal_is_one(tmp_path: Path) -> None:
    """Ctrl-C reaches the whole process group of a terminal: the program gets it once, wherever its input comes from."""
    program = tmp_path / "program.py"
    program.write_text(
        "import signal, time\n"
        "got = []\n"
        "signal.signal(signal.SIGINT, lambda *_: got.append(1))\n"
        "print('ready', flush=True)\n"
        "while not got: time.sleep(0.01)\n"
        "time.sleep(0.5)\n"
        "print('interrupts', len(got), flush=True)\n"
    )
    pid, terminal = pty.fork()
    if not pid:
        command = f"exec {sys.executable} -m tollspan run --no-summary -- {sys.executable} {program} </dev/null"
        os.execv("/bin/sh", ["sh", "-c", command])  # noqa: S606
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    while b"interrupts" not in said or not said.endswith(b"\n"):
        said += os.read(terminal, 4096)
    os.waitpid(pid, 0)
    os.close(terminal)
    assert b"interrupts 1" in said


def test_own_sitecustomize_still_runs(fake: FakeProvider, tmp_path: Path) -> None:
    """A sitecustomize of the environment's own is run as without tollspan."""
    (tmp_path / "sitecustomize.py").write_text("import os; os.environ['SITE_RAN'] = 'yes'")
    code = "import os; print(os.environ['SITE_RAN'])"
    done = run(fake, tmp_path, sys.executable, "-c", code, PYTHONPATH=str(tmp_path))
    assert done.stdout.strip() == "yes"


def test_unknown_command_is_told() -> None:
    """A command that does not exist ends with status 127 and a line that says what to write."""
    result = CliRunner().invoke(main, ["run", "--", "no-such-command-anywhere"])
    assert result.exit_code == 127
    assert "tollspan run -- python app.py" in result.output


@pytest.mark.parametrize("command", [[], *([name] for name in sorted(main.commands))], ids=" ".join)
def test_help_teaches(command: list[str]) -> None:
    """Every command explains itself."""
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 4


def instrumenting(options: str) -> str:
    """Return the program with its own call of `instrument()`."""
    return ONE_CALL.replace("client =", f"import tollspan; tollspan.instrument({options}); client =")


@pytest.mark.parametrize(
    ("outer", "own"), [({}, 'budget="0 USD"'), ({"TOLLSPAN_BUDGET": "5 USD/day"}, 'budget="0 USD"')]
)
def test_a_budget_in_the_program_holds(fake: FakeProvider, tmp_path: Path, outer: dict[str, str], own: str) -> None:
    """A limit that the program sets applies even if `tollspan run` has instrumented it before."""
    done = run(fake, tmp_path, sys.executable, "-c", instrumenting(own), **outer)
    assert done.returncode != 0
    assert "0 USD" in done.stderr
    assert fake.tally()["attempts"] == 0


def test_a_budget_of_the_run_is_not_lifted_by_the_program(fake: FakeProvider, tmp_path: Path) -> None:
    """A limit in the program applies in addition to that of the run, and never replaces it."""
    program = instrumenting('budget="100 USD"')
    assert run(fake, tmp_path, sys.executable, "-c", program, TOLLSPAN_BUDGET="0 USD").returncode == 40
    assert fake.tally()["attempts"] == 0


def test_options_that_come_too_late_are_told(fake: FakeProvider, tmp_path: Path) -> None:
    """What the program sets and the run has set otherwise is one line; the call goes on."""
    done = run(fake, tmp_path, sys.executable, "-c", instrumenting('session="mine", log_calls=False'))
    assert done.returncode == 0, done.stderr
    assert "session cannot be changed any more; set TOLLSPAN_SESSION before it starts" in done.stderr
    assert fake.tally()["attempts"] == 1


@pytest.mark.parametrize("options", [("-I",), ("-S",), ("-W", "ignore", "-E")])
def test_a_budget_that_would_not_hold_starts_nothing(
    fake: FakeProvider, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """A Python that does not load tollspan is not started if there is a budget; without one it is."""
    command = (sys.executable, *options, "-c", "print('started')")
    refused = run(fake, tmp_path, *command, TOLLSPAN_BUDGET="1 USD")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no budget would hold" in refused.stderr
    free = run(fake, tmp_path, *command)
    assert (free.returncode, free.stdout) == (0, "started\n")
    assert "no model call was seen" in free.stderr


def test_refusals_are_kept_where_the_user_says(fake: FakeProvider, tmp_path: Path) -> None:
    """The file of the setting `refusals` gets its lines also in a run, which counts those that are new."""
    lines = tmp_path / "refused"
    lines.write_text("before\n")
    done = run(fake, tmp_path, sys.executable, "-c", ONE_CALL, TOLLSPAN_BUDGET="0 USD", TOLLSPAN_REFUSALS=str(lines))
    assert done.returncode == 40
    _, *refused = lines.read_text().splitlines()
    assert f"0 USD refused {len(refused)} call" in done.stderr
    assert refused
    columns = [line.split("\t") for line in refused]
    assert {(budget, reason) for _, _, budget, reason, _ in columns} == {("0 USD", "exhausted")}
    assert {json.loads(facts)["limit"] for *_, facts in columns} == {"0"}


def test_a_bad_setting_is_told_once(fake: FakeProvider, tmp_path: Path) -> None:
    """An invalid setting is reported by the program, once, and not by every part of the run."""
    done = run(fake, tmp_path, sys.executable, "-c", ONE_CALL, TOLLSPAN_METRICS="all", TOLLSPAN_LEDGR="x")
    assert done.returncode == 0
    assert done.stderr.count("TOLLSPAN_METRICS='all' is not valid") == 1
    assert done.stderr.count("TOLLSPAN_LEDGR: unknown variable") == 1
