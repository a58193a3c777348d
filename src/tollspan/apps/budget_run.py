"""The budgets' part of `tollspan run`: checked before anything starts, they tell at the end what they refused."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tollspan.budget.configuration import budgets_of, store_of
from tollspan.errors import SettingsError
from tollspan.settings import load

if TYPE_CHECKING:
    from collections.abc import MutableMapping

REFUSED: Final = 40
"""Exit status where a budget refused a call, whatever the program's own was; one that a signal ended keeps that."""


def _limits(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter(
            "it is empty, which is no way to say no limit; leave it out, or give one such as 5 USD/day"
        )
    return value


budget_option: Final = click.option(
    "--budget",
    metavar="LIMITS",
    callback=_limits,
    help='Refuse calls past these limits, such as "5 USD/day, 1 USD/session".',
)


class Refusals:
    """Calls that budgets refused in a run, whichever of its processes made them."""

    def __init__(self, path: Path | None) -> None:
        """Read what processes write to the file at `path`; None = there is no budget."""
        self._path = path

    @classmethod
    def begin(cls, environment: MutableMapping[str, str]) -> Refusals:
        """Check the budgets that the environment names, and put what they need into it.

        Raises:
            click.UsageError: a budget or its store cannot be used; nothing has been started.
        """
        try:
            settings = load(environment)
            budgets = budgets_of(settings)
            if not budgets:
                return cls(None)
            store = settings.budget_store
            if store == "memory":  # the default of `instrument()`; a run has several processes, and comes again
                store = environment["TOLLSPAN_BUDGET_STORE"] = "sqlite"
            store_of(store, budgets).close()
        except SettingsError as error:
            raise click.UsageError(str(error)) from None
        with tempfile.NamedTemporaryFile(prefix="tollspan-refusals-", delete=False) as file:
            environment["TOLLSPAN_REFUSALS"] = file.name
        return cls(Path(file.name))

    def end(self, status: int) -> int:
        """Give the command's exit status for the program's, and say how many calls were refused."""
        if self._path is None:
            return status
        with suppress(OSError):
            calls = self._path.read_text("utf-8").count("\n")
            self._path.unlink()
            if calls:
                click.echo(f"tollspan run: budgets refused {calls} {'call' if calls == 1 else 'calls'}", err=True)
                return status if status < 0 else REFUSED
        return status
