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


_LEAST: Final = atto("0.0001")


@contextmanager
def progress(what: str) -> Iterator[Callable[[float], None]]:
    """Show on a terminal how far the reading of rows is; say it in any case."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=1.0)
        told = False

        def tell(share: float) -> None:
            nonlocal told
            if not told and share < 1.0:
                told = True
                if not sys.stderr.isatty():
                    click.echo(f"{what}: this reads every row that is meant", err=True)
            bar.update(task, completed=share)

        yield tell


def money(amount: int) -> str:
    """Return atto-dollars as people read them: to 4 decimals, and never as nothing where there is something."""
    return "<$0.0001" if 0 < amount < _LEAST else f"${usd(amount):,.4f}"


def written(amount: int, *, exact: bool) -> str:
    """Return atto-dollars as people read them, with a "~" where they are in part an estimate or a lower bound."""
    return money(amount) if exact else f"~{money(amount)}"


def table(heads: Sequence[str], words: int = 1) -> Table:
    """Begin a table whose first `words` columns are words and whose others are numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for place, head in enumerate(heads):
        if place < words:
            made.add_column(head, overflow="fold")
        else:
            made.add_column(head, justify="right", no_wrap=True)
    return made


LINES: Final = click.IntRange(0, 10**9)
"""How many lines a table may be asked for."""


def console() -> Console:
    """Return the console that answers are written on; where it is no terminal, lines are as long as they are.

    Names may hold what Rich would take for markup: only lines without any are printed with it.
    """
    return Console(markup=False, highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 160)
