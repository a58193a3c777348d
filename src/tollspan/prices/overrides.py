"""Prices of one's own: `[[prices]]` tables of the settings file, parsed and laid over a price table.

    [[prices]]                      # a model of one's own, or a negotiated price
    model = "acme-70b"
    unit = "per_1m"                 # per_token, per_1k, per_1m: USD per that many tokens; per_second; per_request
    input = 0.40
    output = 1.20

    [[prices]]                      # a discount on everything that one provider charges, from a date on
    provider = "openai"
    multiplier = 0.85
    from = 2026-07-01

An entry is for a `model`, a `provider` (a LiteLLM label such as `vertex_ai`, or a label of one's own) or both. Prices
that it names replace those of the list, the others stay; a `multiplier` goes on everything. Where several entries fit
a call, each later one wins. `from` is inclusive, `until` is not; days start at midnight UTC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.errors import PriceTableError, SettingsError
from tollspan.prices.fields import TIERS, TOKEN_FIELDS, UNIT_FIELDS, yocto
from tollspan.prices.lookup import Match, names_for, prefixes_of
from tollspan.prices.row import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TOKENS_PER_UNIT: Final = {"per_token": 1, "per_1k": 1_000, "per_1m": 1_000_000}
_UNITS: Final = (*_TOKENS_PER_UNIT, "per_second", "per_request")
_FACTS: Final = ("model", "provider", "unit", "multiplier", "from", "until", "per_unit", "note")
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
    """The entries of one settings file, in their order. `digest` tells two sets of them apart."""

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
        SettingsError: when an entry cannot be used; the message says which one, and what is accepted.
    """
    return Overrides(_parse(entry, f"[[prices]] number {number}") for number, entry in enumerate(entries, start=1))


def _parse(entry: Mapping[str, Any], where: str) -> Override:
    unit = entry.get("unit")
    if unit is not None and unit not in _UNITS:
        raise SettingsError(f"{where}: unit = {unit!r} is not one of {', '.join(_UNITS)}")
    prices = _prices(entry, unit, where)
    multiplier = entry.get("multiplier")
    if entry.get("model") is None and entry.get("provider") is None:
        raise SettingsError(f"{where}: names neither a model nor a provider")
    if bool(prices) == (multiplier is not None):
        raise SettingsError(f"{where}: needs either prices, with their unit, or a multiplier")
    start, end = _moment(entry, "from", where), _moment(entry, "until", where)
    if start and end and start >= end:
        raise SettingsError(f"{where}: from = {start:%Y-%m-%d} is not before until = {end:%Y-%m-%d}")
    return Override(
        model=_name(entry, "model", where),
        provider=_name(entry, "provider", where),
        prices=prices,
        multiplier=None if multiplier is None else _positive(multiplier, f"{where}: multiplier"),
        start=start,
        end=end,
    )


def _prices(entry: Mapping[str, Any], unit: str | None, where: str) -> dict[str, int]:
    """Read the prices of an entry, those per unit of another kind (`per_unit`) included."""
    found = {}
    for key, value in entry.items():
        if key in _FACTS:
            continue
        name = _field(key, unit)
        if name is None:
            raise SettingsError(f"{where}: {key!r} is not known; {_accepted(unit)}")
        found[name] = _per(value, _TOKENS_PER_UNIT.get(str(unit), 1), f"{where}: {key}")
    per_unit = entry.get("per_unit", {})
    if not isinstance(per_unit, dict) or not per_unit.keys() <= set(UNIT_FIELDS):
        raise SettingsError(f"{where}: per_unit takes {', '.join(UNIT_FIELDS)}")
    return found | {name: _per(value, 1, f"{where}: per_unit.{name}") for name, value in per_unit.items()}


def _field(key: str, unit: str | None) -> str | None:
    """Translate a key of an entry to a price field, or give None."""
    if unit == "per_second":
        return _PER_SECOND.get(key)
    if unit == "per_request":
        return _PER_REQUEST.get(key)
    return key if unit is not None and _TOKEN_FIELD.match(key) else None


def _accepted(unit: str | None) -> str:
    """Return what an entry with this unit may hold."""
    facts = f"besides {', '.join(_FACTS)}"
    match unit:
        case None:
            return f"prices need a unit ({', '.join(_UNITS)}), {facts} are accepted"
        case "per_second":
            return f"per_second takes {', '.join(_PER_SECOND)}, {facts}"
        case "per_request":
            return f"per_request takes price, {facts}"
        case _:
            return f"{unit} takes {', '.join(TOKEN_FIELDS)}, each also as NAME>200k and NAME/batches, {facts}"


def _per(value: object, count: int, where: str) -> int:
    """Read a price in dollars per `count` and give yocto-dollars per one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise SettingsError(f"{where} = {value!r} is not a price in US dollars")
    try:
        return round(Fraction(yocto(str(value)), count))
    except PriceTableError as error:
        raise SettingsError(f"{where}: {error}") from None


def _positive(value: object, where: str) -> Fraction:
    """Read a multiplier; a float by its shortest decimal text."""
    try:
        factor = Fraction(Decimal(str(value)))
    except (InvalidOperation, ValueError, OverflowError):
        factor = Fraction(-1)
    if factor < 0 or isinstance(value, bool):
        raise SettingsError(f"{where} = {value!r} is not a number of zero or more (0.85 takes 15% off)")
    return factor


def _name(entry: Mapping[str, Any], key: str, where: str) -> str | None:
    value = entry.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise SettingsError(f"{where}: {key} = {value!r} is not a name")
    return value


def _moment(entry: Mapping[str, Any], key: str, where: str) -> datetime | None:
    """Read a date or a moment; what has no zone is UTC."""
    value = entry.get(key)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise SettingsError(f"{where}: {key} = {value!r} is not a date such as 2026-07-01") from None
    if value is None:
        return None
    if not isinstance(value, date):
        raise SettingsError(f"{where}: {key} = {value!r} is not a date such as 2026-07-01")
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value if value.tzinfo else value.replace(tzinfo=UTC)
