"""`tollspan run`: starts a program with tollspan active, waits for it, and prints what the run spent.

The program has the terminal and receives the signals, and its exit status becomes that of the command, as if it had
been started directly. Its calls, and those of every Python program that it starts, are recorded in the ledger under
the id of the run. The summary is read from the ledger.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Final

import click

from tollspan.cli.run.autoload import SITE
from tollspan.cli.run.budget_checks import (
    RefusalFile,
    budget_option,
    check_that_budgets_hold,
    hard_option,
    wait_option,
    warn_of_unmetered,
)
from tollspan.cli.run.supervision import say, supervise
from tollspan.ledger.conditions import Where
from tollspan.ledger.queries import Ledger
from tollspan.ledger.runs import begin_run, end_run
from tollspan.model.errors import LedgerError
from tollspan.model.ids import new_run_id
from tollspan.settings import for_children, ledger_path, look, state_folder
from tollspan.setup.exit_summary import as_json, format_table, most_expensive_first

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tollspan.setup.exit_summary import Spent

NOT_FOUND: Final = 127
"""Exit status for a command that does not exist, as in shells."""

_NOT_STARTED: Final = 126
"""Exit status for a command that exists and cannot be started, as in shells."""

_KILLED: Final = 128
"""Shells add this to the number of the signal that ended a program."""


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--log-calls/--no-log-calls", default=None, help="Print each call as it ends.")
@click.option("--summary/--no-summary", default=True, help="Print a summary when the program ends.  [default: on]")
@click.option(
    "--ledger", metavar="FILE", help="Record calls in this file, or off.  [default: a file in your state directory]"
)
@click.option("--session", metavar="NAME", help="Default session for calls that set none.")
@budget_option
@hard_option
@wait_option
@click.option("--pricing-path", metavar="FILE", help="Use this LiteLLM price file instead of the bundled one.")
@click.option(
    "--pricing-url", metavar="URL", help="Use the LiteLLM price file at this https URL; it is cached on disk."
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    command: tuple[str, ...],
    *,
    log_calls: bool | None,
    summary: bool,
    **options: str | None,
) -> None:
    r"""Run COMMAND and meter its model calls over httpx or httpx2.

    The program needs no change. Python programs that it starts are metered too. When it ends, its spend is printed;
    tollspan inspect shows the recorded calls. The exit status is that of the program, or 40 if a budget refused a call.
    Spans and metrics are exported over OTLP if the standard OTEL_EXPORTER_OTLP_ENDPOINT is set; with TOLLSPAN_EVENTS=1,
    a log event for each call is exported too.

    \b
    Examples:
      tollspan run -- python app.py
      tollspan run --log-calls -- uvicorn app:app
      tollspan run --budget "5 USD/day, 1 USD/session" -- python app.py
      OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 tollspan run -- python app.py
    """
    environment = {**os.environ, **{f"TOLLSPAN_{name.upper()}": value for name, value in options.items() if value}}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (SITE, environment.get("PYTHONPATH"))))
    if log_calls is not None:
        environment["TOLLSPAN_LOG_CALLS"] = str(log_calls).lower()
    environment["TOLLSPAN_SUMMARY"] = str(summary).lower()
    program = shutil.which(command[0])
    if program is None:
        say(f"tollspan run: command not found: {command[0]!r}; write it as in: tollspan run -- python app.py")
        raise SystemExit(NOT_FOUND)
    environment = for_children(environment)
    refusals = RefusalFile.begin(environment)
    words = (program, *command[1:])
    if refusals.limits:
        check_that_budgets_hold(words, environment)
    else:
        warn_of_unmetered(words, environment)
    ledger = _RunLedger.begin(command, environment, summary=summary)
    try:
        status = supervise(words, environment)
    except OSError as error:
        say(f"tollspan run: cannot start {program}: {error.strerror}")
        status = _NOT_STARTED
    if ledger is not None:
        ledger.end(status)
    status = refusals.end(status)
    _exit(status)


class _RunLedger:
    """The record of one run in the ledger, and its summary."""

    def __init__(self, path: Path, run_id: str, summary_json: str | None, *, summary: bool, more: str) -> None:
        self._path = path
        self._id = run_id
        self._summary = summary
        self._more = more
        self._summary_json = summary_json

    @classmethod
    def begin(cls, command: Sequence[str], environment: dict[str, str], *, summary: bool) -> _RunLedger | None:
        """Record the start of the run, and set the program's environment to that ledger; return None without one."""
        settings = look(environment)
        path = ledger_path(settings, environment, default=True)
        run_id = environment["TOLLSPAN_RUN_ID"] = settings.run_id or new_run_id()
        environment["TOLLSPAN_LEDGER"] = "off" if path is None else str(path)
        if path is None:
            return None
        try:
            begin_run(path, run_id, command)
        except LedgerError as error:
            say(f"tollspan run: {error}. The program runs without a ledger.")
            environment["TOLLSPAN_LEDGER"] = "off"
            return None
        # Only this process sees all processes of the run, so they print no summary themselves.
        environment["TOLLSPAN_SUMMARY"] = "false"
        environment.pop("TOLLSPAN_SUMMARY_JSON", None)
        more = (
            f"more: tollspan inspect --run {quote(run_id)}\n" if path == state_folder(environment) / "ledger.db" else ""
        )
        return cls(path, run_id, settings.summary_json, summary=summary, more=more)

    def end(self, status: int) -> None:
        """Record the end of the run, and print what it spent."""
        try:
            end_run(self._path, self._id, status)
            with Ledger(self._path) as ledger:
                groups = ledger.groups(["provider", "model"], Where(run=self._id))
            spent = most_expensive_first((group.key[0], group.key[1], group.figures) for group in groups)
            self._print(spent)
        except (LedgerError, OSError) as error:
            say(f"tollspan run: no summary available: {error}")

    def _print(self, spent: list[Spent]) -> None:
        if self._summary and spent:
            say((format_table(spent, "run") + self._more).removesuffix("\n"))
        elif self._summary:
            say("tollspan run: no model call was seen over httpx or httpx2; see tollspan doctor")
        if self._summary_json:
            Path(self._summary_json).write_text(json.dumps(as_json(spent), indent=1), "utf-8")


def _exit(status: int) -> None:
    """End like the program: with its exit status, or by the signal that ended it."""
    if status >= 0:
        raise SystemExit(status)
    number = -status
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has already dumped its core
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        os.kill(os.getpid(), number)
    raise SystemExit(_KILLED + number)
