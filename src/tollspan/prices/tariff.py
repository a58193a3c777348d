"""A price row under one set of terms (tier, region, geography, speed): the rates for a call's counts.

A tariff is compiled once per model and terms; pricing a call then reads one `Level`. Every fallback of the price rules
(docs/explanation/price-rules.md) happens here, once:

- a missing tier price falls back to the base price (rule 6);
- a cache read or write without a price costs the input rate; an explicit 0 is a price (rule 2);
- a 1-hour or 12-hour cache write without a price costs the base write rate (rule 3);
- a modality or reasoning without a price costs the base rate (rules 4 and 5);
- thresholds are a cliff: the highest crossed one reprices every token (rule 1).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from tollspan.prices.fields import CONTEXT_SIZES, SIZED_UNITS, TOOL_UNITS, UNIT_FIELDS, YOCTO_PER_ATTO
from tollspan.prices.row import is_off_peak

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from fractions import Fraction

    from tollspan.prices.row import Row

INCLUSIVE_LABELS: Final = frozenset({"xai"})
"""Providers that bill a threshold's rates at the threshold itself, not only above it (rule 1)."""


UNKNOWN: Final = -1
"""Marks a price in a `Level` that the row does not have."""


class Level(NamedTuple):
    """The rates per token above one input size; `UNKNOWN` if the row has no such price.

    `scale` is their unit: 1 for whole atto-dollars, 10**6 for yocto-dollars. `plain` is true if text input and output
    can each be priced with one multiplication.
    """

    floor: int
    scale: int
    plain: bool
    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    cache_write_12h: int
    reasoning: int
    input_audio: int
    input_image: int
    input_video: int
    output_audio: int
    output_image: int
    output_video: int
    cache_read_audio: int
    cache_read_image: int


class Tariff(NamedTuple):
    """A row compiled for one set of terms.

    `levels` are sorted from the highest threshold down, and the last one starts at zero. `units` are prices per unit in
    yocto-dollars, those of sized units under `NAME.SIZE`; `by_unit` is true if any of them is the model's own
    and not a server-side tool's. `off_peak` are the windows in which `off_peak_levels` apply. `gaps` are terms with a
    price that the table does not have.
    """

    key: str
    rule: str
    row: Row
    levels: tuple[Level, ...]
    units: Mapping[str, int]
    by_unit: bool
    off_peak: str | None
    off_peak_levels: tuple[Level, ...]
    note: str | None
    gaps: tuple[str, ...]

    def levels_at(self, at: datetime) -> tuple[Level, ...]:
        """Return the levels that apply at a time. A time without a zone is UTC."""
        if self.off_peak is None:
            return self.levels
        offset = at.utcoffset()
        utc = at - offset if offset else at
        zone = int(self.row.traits.get("off_peak_zone", "0"))
        weekday = (utc + timedelta(minutes=zone)).isoweekday()
        return self.off_peak_levels if is_off_peak(self.off_peak, weekday, utc.hour * 60 + utc.minute) else self.levels


class Terms(NamedTuple):
    """The terms of a call: tiers of the price fields, the multiplier of token prices, and a note.

    If the first tier has no price, the next one's applies, then the base price.
    """

    tiers: tuple[str, ...] = ()
    multiplier: Fraction | int = 1
    note: str | None = None
    gaps: tuple[str, ...] = ()


def compile_tariff(row: Row, rule: str, terms: Terms) -> Tariff:
    """Return a row's tariff for a call's terms. Multipliers apply to token prices only, never to units."""
    multiplier = terms.multiplier
    suffixes = (*(f"/{tier}" for tier in terms.tiers), "")
    off_peak = row.traits.get("off_peak")
    units = _units(row.prices, suffixes)
    return Tariff(
        key=row.key,
        rule=rule,
        row=row,
        levels=tuple(_levels(row, suffixes, multiplier)),
        units=units,
        by_unit=any(name.partition(".")[0] not in TOOL_UNITS for name in units),
        off_peak=off_peak,
        off_peak_levels=tuple(_levels(row, ("@off", *suffixes), multiplier)) if off_peak else (),
        note=terms.note,
        gaps=terms.gaps,
    )


def _levels(row: Row, suffixes: tuple[str, ...], multiplier: Fraction | int) -> Iterator[Level]:
    """Yield the levels of a row, highest threshold first. A threshold counts if the base or this tier has it."""
    sizes = {size for name in row.prices for size in _size_of(name, suffixes)}
    inclusive = row.label in INCLUSIVE_LABELS
    ordered = sorted(sizes, reverse=True)
    for position, size in enumerate(ordered):
        places = tuple(f">{lower}k{suffix}" for lower in ordered[position:] for suffix in suffixes) + suffixes
        yield _level(row.prices, size * 1000 - 1 if inclusive else size * 1000, places, multiplier)
    yield _level(row.prices, -1, suffixes, multiplier)


def _size_of(name: str, suffixes: tuple[str, ...]) -> Iterator[int]:
    """Yield the threshold of a field in thousands of tokens, if it is visible for these suffixes."""
    _, sign, rest = name.partition(">")
    if sign:
        digits = rest.partition("k")
        if digits[2] in suffixes:
            yield int(digits[0])


def _level(prices: Mapping[str, int], floor: int, places: tuple[str, ...], multiplier: Fraction | int) -> Level:
    """Return a level: each rate from the most specific field that has it, then by the fallbacks of the rules."""

    def rate(*names: str) -> int | None:
        for place in places:
            for name in names:
                value = prices.get(name + place)
                if value is not None:
                    return value
        return None

    plain_input = _first(rate("input"), rate("input_audio"), rate("input_image"))
    plain_output = _first(rate("output"), rate("output_image"), rate("output_audio"))
    read = _first(rate("cache_read"), plain_input)
    write = _first(rate("cache_write"), plain_input)
    rates = (
        plain_input,
        plain_output,
        read,
        write,
        _first(rate("cache_write_1h"), write),
        _first(rate("cache_write_12h"), write),
        # A more specific output price takes precedence over a less specific reasoning price: threshold and tier
        # reprice every token, and the file lists reasoning prices at the base only.
        _first(rate("reasoning", "output"), plain_output),
        _first(rate("input_audio"), plain_input),
        _first(rate("input_image"), plain_input),
        _first(rate("input_video"), plain_input),
        _first(rate("output_audio"), plain_output),
        _first(rate("output_image"), plain_output),
        _first(rate("output_video"), plain_output),
        _first(rate("cache_read_audio"), read),
        _first(rate("cache_read_image"), read),
    )
    multiplied = tuple(UNKNOWN if value is None else round(value * multiplier) for value in rates)
    if any(value >= 0 and value % YOCTO_PER_ATTO for value in multiplied):
        return Level(floor, YOCTO_PER_ATTO, False, *multiplied)  # noqa: FBT003 - the third field is named `plain`
    whole = tuple(value if value == UNKNOWN else value // YOCTO_PER_ATTO for value in multiplied)
    return Level(floor, 1, UNKNOWN not in whole[:2], *whole)


def _first(*values: int | None) -> int | None:
    """Return the first value that is a price, 0 included."""
    return next((value for value in values if value is not None), None)


def _units(prices: Mapping[str, int], suffixes: tuple[str, ...]) -> dict[str, int]:
    """Return the prices per unit; the tier's take precedence over the base ones."""
    names = (*UNIT_FIELDS, *(f"{unit}.{size}" for unit in SIZED_UNITS for size in CONTEXT_SIZES))
    return {name: prices[name + suffix] for suffix in reversed(suffixes) for name in names if name + suffix in prices}
