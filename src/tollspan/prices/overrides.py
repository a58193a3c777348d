"""Custom prices: `[[prices]]` tables of the settings file, parsed and laid over a price table.

    [[prices]]                      # a custom model, or a negotiated price
    model = "acme-70b"
    unit = "per_1m"                 # per_token, per_1k, per_1m: USD per that many tokens; per_second; per_request
    input = 0.40
    output = 1.20

    [[prices]]                      # a discount on everything that one provider charges, from a date on
    provider = "openai"
    multiplier = 0.85
    from = 2026-07-01

An entry is for a `model`, a `provider` (a LiteLLM label such as `vertex_ai`, or a custom label) or both. Prices
that it names replace those of the list, the others stay; a `multiplier` goes on everything. Where several entries fit
a call, each later one wins. `from` is inclusive, `until` is not; days start at midnight UTC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.errors import PriceTableError, SettingsError
from tollspan.model.tables import Key, choice, unknown, wrong
from tollspan.prices.fields import TIERS, TOKEN_FIELDS, UNIT_FIELDS, yocto
from tollspan.prices.lookup import Match, names_for, prefixes_of
from tollspan.prices.row import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TOKENS_PER_UNIT: Final = {"per_token": 1, "per_1k": 1_000, "per_1m": 1_000_000}
_UNITS: Final = (*_TOKENS_PER_UNIT, "per_second", "per_request")
_PER_SECOND: Final = {"input": "input_seconds", "output": "output_seconds"}
_PER_REQUEST: Final = {"price": "requests"}
_TOKEN_FIELD: Final = re.compile(rf"^({'|'.join(TOKEN_FIELDS)})(>\d+k)?(/({'|'.join(TIERS)}))?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One `[[prices]]` entry. `prices` are in yocto-dollars per token or unit."""

    model: str | None = None
    provider: str | None = None
    prices: Mapping[str, int] = field(default_factory=dict)
    multiplier: Fraction | None = None
    start: datetime | None = None
    end: datetime | None = None

    def holds(self, at: datetime) -> bool:
        """Return whether a moment lies within the entry's dates."""
        return (self.start is None or self.start <= at) and (self.end is None or at < self.end)

    def fits(self, model: str, providers: tuple[str, ...], match: Match | None) -> bool:
        """Return whether the entry is for this model at these price providers."""
        if self.provider is not None and not any(
            self.provider == label or self.provider in prefixes_of(label) for label in providers
        ):
            return False
        return self.model is None or self.model in _names(model, providers, match)


def _names(model: str, providers: tuple[str, ...], match: Match | None) -> set[str]:
    """Return the names that a model goes by: its own, undated ones, the key it was found under."""
    names = {model, *(name for label in providers for name, _ in names_for(model, label))}
    return names | {match.key} if match else names


class Overrides:
    """The entries of one settings file, in their order. Different entries have a different `digest`."""

    __slots__ = ("digest", "entries")

    def __init__(self, entries: Iterable[Override]) -> None:
        self.entries = tuple(entries)
        self.digest = sha256(repr(self.entries).encode()).hexdigest()[:8]

    def moments(self) -> list[datetime]:
        """Return the moments at which any entry begins or ends."""
        return sorted({edge for entry in self.entries for edge in (entry.start, entry.end) if edge is not None})

    def apply(self, model: str, providers: tuple[str, ...], match: Match | None, at: datetime) -> Match | None:
        """Lay the entries that hold at a moment over what the table says of a model."""
        fitting = [entry for entry in self.entries if entry.holds(at) and entry.fits(model, providers, match)]
        if not fitting:
            return match
        prices = dict(match.row.prices) if match else {}
        factor = Fraction(1)
        for entry in fitting:
            prices.update(entry.prices)
            factor = factor if entry.multiplier is None else entry.multiplier
        if not prices:
            return match
        key, label, traits = (match.key, match.row.label, match.row.traits) if match else (model, "own", {})
        row = Row(key, label, {name: round(value * factor) for name, value in prices.items()}, traits)
        return Match(key, row, f"{match.rule}+own" if match else "own")


def parse(entries: Iterable[Mapping[str, Any]]) -> Overrides:
    """Read `[[prices]]` entries.

    Raises:
        SettingsError: an entry is not valid; the message says which one, and names key, value and what is expected.
    """
    return Overrides(_parse(entry, f"[[prices]] number {number}") for number, entry in enumerate(entries, start=1))


def _parse(entry: Mapping[str, Any], where: str) -> Override:
    facts = {key: _FACTS[key].read(entry[key], f"{where}: {key}") for key in _FACTS if entry.get(key) is not None}
    prices, multiplier = _prices(entry, facts, where), facts.get("multiplier")
    if "model" not in facts and "provider" not in facts:
        raise SettingsError(f"{where}: names neither a model nor a provider")
    if bool(prices) == (multiplier is not None):
        raise SettingsError(f"{where}: needs either prices, with their unit, or a multiplier")
    start, end = facts.get("from"), facts.get("until")
    if start and end and start >= end:
        raise SettingsError(f"{where}: from={start:%Y-%m-%d} is not before until={end:%Y-%m-%d}")
    return Override(
        model=facts.get("model"),
        provider=facts.get("provider"),
        prices=prices,
        multiplier=multiplier,
        start=start,
        end=end,
    )


def _prices(entry: Mapping[str, Any], facts: Mapping[str, Any], where: str) -> dict[str, int]:
    """Return the prices of an entry, those for other units (`per_unit`) included."""
    unit = facts.get("unit")
    prices: dict[str, int] = {}
    for key, value in entry.items():
        if key in _FACTS:
            continue
        name = _field(key, unit)
        if name is None or unit is None:
            raise SettingsError(f"{where}{unknown(key, (*_fields(unit), *_FACTS), expected=_expected(unit))}")
        prices[name] = _PRICES[unit].read(value, f"{where}: {key}")
    return {**prices, **facts.get("per_unit", {})}


def _field(key: str, unit: str | None) -> str | None:
    """Return the price field that a key of an entry sets, or None if it is not one."""
    if unit == "per_second":
        return _PER_SECOND.get(key)
    if unit == "per_request":
        return _PER_REQUEST.get(key)
    return key if unit is not None and _TOKEN_FIELD.match(key) else None


def _fields(unit: str | None) -> tuple[str, ...]:
    """Return the keys of prices that an entry with this unit may have; token prices also have other forms."""
    match unit:
        case None:
            return ()
        case "per_second":
            return tuple(_PER_SECOND)
        case "per_request":
            return tuple(_PER_REQUEST)
        case _:
            return tuple(TOKEN_FIELDS)


def _expected(unit: str | None) -> str:
    """Return which keys an entry with this unit may have, for messages."""
    facts = f"besides {', '.join(_FACTS)}"
    if unit is None:
        return f"a unit ({', '.join(_UNITS)}) for prices, {facts}"
    forms = ", each also as NAME>200k and NAME/batches," if unit in _TOKENS_PER_UNIT else ""
    return f"{', '.join(_fields(unit))}{forms} with the unit {unit}, {facts}"


def _price(value: object, count: int = 1, part: str = "") -> int:
    """Return yocto-dollars per token or unit, from dollars per `count` of them."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise wrong(value, _DOLLARS, part=part)
    try:
        return round(Fraction(yocto(str(value)), count))
    except PriceTableError as error:
        raise wrong(value, f"{_DOLLARS} ({error})", part=part) from None


def _per_unit(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise TypeError(value)
    for name in value:
        if name not in UNIT_FIELDS:
            raise unknown(name, UNIT_FIELDS)
    return {name: _price(price, part=f".{name}") for name, price in value.items()}


def _multiplier(value: object) -> Fraction:
    """Return a multiplier; a float by its shortest decimal text."""
    try:
        factor = Fraction(Decimal(str(value)))
    except (InvalidOperation, OverflowError):
        factor = Fraction(-1)
    if factor < 0 or isinstance(value, bool):
        raise ValueError(value)
    return factor


def _name(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(value)
    return value


def _moment(value: object) -> datetime:
    """Return a date or a time as a time; one without a zone is in UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, date):
        raise TypeError(value)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


_DOLLARS: Final = "a price in US dollars"
_DATE: Final = "a date such as 2026-07-01"
_PRICES: Final = {unit: Key(partial(_price, count=_TOKENS_PER_UNIT.get(unit, 1)), _DOLLARS) for unit in _UNITS}
_FACTS: Final[Mapping[str, Key]] = {
    "model": Key(_name, "a name"),
    "provider": Key(_name, "a name"),
    "unit": choice(*_UNITS),
    "multiplier": Key(_multiplier, "a number of zero or more (0.85 takes 15% off)"),
    "from": Key(_moment, _DATE),
    "until": Key(_moment, _DATE),
    "per_unit": Key(_per_unit, f"a table of prices by unit: {', '.join(UNIT_FIELDS)}"),
    "note": Key(lambda value: value, "anything"),
}
"""The keys of an entry that are not prices by token, second or request."""
