"""Budgets in `tollspan run`: they are checked before the program starts, and the refused calls counted at its end."""

from __future__ import annotations

import re
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tollspan.budget.policy.settings import budgets_of
from tollspan.budget.stores.opening import store_of
from tollspan.model.errors import SettingsError
from tollspan.model.text import many
from tollspan.settings import look

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

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
        """Count the lines that processes write to the file at `path`; None = there is no budget.

        `kept`: the file was named by the user and is not deleted.
        """
        self._path = path
        self._kept = kept
        self._before = self._lines() if kept else 0

    @property
    def limits(self) -> bool:
        """Return whether there is a budget."""
        return self._path is not None

    def _lines(self) -> int:
        try:
            return 0 if self._path is None else self._path.read_text("utf-8").count("\n")
        except OSError:
            return 0

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
        """Print how many calls were refused, and return the command's exit status for the program's `status`."""
        if self._path is None:
            return status
        calls = self._lines() - self._before
        if not self._kept:
            with suppress(OSError):
                self._path.unlink()
        if calls <= 0:
            return status
        click.echo(f"tollspan run: budgets refused {many(calls, 'call')}", err=True)
        return status if status < 0 else REFUSED


_PYTHON: Final = re.compile(r"(python|pypy)[\d.]*t?(\.exe)?")
_WITH_VALUE: Final = frozenset({"-W", "-X", "--check-hash-based-pycs"})
_IS_ACTIVE: Final = (
    "import sys; module = sys.modules.get('tollspan.setup.instrument'); sys.exit(not (module and module.current()))"
)


def check_that_budgets_hold(program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Refuse to start a Python that would not load tollspan, so that no budget would hold.

    Raises:
        click.UsageError: it does not load tollspan; nothing has been started.
    """
    if not _PYTHON.fullmatch(Path(program).name):
        return
    options: list[str] = []
    words = iter(arguments)
    for word in words:
        if not word.startswith("-") or word.startswith(("-c", "-m")) or word in {"-", "--"}:
            break
        options += [word, next(words, "")] if word in _WITH_VALUE else [word]
    # The check itself exports and records nothing.
    quiet = {name: value for name, value in environment.items() if not name.startswith(("OTEL_", "TOLLSPAN_"))}
    done = subprocess.run(  # noqa: S603 - the user's own interpreter
        [program, *options, "-c", _IS_ACTIVE], env=quiet, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode == 1:
        raise click.UsageError(
            f"{program} does not load tollspan, so no budget would hold; nothing was started. Install tollspan into "
            "its environment, and start it without -I, -E and -S"
        )
