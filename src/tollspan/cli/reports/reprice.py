"""`tollspan reprice`: recorded costs side by side with what the calls would cost at other prices."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tollspan.api.pricing import labels_now
from tollspan.cli.ledger_options import resolved, with_conditions, with_ledger
from tollspan.cli.tables import console, money, table
from tollspan.cli.times import WhenType
from tollspan.ledger import repricing
from tollspan.ledger.queries import Ledger
from tollspan.model.errors import PriceTableError
from tollspan.prices.loader import read_table
from tollspan.settings import load
from tollspan.setup.prices import price_source
from tollspan.setup.providers import directory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tollspan.ledger.conditions import Where
    from tollspan.ledger.repricing import Repriced
    from tollspan.prices import PriceTable


class _Totals:
    """The totals of the calls of a model: as recorded, and repriced."""

    __slots__ = ("after", "before", "calls", "changed", "unpriced_after", "unpriced_before")

    def __init__(self) -> None:
        self.calls = self.changed = self.before = self.after = self.unpriced_before = self.unpriced_after = 0

    def add(self, repriced: Repriced) -> None:
        """Add a call."""
        before, after = repriced.kept.call.cost.amount, repriced.cost.amount
        self.calls += 1
        self.changed += before != after
        self.before += before or 0
        self.after += after or 0
        self.unpriced_before += before is None
        self.unpriced_after += after is None

    def cells(self) -> tuple[str, ...]:
        """Return the cells of a table's row."""
        return (
            f"{self.calls:,}",
            f"{self.changed:,}",
            _with_unpriced(self.before, self.unpriced_before),
            _with_unpriced(self.after, self.unpriced_after),
            f"{'-' if self.after < self.before else '+'}{money(abs(self.after - self.before))}",
        )


@click.command()
@with_ledger
@with_conditions
@click.option(
    "--as-of", type=WhenType(), metavar="WHEN", help="Use the prices of this time.  [default: the time of each call]"
)
@click.option("--table", "file", metavar="FILE", help="Use this price file.  [default: the active price table]")
@click.option("--unpriced", is_flag=True, help="Only calls that had no price.")
@click.option("--keep/--no-keep", default=True, help="Store the new costs beside the recorded ones.  [default: keep]")
def reprice(  # noqa: PLR0913 - one argument per option
    path: Path, where: Where, as_of: int | None, file: str | None, *, unpriced: bool, keep: bool
) -> None:
    r"""Compare recorded costs with the costs at other prices.

    Recorded costs never change, and inspect still shows them. The new costs are stored beside them; tollspan call
    shows both.

    \b
    Examples:
      tollspan reprice --unpriced
      tollspan reprice --since 30d --table new-prices.json
    """
    prices = _table(file)
    at = None if as_of is None else datetime.fromtimestamp(as_of / 1e9, UTC)
    with Ledger(path) as ledger:
        where = resolved(ledger, where)
        labels = partial(labels_now, directory=directory(load()))
        repriced = repricing.reprice(ledger.each(where), prices, labels, as_of=at, unpriced=unpriced)
        if keep:
            repriced = repricing.keep(path, repriced, prices, at)
        _show(repriced, prices)


def _table(file: str | None) -> PriceTable:
    if file is None:
        return price_source(load())()
    try:
        return read_table(Path(file).read_bytes(), Path(file).name)[0]
    except (OSError, PriceTableError) as error:
        raise click.ClickException(f"price file {file}: {error}") from None


def _show(repriced: Iterable[Repriced], prices: PriceTable) -> None:
    by_model: dict[tuple[str, str], _Totals] = {}
    total = _Totals()
    for item in repriced:
        call = item.kept.call
        by_model.setdefault((call.provider, call.model or "?"), _Totals()).add(item)
        total.add(item)
    out = console()
    result = table(("provider", "model", "calls", "changed", "recorded", "repriced", "difference"), 2)
    for (provider, model), totals in sorted(by_model.items(), key=lambda item: -abs(item[1].after - item[1].before)):
        result.add_row(provider, model, *totals.cells())
    result.add_row("total", "", *total.cells(), style="bold")
    out.print(result)
    out.print(f"by {prices.version}", style="dim")


def _with_unpriced(amount: int, unpriced: int) -> str:
    return money(amount) + (f" + {unpriced:,} unpriced" if unpriced else "")
