"""How tables, amounts and progress look on a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tollspan.model.money import atto, usd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


_SMALLEST: Final = atto("0.0001")
"""The smallest amount that is shown in digits."""


@contextmanager
def progress(task_name: str) -> Iterator[Callable[[float], None]]:
    """Show a progress bar on a terminal; elsewhere, write one line when the task takes more than one step.

    Yields:
        A function that takes the share that is done, from 0 to 1.
    """
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(task_name, total=1.0)
        announced = False

        def update(share: float) -> None:
            nonlocal announced
            if not announced and share < 1.0:
                announced = True
                if not sys.stderr.isatty():
                    click.echo(f"{task_name}: reading every matching row", err=True)
            bar.update(task, completed=share)

        yield update


def money(amount: int) -> str:
    """Return atto-dollars as dollars with 4 decimals; an amount above zero is never shown as zero."""
    return "<$0.0001" if 0 < amount < _SMALLEST else f"${usd(amount):,.4f}"


def written(amount: int, *, exact: bool) -> str:
    """Return atto-dollars as dollars, after a "~" if a part of them is an estimate or a lower bound."""
    return money(amount) if exact else f"~{money(amount)}"


def table(heads: Sequence[str], words: int = 1) -> Table:
    """Return an empty table whose first `words` columns hold words and whose others hold numbers."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    for index, head in enumerate(heads):
        if index < words:
            result.add_column(head, overflow="fold")
        else:
            result.add_column(head, justify="right", no_wrap=True)
    return result


ROW_COUNT: Final = click.IntRange(0, 10**9)
"""The type of options that limit the rows of a table; 0 means all."""


def console() -> Console:
    """Return the console for standard output: 160 columns wide if that is not a terminal.

    Names may contain what Rich takes for markup, so markup is off; a line that needs it sets `markup=True`.
    """
    return Console(markup=False, highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 160)
