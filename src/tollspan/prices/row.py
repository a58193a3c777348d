"""One row of a price table, and its text form.

A line of a snapshot is `KEY<tab>LABEL<tab>FIELDS`: the LiteLLM key, the LiteLLM provider label, then `name=value` pairs
with a space between. A second row with the same fields as an earlier one says `=EARLIER KEY` in their place. A row
without a single price is known but unpriced; a price of 0 is a price.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tollspan.model.errors import PriceTableError
from tollspan.prices.fields import yocto

if TYPE_CHECKING:
    from collections.abc import Mapping

TRAITS: Final = frozenset(
    {
        "mode",  # chat, embedding, image_generation ...
        "max_input",  # tokens: the model's context, as far as a request may fill it
        "max_output",  # tokens: the most that a call can be billed for
        "search_size",  # search context that a call has which does not say: medium, Perplexity low
        "search_by",  # `prompt`: one search charge per call, however many queries (Gemini before 3)
        "off_peak",  # windows in which the fields `NAME@off` hold: see row.is_off_peak
        "off_peak_zone",  # minutes east of UTC in which the weekdays of `off_peak` are counted
    }
)
"""Facts of a row other than prices. Traits that start with `x.` are multipliers."""

_WORD: Final = re.compile(r"\w+")
_TRAIT_VALUES: Final = {
    "x": re.compile(r"\d{1,6}(\.\d{1,12})?"),
    "max_input": re.compile(r"\d{1,12}"),
    "max_output": re.compile(r"\d{1,12}"),
    "off_peak": re.compile(r"[1-7]+:\d+-\d+(,\d+-\d+)*(;[1-7]+:\d+-\d+(,\d+-\d+)*)*"),
    "off_peak_zone": re.compile(r"-?\d{1,3}"),
}


class Row:
    """The prices of one model at one provider in yocto-dollars, and its traits."""

    __slots__ = ("key", "label", "prices", "traits")

    def __init__(self, key: str, label: str, prices: Mapping[str, int], traits: Mapping[str, str]) -> None:
        self.key = key
        self.label = label
        self.prices = prices
        self.traits = traits

    @property
    def max_input(self) -> int | None:
        """Return the most input tokens of one call of the model, or None if the table does not say."""
        value = self.traits.get("max_input")
        return int(value) if value else None

    @property
    def max_output(self) -> int | None:
        """Return the most output tokens of one call of the model, or None if the table does not say."""
        value = self.traits.get("max_output")
        return int(value) if value else None


def parse_row(key: str, label: str, fields: str) -> Row:
    """Read the third column of a line.

    Raises:
        PriceTableError: A field is not `name=value`, or a price is not a number.
    """
    prices: dict[str, int] = {}
    traits: dict[str, str] = {}
    for pair in fields.split():
        name, equals, value = pair.partition("=")
        if not equals:
            raise PriceTableError(f"price row {key!r}: {pair!r} is not name=value")
        if name in TRAITS or name.startswith("x."):
            if not _TRAIT_VALUES.get(name.partition(".")[0], _WORD).fullmatch(value):
                raise PriceTableError(f"price row {key!r}: {pair!r} is invalid")
            traits[name] = value
        else:
            prices[name] = yocto(value)
    return Row(key, label, prices, traits)


def is_off_peak(windows: str, weekday: int, minute: int) -> bool:
    """Return whether a time lies in off-peak windows such as `12345:0-60,240-360;67:0-1440`.

    `weekday` is the weekday of the time (1 is Monday), `minute` its minute of the UTC day. A span that ends before it
    starts runs past midnight.
    """
    for window in windows.split(";"):
        days, _, spans = window.partition(":")
        if str(weekday) not in days:
            continue
        for span in spans.split(","):
            first, last = (int(text) for text in span.split("-"))
            if first <= minute < last or (first > last and not last <= minute < first):
                return True
    return False
