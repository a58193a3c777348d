"""A price table: the text of a snapshot, searched by bisection, with a cache of rows.

The text is sorted by key. No index is built, so opening a table costs almost nothing, and only rows that are used
become objects. A table is immutable apart from its caches and safe to share between threads: cached values are pure
functions of the text.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from tollspan.model.errors import PriceTableError
from tollspan.prices.fields import BATCHES, tiers_of
from tollspan.prices.lookup import Match, keys_for, names_for
from tollspan.prices.row import Row, parse_row
from tollspan.prices.tariff import Tariff, Terms, compile_tariff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tollspan.model.records import Billable
    from tollspan.prices.overrides import Overrides

MAGIC: Final = b"tollspan-prices 1"
"""First line of every snapshot: name and version of the format."""

_CACHE_LIMIT: Final = 4096
"""Most models and terms in a cache; then the cache is cleared, so that invented names cannot fill the memory."""

_EVER: Final = datetime.min.replace(tzinfo=UTC)
"""The earliest time."""

_Schedule = tuple[tuple[datetime, "Tariff | None"], ...]
"""Tariffs with the time from which each applies, the latest first."""


class PriceTable:
    """Prices by model and provider. Create one with `PriceTable.parse`; `EMPTY` prices nothing."""

    __slots__ = ("_overrides", "_rows", "_start", "_tariffs", "_text", "header", "version")

    def __init__(self, text: bytes, header: dict[str, object], start: int) -> None:
        self.header = header
        self.version = str(header.get("version", "unknown"))
        self._text = text
        self._start = start
        self._rows: dict[str, Row | None] = {}
        self._tariffs: dict[tuple[object, ...], _Schedule] = {}
        self._overrides: Overrides | None = None

    @classmethod
    def parse(cls, text: bytes) -> PriceTable:
        """Return the table of a snapshot's text. Rows are read when they are looked up.

        Raises:
            PriceTableError: The text is not a snapshot of a known version.
        """
        magic, _, rest = text.partition(b"\n")
        if magic != MAGIC:
            raise PriceTableError(f"not a tollspan price snapshot: it starts with {magic[:40]!r} instead of {MAGIC!r}")
        head, _, _ = rest.partition(b"\n")
        try:
            header = json.loads(head)
        except ValueError as error:
            raise PriceTableError(f"the price snapshot's second line is not JSON: {error}") from None
        if not isinstance(header, dict):
            raise PriceTableError("the price snapshot's second line is not a JSON object")
        return cls(text, header, len(magic) + 1 + len(head) + 1)

    @property
    def date(self) -> datetime | None:
        """Return the time when the table was last known to be current, or None if its header does not say."""
        said = self.header.get("date")
        try:
            found = datetime.fromisoformat(said) if isinstance(said, str) else None
        except ValueError:
            return None
        return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found

    def __len__(self) -> int:
        """Count the rows, unpriced ones included."""
        return self._text.count(b"\n", self._start)

    def __iter__(self) -> Iterator[Row]:
        """Yield every row in the order of the keys, without filling the caches."""
        for line in self._text[self._start :].decode().split("\n"):
            if line:
                yield self._read(line)

    def row(self, key: str) -> Row | None:
        """Return the row of a key, or None."""
        try:
            return self._rows[key]
        except KeyError:
            pass
        if len(self._rows) >= _CACHE_LIMIT:
            self._rows.clear()
        line = self._line(key)
        found = self._rows[key] = None if line is None else self._read(line)
        return found

    def find(self, model: str, providers: tuple[str, ...], region: str | None = None) -> Match | None:
        """Find the row of a model, for the first price provider that has it.

        Args:
            model: The model's name on the wire.
            providers: LiteLLM provider labels, best first. Without labels nothing matches: an unknown host may serve
            any
                model under any name.
            region: The cloud region from host or path; keys with prices for it take precedence.
        """
        if not model:
            return None
        # Exact names of every provider go before any looser rule of the first one.
        for label in providers:
            for key in keys_for(model, label, region):
                if (row := self._of(key, label)) is not None:
                    return Match(key, row, "exact")
        for label in providers:
            for name, rule in names_for(model, label):
                for key in keys_for(name, label, region):
                    if (row := self._of(key, label)) is not None:
                        return Match(key, row, rule)
        return None

    def with_overrides(self, overrides: Overrides) -> PriceTable:
        """Return this table with custom prices on top; its version says so."""
        table = PriceTable(self._text, self.header, self._start)
        table._overrides = overrides
        table.version = f"{self.version}+own.{overrides.digest}"
        return table

    def tariff(self, billable: Billable, model: str | None, request_model: str | None, at: datetime) -> Tariff | None:
        """Return the rates for a call at a time, or None if no price is known.

        The served model decides; the requested one only if the table has no price for the served one.
        """
        key = (
            model,
            request_model,
            billable.price_providers,
            billable.tier,
            billable.geography,
            billable.speed,
            billable.region,
        )
        try:
            found = self._tariffs[key]
        except KeyError:
            if len(self._tariffs) >= _CACHE_LIMIT:
                self._tariffs.clear()
            found = self._tariffs[key] = self._schedule(billable, model, request_model)
        if len(found) == 1:
            return found[0][1]
        moment = at if at.tzinfo else at.replace(tzinfo=UTC)
        return next(tariff for start, tariff in found if start <= moment)

    def _schedule(self, billable: Billable, model: str | None, request_model: str | None) -> _Schedule:
        """Return the tariffs of a model, the latest first; more than one only if custom prices have dates."""
        starts = [_EVER, *(self._overrides.moments() if self._overrides else ())]
        return tuple((start, self._compile(billable, model, request_model, start)) for start in reversed(starts))

    def _compile(self, billable: Billable, model: str | None, request_model: str | None, at: datetime) -> Tariff | None:
        match = self._priced(model, billable, at)
        rule = match.rule if match else ""
        if match is None and request_model != model:
            match = self._priced(request_model, billable, at)
            rule = f"request-model+{match.rule}" if match else ""
        if match is None:
            return None
        return compile_tariff(match.row, rule, _terms(match.row, billable))

    def _priced(self, model: str | None, billable: Billable, at: datetime) -> Match | None:
        """Return a model's match if it has any price; free is a price."""
        if not model:
            return None
        match = self.find(model, billable.price_providers, billable.region)
        if self._overrides:
            match = self._overrides.apply(model, billable.price_providers, match, at)
        return match if match and match.row.prices else None

    def fields(self, key: str) -> tuple[str, dict[str, str]]:
        """Return the provider label and the fields of a key as strings, to be copied to another table.

        Raises:
            KeyError: The table does not have the key.
        """
        line = self._line(key)
        if line is None:
            raise KeyError(key)
        _, label, fields = self._resolved(line)
        return label, dict(pair.split("=", 1) for pair in fields.split())

    def _of(self, key: str, label: str) -> Row | None:
        """Return the row of a key if it belongs to a provider: many names have another price elsewhere."""
        row = self.row(key)
        return row if row is not None and row.label == label else None

    def _line(self, key: str) -> str | None:
        """Return the line of a key, found by bisection, or None."""
        text, wanted = self._text, key.encode(errors="replace") + b"\t"
        low, high = self._start, len(text)
        while low < high:
            begin = text.rfind(b"\n", low - 1, (low + high) // 2) + 1
            end = text.find(b"\n", begin)
            end = len(text) if end < 0 else end
            found = text[begin : text.find(b"\t", begin, end) + 1]
            if found == wanted:
                return text[begin:end].decode()
            if found < wanted:
                low = end + 1
            else:
                high = begin
        return None

    def _read(self, line: str) -> Row:
        return parse_row(*self._resolved(line))

    def _resolved(self, line: str) -> tuple[str, str, str]:
        """Split a line; follow a reference to the row whose fields it shares."""
        key, label, fields = _columns(line)
        if fields.startswith("="):
            target = self._line(fields[1:])
            shared = "=" if target is None else _columns(target)[2]
            if shared.startswith("="):
                raise PriceTableError(f"price row {key!r} refers to {fields[1:]!r}, which has no prices of its own")
            fields = shared
        return key, label, fields


def _columns(line: str) -> tuple[str, str, str]:
    """Split a line into key, label and fields."""
    columns = line.split("\t")
    if len(columns) != 3:  # noqa: PLR2004 - key, label, fields
        raise PriceTableError(f"price snapshot line {line[:60]!r} has {len(columns)} columns instead of 3")
    return columns[0], columns[1], columns[2]


_COMMITTED: Final = frozenset({"provisioned_throughput", "reserved"})
"""Tiers that are paid by commitment, not by call: their tokens are priced at the base price."""


def _terms(row: Row, billable: Billable) -> Terms:
    """Return a row's terms for a call's tier, geography, speed and region; multipliers stack (rule 7)."""
    traits = row.traits
    speed, region = (billable.speed or "").lower(), (billable.region or "").lower()
    multipliers = (
        (f"x.{(billable.geography or '').lower()}", "geography"),
        (f"x.{speed}", "speed"),
        (f"x.region.{region}", "region"),
        ("x.regional" if region not in {"", "global"} else "", "region"),
    )
    factor: Fraction | int = 1
    said = []
    for name, what in multipliers:
        if (value := traits.get(name)) is not None:
            factor *= Fraction(value)
            said.append(f"{what} x{value}")
    if billable.tier and billable.tier.lower() in _COMMITTED:
        said.append(f"{billable.tier} is paid by commitment: priced at the base price")
    tiers = tiers_of(billable.tier, row.label)
    if BATCHES in tiers and not any(name.endswith(tiers) for name in row.prices):
        said.append("the table has no batch price: priced at the base price")
    # Bedrock bills latency-optimised inference at prices that are in no list.
    gaps = ("latency-optimised inference",) if speed == "optimized" and row.label.startswith("bedrock") else ()
    return Terms(tiers, factor, "; ".join(said) or None, gaps)


EMPTY: Final = PriceTable(MAGIC, {"version": "empty"}, len(MAGIC))
"""A table without prices: every call is unpriced."""
