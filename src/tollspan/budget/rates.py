"""The most expensive rates that a call may be charged, from the price table: `RateBook.of(shape...)`, `RateBook.units`.

The rates of a model are the highest of those that may apply: a cache write, a modality that the request names, the
price above a threshold, the requested tier or the base tier, on or off peak. There is no clock here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from tollspan.model.records import Billable, Usage
from tollspan.prices import price
from tollspan.wire.batch_requests import TIER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tollspan.model.money import Number
    from tollspan.model.records import Facts
    from tollspan.prices import PriceTable
    from tollspan.prices.tariff import Level

_PLAIN_SIDES: Final = ("input", "cache_write", "input_image"), ("output", "reasoning", "output_image")
_EXPENSIVE_SIDES: Final = (
    (*_PLAIN_SIDES[0], "cache_write_1h", "input_audio", "input_video"),
    (*_PLAIN_SIDES[1], "output_audio", "output_video"),
)
_RATES_EXPIRE: Final = 60.0  # seconds until the table is read again: prices may be dated
_MAX_REMEMBERED: Final = 4096


class Rates(NamedTuple):
    """The most expensive rates of one model and its terms.

    Attributes:
        levels: (threshold in input tokens, input rate, output rate), rates in atto-dollars per token.
        max_input: the model's context in tokens, as far as a request may fill it; None if it is not known.
        max_output: the model's output limit in tokens; None if it is not known.
        by_unit: whether the model is charged by units other than tokens.
    """

    levels: tuple[tuple[int, int, int], ...]
    max_input: int | None = None
    max_output: int | None = None
    by_unit: bool = False

    def cost(self, tokens_in: int, tokens_out: int) -> int:
        """Return the highest cost of these tokens, in atto-dollars."""
        levels = self.levels
        if len(levels) == 1 and tokens_in > levels[0][0]:
            return tokens_in * levels[0][1] + tokens_out * levels[0][2]
        rate_in = rate_out = 0
        for floor, level_in, level_out in levels:
            if tokens_in > floor:
                rate_in, rate_out = max(rate_in, level_in), max(rate_out, level_out)
        return tokens_in * rate_in + tokens_out * rate_out

    @property
    def counts_tokens(self) -> bool:
        """Return whether any token of the model has a price."""
        return any(level_in or level_out for _, level_in, level_out in self.levels)


Pair = tuple[Rates | None, Rates | None]
"""The rates of a plain request; and of one with sound, video or a cache for an hour, if they differ."""


class RateBook:
    """The most expensive rates of models, as they were asked for."""

    def __init__(self, table: Callable[[], PriceTable]) -> None:
        """Price by the table that `table` returns."""
        self._table = table
        self._known: dict[tuple[object, ...], tuple[float, PriceTable, Pair]] = {}

    def of(self, facts: Facts, labels: tuple[str, ...], now: float) -> Pair:
        """Return the most expensive rates of a call, plain and expensive (see `Pair`); None = it has no price.

        Args:
            facts: what the request says.
            labels: the price table's labels of its provider.
            now: the current time in Unix seconds.
        """
        table = self._table()
        key = (labels, facts.request_model, facts.request_tier, facts.geography, facts.speed, facts.region)
        known = self._known.get(key)
        if known is None or known[0] <= now or known[1] is not table:
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            pair = _rates_at(facts, labels, table, datetime.fromtimestamp(now, UTC))
            known = self._known[key] = (now + _RATES_EXPIRE, table, pair)
        return known[2]

    def units(self, facts: Facts, labels: tuple[str, ...], counts: Mapping[str, Number], now: float) -> int:
        """Return the cost of a call's units, in atto-dollars: searches, characters, seconds, images or requests."""
        usage = Usage(input=0, output=0, units=counts)
        at = datetime.fromtimestamp(now, UTC)
        return price(_billable(facts, labels, usage, facts.request_tier), self._table(), at).amount or 0


def _billable(facts: Facts, labels: tuple[str, ...], usage: Usage, tier: str | None) -> Billable:
    return Billable(
        usage=usage,
        price_providers=labels,
        model=facts.request_model,
        request_model=facts.request_model,
        operation=facts.operation,
        tier=tier,
        geography=facts.geography,
        speed=facts.speed,
        region=facts.region,
        search_context=facts.search_context or "high",
    )


def _rates_at(facts: Facts, labels: tuple[str, ...], table: PriceTable, at: datetime) -> Pair:
    model = facts.request_model
    tariffs = [
        tariff
        for tier in ({TIER} if facts.request_tier == TIER else {facts.request_tier, None})
        if (tariff := table.tariff(_billable(facts, labels, Usage(), tier), model, model, at)) is not None
    ]
    if not tariffs:
        return None, None
    limits = (
        max(tariff.row.max_input or 0 for tariff in tariffs) or None,
        max(tariff.row.max_output or 0 for tariff in tariffs) or None,
        any(tariff.by_unit for tariff in tariffs),
    )
    levels = [level for tariff in tariffs for level in (*tariff.levels, *tariff.off_peak_levels)]
    plain = Rates(tuple(_level(level, *_PLAIN_SIDES) for level in levels), *limits)
    expensive = Rates(tuple(_level(level, *_EXPENSIVE_SIDES) for level in levels), *limits)
    return plain, None if expensive == plain else expensive


def _level(level: Level, side_in: Iterable[str], side_out: Iterable[str]) -> tuple[int, int, int]:
    """Return a level's threshold and its most expensive rates in atto-dollars, rounded up."""
    rates = [-(-max(0, *(getattr(level, name) for name in side)) // level.scale) for side in (side_in, side_out)]
    return level.floor, rates[0], rates[1]
