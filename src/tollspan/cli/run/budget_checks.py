"""Budgets in `tollspan run`: they are checked before the program starts, and the refused calls counted at its end."""

from __future__ import annotations

import json
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tollspan.budget.denials.explanation import refused_line
from tollspan.budget.policy.settings import budgets_of
from tollspan.budget.stores.opening import store_of
from tollspan.cli.run.interpreters import pythons_of
from tollspan.model.errors import SettingsError
from tollspan.model.refusal import Refusal, RefusedCalls, RefusedTally
from tollspan.settings import LIMITED_VARIABLE, look

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from tollspan.cli.run.interpreters import Python

REFUSED: Final = 40
"""Exit status if a budget refused a call, instead of the program's own; a program ended by a signal keeps its own."""


def _limits(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter(
            "it is empty, which does not mean no limit; omit the option, or give a limit such as 5 USD/day"
        )
    return value


budget_option: Final = click.option(
    "--budget",
    metavar="LIMITS",
    callback=_limits,
    help='Refuse calls past these limits, such as "5 USD/day, 1 USD/session".',
)
hard_option: Final = click.option(
    "--budget-hard",
    flag_value="true",
    help="Never pass a limit: each call reserves the most that it can cost.  [default: what such calls usually cost]",
)
wait_option: Final = click.option(
    "--budget-wait",
    metavar="TIME",
    help="Wait this long where only calls under way hold the rest of a limit, such as 10s; 0 refuses at once.  "
    "[default: 30s]",
)


class RefusalFile:
    """The file that lists the calls that budgets refused in a run, in all of its processes."""

    def __init__(self, path: Path | None, *, kept: bool = False) -> None:
        """Read the lines that processes write to the file at `path`; None = there is no budget.

        `kept`: the file was named by the user and is not deleted.
        """
        self._path = path
        self._kept = kept
        self._before = len(self._lines()) if kept else 0

    @property
    def limits(self) -> bool:
        """Return whether there is a budget."""
        return self._path is not None

    def _lines(self) -> list[str]:
        try:
            return [] if self._path is None else self._path.read_text("utf-8").splitlines()
        except OSError:
            return []

    @classmethod
    def begin(cls, environment: MutableMapping[str, str]) -> RefusalFile:
        """Check the budgets that the environment configures, and add the variables that they need.

        Raises:
            click.UsageError: a budget or its store is invalid; nothing has been started.
        """
        try:
            settings = look(environment)
            budgets = budgets_of(settings)
            if not budgets:
                return cls(None)
            environment[LIMITED_VARIABLE] = "1"
            store = settings.budget_store
            if store == "memory" and "TOLLSPAN_BUDGET_STORE" not in environment:
                # Memory is the default of `instrument()`. A run can have several processes, and be repeated.
                store = environment["TOLLSPAN_BUDGET_STORE"] = "sqlite"
            store_of(store, budgets).close()
        except SettingsError as error:
            raise click.UsageError(str(error)) from None
        if settings.refusals is not None:
            return cls(Path(settings.refusals), kept=True)
        with tempfile.NamedTemporaryFile(prefix="tollspan-refusals-", delete=False) as file:
            environment["TOLLSPAN_REFUSALS"] = file.name
        return cls(Path(file.name))

    def end(self, status: int) -> int:
        """Print which calls were refused and why, and return the command's exit status for the program's `status`."""
        if self._path is None:
            return status
        lines = self._lines()[self._before :]
        if not self._kept:
            with suppress(OSError):
                self._path.unlink()
        if not lines:
            return status
        tally = RefusedTally()
        for line in lines:
            tally.add(RefusedCalls.one(_refusal_of(line)))
        for refused in tally.calls:
            click.echo(f"tollspan run: {refused_line(refused)}", err=True)
        return status if status < 0 else REFUSED


def _refusal_of(line: str) -> Refusal:
    """Return the refusal of a line of the file: time, process, budget, reason, and all facts as JSON.

    A process with another tollspan may write no facts, and one that is killed may leave a part of a line.
    """
    _, _, budget, reason, facts = (*line.split("\t", 4), "", "", "", "", "")[:5]
    try:
        return Refusal.of(json.loads(facts))
    except (ValueError, TypeError, KeyError, ArithmeticError):
        return Refusal(budget=budget, reason=reason or "unknown")


_IS_ACTIVE: Final = (
    "import sys; module = sys.modules.get('tollspan.setup.instrument'); sys.exit(not (module and module.current()))"
)


def check_that_budgets_hold(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Refuse to start a Python that would not load tollspan, so that no budget would hold.

    Raises:
        click.UsageError: it does not load tollspan; nothing has been started.
    """
    for python in dict.fromkeys(pythons_of(words, environment)):
        # A Python in a shell's text without options that matter may not be reached, and reports for itself.
        is_plain = len(python.command) == 1 and not python.is_isolated
        if not (python.in_shell and is_plain) and not _loads_tollspan(python, environment):
            raise click.UsageError(
                f"{python.name} does not load tollspan, so no budget would hold; nothing was started. Install tollspan "
                "into its environment, and start it without -I, -E and -S and with the PYTHONPATH of tollspan run"
            )


def _loads_tollspan(python: Python, environment: Mapping[str, str]) -> bool:
    # The check itself exports and records nothing.
    quiet = {name: value for name, value in environment.items() if not name.startswith(("OTEL_", "TOLLSPAN_"))}
    command = [*python.command, "-c", _IS_ACTIVE]
    try:
        done = subprocess.run(command, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603 - the user's own command
    except OSError:  # it is not there, or only after something else in the shell's text
        return True
    return done.returncode != 1


def warn_of_unmetered(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Print a line for a Python that is started so that it would not load tollspan."""
    for python in pythons_of(words, environment):
        if python.is_isolated:
            click.echo(f"tollspan run: {python.name} does not load tollspan: its calls are not metered", err=True)
