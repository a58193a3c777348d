"""`tollspan doctor`: checks the setup for silent misconfiguration and suggests fixes.

Exit status: 0 without problems (there may be notes), 1 if there is a problem, 2 for a usage error.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tollspan.cli.doctor import probe
from tollspan.cli.doctor.checks import diagnose
from tollspan.cli.doctor.environment import Environment, Finding
from tollspan.cli.run.autoload import SITE
from tollspan.model.text import many

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WIDTH: Final = 96
PROBE_TIMEOUT: Final = 60.0
"""Seconds that an interpreter has to start and to run the probe."""

_PYTHON: Final = re.compile(r"(python|pypy)[\d.]*(\.exe)?")
_TAKES_VALUE: Final = ("-X", "-W")


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def doctor(command: tuple[str, ...], *, as_json: bool) -> None:
    r"""Check the setup for silent misconfiguration and suggest fixes.

    Checks installed packages, environment variables, settings, prices, budgets and the ledger. With a COMMAND, it
    examines the Python that would run it, without running it. No telemetry is sent; exporters are only probed for a
    TCP connection. The exit status is 1 if there is a problem.

    \b
    Examples:
      tollspan doctor
      tollspan doctor -- python app.py       # the Python that runs the program, if it is another one
      tollspan doctor --json
    """
    findings: list[Finding] = []
    interpreter: Sequence[str] | None = [sys.executable]
    if command:
        interpreter = interpreter_of(command)
        if interpreter is None:
            findings.append(_not_python(command))
    env = Environment(os.environ, None if interpreter is None else probed(interpreter, os.environ))
    findings += diagnose(env)
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        data = {
            "problems": problems,
            "notes": len(findings) - problems,
            "findings": [asdict(finding) for finding in findings],
        }
        click.echo(json.dumps(data, indent=1))
    else:
        for line in _report(findings, env):
            click.echo(line)
    raise SystemExit(1 if problems else 0)


def interpreter_of(command: Sequence[str]) -> list[str] | None:
    """Return the interpreter that runs a command, with its options; None if the command is not a Python program.

    Raises:
        click.UsageError: there is no such command.
    """
    program = shutil.which(command[0])
    if program is None:
        raise click.UsageError(f"command not found: {command[0]!r}; write it as in: tollspan doctor -- python app.py")
    if _PYTHON.fullmatch(Path(program).name):
        return [program, *_options(command[1:])]
    with Path(program).open("rb") as file:
        line = file.readline(500)
    words = line[2:].decode(errors="replace").split() if line.startswith(b"#!") else []
    if words and Path(words[0]).name == "env":
        named = shutil.which(words[1] if words[1:] else "")
        words = ([named] if named else []) + words[2:]
    return words if words and _PYTHON.fullmatch(Path(words[0]).name) else None


def _options(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the options for Python itself: those before the script, -c or -m."""
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-") or argument.startswith(("-c", "-m")) or argument == "-":
            return
        yield argument
        if argument in _TAKES_VALUE:
            yield next(rest, "")


def probed(interpreter: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Start an interpreter as `tollspan run` does, and return the result of `probe.look` in it.

    Raises:
        click.ClickException: the interpreter cannot run the probe.
        subprocess.TimeoutExpired: it takes longer than `PROBE_TIMEOUT`.
    """
    path = os.pathsep.join(filter(None, (SITE, environment.get("PYTHONPATH"))))
    quiet = {"PYTHONPATH": path, "TOLLSPAN_LEDGER": "off", "TOLLSPAN_SUMMARY": "false", "OTEL_SDK_DISABLED": "true"}
    process = subprocess.run(  # noqa: S603 - the user's own interpreter
        [*interpreter, str(Path(probe.__file__).resolve())],
        env={**environment, **quiet},
        capture_output=True,
        text=True,
        timeout=PROBE_TIMEOUT,
        check=False,
    )
    try:
        result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise click.ClickException(f"cannot examine {interpreter[0]}: {process.stderr.strip()[-500:]}") from None
    return result


def _not_python(command: Sequence[str]) -> Finding:
    return Finding(
        "not_python",
        "note",
        f"{command[0]} is not a Python program that doctor can examine",
        "tollspan meters Python programs. Python programs that this one starts are metered too, if tollspan is "
        "installed for them.",
        "Name the Python that it starts: tollspan doctor -- /path/to/python",
    )


_MARKS: Final = {"problem": ("✗", "red"), "note": ("•", "cyan")}


def _report(findings: Sequence[Finding], env: Environment) -> Iterator[str]:
    for finding in findings:
        mark, colour = _MARKS[finding.level]
        first, *rest = textwrap.wrap(finding.what, WIDTH - 2, break_long_words=False)
        yield click.style(f"{mark} {first}", fg=colour, bold=True)
        for line in rest:
            yield click.style(f"  {line}", fg=colour, bold=True)
        yield from _paragraph("why", finding.why)
        yield from _paragraph("do", finding.do)
        yield ""
    problems = sum(finding.level == "problem" for finding in findings)
    yield _summary(problems, len(findings) - problems)
    if env.probed is not None:
        versions = [
            f"{name} {env.installed[name]}" for name in ("tollspan", "httpx", "httpx2") if name in env.installed
        ]
        yield f"  examined {env.probed['python']}: {', '.join(versions)}"
    yield f"  ledger {env.ledger or 'off'}, prices {env.table.version}"


def _paragraph(head: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"  {head:4} ",
        subsequent_indent=" " * 7,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _summary(problems: int, notes: int) -> str:
    noted = many(notes, "note")
    if not problems:
        return click.style("✓ no problems", fg="green", bold=True) + (f", {noted}" if notes else "")
    return click.style(many(problems, "problem"), fg="red", bold=True) + f", {noted}"
