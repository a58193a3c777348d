"""`tollspan doctor`: find what silently does nothing, and say what to do.

Exit status: 0 where all is well (notes there may be), 1 where there is a problem, 2 for a mistake in the command.
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
from tollspan.cli.doctor.checks import Environment, Finding, diagnose
from tollspan.cli.run.autoload import SITE
from tollspan.model.text import many

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WIDTH: Final = 96
PATIENCE: Final = 60.0
"""Seconds that an interpreter gets to start and tell."""

_PYTHON: Final = re.compile(r"(python|pypy)[\d.]*(\.exe)?")
_TAKES_VALUE: Final = ("-X", "-W")


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def doctor(command: tuple[str, ...], *, as_json: bool) -> None:
    r"""Find what silently does nothing, and say what to do about it.

    Looks at what is installed, at the environment's variables, at settings, prices, budgets and the ledger. With a
    COMMAND it looks into the Python that would run it, without running it. No telemetry is sent; of an exporter it is
    only tried whether somebody answers. The exit status is 1 where there is a problem.

    \b
    Examples:
      tollspan doctor
      tollspan doctor -- python app.py       # the Python of a program, which may be another one
      tollspan doctor --json
    """
    found: list[Finding] = []
    interpreter: Sequence[str] | None = [sys.executable]
    if command:
        interpreter = interpreter_of(command)
        if interpreter is None:
            found.append(_no_python(command))
    env = Environment(os.environ, None if interpreter is None else examined(interpreter, os.environ))
    found += diagnose(env)
    problems = sum(finding.level == "problem" for finding in found)
    if as_json:
        data = {
            "problems": problems,
            "notes": len(found) - problems,
            "findings": [asdict(finding) for finding in found],
        }
        click.echo(json.dumps(data, indent=1))
    else:
        for line in _told(found, env):
            click.echo(line)
    raise SystemExit(1 if problems else 0)


def interpreter_of(command: Sequence[str]) -> list[str] | None:
    """Return the interpreter that runs a command, with its options; None where the command is no Python program.

    Raises:
        click.UsageError: there is no such command.
    """
    program = shutil.which(command[0])
    if program is None:
        raise click.UsageError(f"there is no command {command[0]!r}; give it as in: tollspan doctor -- python app.py")
    if _PYTHON.fullmatch(Path(program).name):
        return [program, *_options(command[1:])]
    with Path(program).open("rb") as file:
        line = file.readline(500)
    words = line[2:].decode(errors="replace").split() if line.startswith(b"#!") else []
    if words and Path(words[0]).name == "env":
        words = [found for found in (shutil.which(words[1] if words[1:] else ""),) if found] + words[2:]
    return words if words and _PYTHON.fullmatch(Path(words[0]).name) else None


def _options(arguments: Sequence[str]) -> Iterator[str]:
    """Return Python's own options, which stand before the script, -c or -m."""
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-") or argument.startswith(("-c", "-m")) or argument == "-":
            return
        yield argument
        if argument in _TAKES_VALUE:
            yield next(rest, "")


def examined(interpreter: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Start an interpreter as `tollspan run` would, and give what `probe.look` sees in it; None where it cannot."""
    path = os.pathsep.join(filter(None, (SITE, environment.get("PYTHONPATH"))))
    quiet = {"PYTHONPATH": path, "TOLLSPAN_LEDGER": "off", "TOLLSPAN_SUMMARY": "false", "OTEL_SDK_DISABLED": "true"}
    done = subprocess.run(  # noqa: S603 - the user's own interpreter
        [*interpreter, str(Path(probe.__file__).resolve())],
        env={**environment, **quiet},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise click.ClickException(f"{interpreter[0]} cannot be looked into: {done.stderr.strip()[-500:]}") from None
    return found


def _no_python(command: Sequence[str]) -> Finding:
    return Finding(
        "not_python",
        "note",
        f"{command[0]} is not a Python program that doctor can look into",
        "tollspan meters Python programs. Those that it starts in turn are metered too, where tollspan is installed.",
        "Give the Python that it starts: tollspan doctor -- /path/to/python",
    )


_MARKS: Final = {"problem": ("✗", "red"), "note": ("•", "cyan")}


def _told(found: Sequence[Finding], env: Environment) -> Iterator[str]:
    for finding in found:
        mark, colour = _MARKS[finding.level]
        first, *rest = textwrap.wrap(finding.what, WIDTH - 2, break_long_words=False)
        yield click.style(f"{mark} {first}", fg=colour, bold=True)
        for line in rest:
            yield click.style(f"  {line}", fg=colour, bold=True)
        yield from _paragraph("why", finding.why)
        yield from _paragraph("do", finding.do)
        yield ""
    problems = sum(finding.level == "problem" for finding in found)
    yield _summed(problems, len(found) - problems)
    if env.probed is not None:
        versions = [
            f"{name} {env.installed[name]}" for name in ("tollspan", "httpx", "httpx2") if name in env.installed
        ]
        yield f"  looked into {env.probed['python']}: {', '.join(versions)}"
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


def _summed(problems: int, notes: int) -> str:
    told = many(notes, "note")
    if not problems:
        return click.style("✓ no problems", fg="green", bold=True) + (f", {told}" if notes else "")
    return click.style(many(problems, "problem"), fg="red", bold=True) + f", {told}"
