"""An itemized cost: each count with its rate, row and rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tollspan.prices.engine import amount_of, as_billed, charges_of, level_of, price, round_half_even, units_of
from tollspan.prices.fields import YOCTO_PER_ATTO

if TYPE_CHECKING:
    from datetime import datetime

    from tollspan.model.money import Number
    from tollspan.model.records import Billable, Cost, Usage
    from tollspan.prices.table import PriceTable
    from tollspan.prices.tariff import Tariff


@dataclass(frozen=True, slots=True)
class Item:
    """One line of an invoice.

    `rate` is in yocto-dollars per token or unit, None if the table has no price; `amount` is in atto-dollars. `above`
    is the input size above which the rate applies, 0 for the base; `part` names the iteration of the line.
    """

    kind: str
    count: Number
    rate: int | None
    amount: int
    key: str
    above: int = 0
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Invoice:
    """The lines of a call and its cost. The lines sum to `cost.computed` if that is known."""

    items: tuple[Item, ...]
    cost: Cost


def invoice(billable: Billable, table: PriceTable, at: datetime) -> Invoice:
    """Price a call as `engine.price` does, with the lines of its invoice."""
    own = table.tariff(billable, billable.model, billable.request_model, at)
    iterations: list[tuple[str | None, str | None, Usage]] = [(None, None, billable.usage)]
    if billable.parts:
        iterations = [(part.kind, part.model, part.usage) for part in billable.parts]
    items: list[Item] = []
    first = own
    for kind, model, usage in iterations:
        same = model is None or model == billable.model
        tariff = own if same else table.tariff(billable, model, None, at)
        if tariff is not None:
            first = first or tariff
            items += _tokens(as_billed(usage, tariff), tariff, at, kind)
    if first is not None:
        lines: dict[str, int] = {}
        for item in items:
            lines[item.kind] = lines.get(item.kind, 0) + item.amount
        for name, count, rate in units_of(lines, billable, table, first):
            items.append(Item(name, count, rate, 0 if rate is None else amount_of(count, rate), first.key))
    return Invoice(tuple(items), price(billable, table, at))


def _tokens(usage: Usage, tariff: Tariff, at: datetime, part: str | None) -> list[Item]:
    """Return the lines of one iteration."""
    level, counts, _ = level_of(usage, tariff.levels_at(at))
    above = max(level.floor, 0)
    to_yocto = YOCTO_PER_ATTO // level.scale
    return [
        Item(kind, count, None, 0, tariff.key, above, part)
        if rate < 0
        else Item(kind, count, rate * to_yocto, round_half_even(count * rate, level.scale), tariff.key, above, part)
        for kind, count, rate in charges_of(usage, level, counts)
    ]
