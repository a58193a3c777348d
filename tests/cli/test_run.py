"""`tollspan run`: the program is metered, unchanged, and its exit status is its own."""

from __future__ import annotations

import json
import os
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
