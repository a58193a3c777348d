"""Corrections of LiteLLM's price file: `corrections.toml`, read and applied to the rows of a table.

Every correction names its source. Fills never overwrite a price; a price that a fill would have overwritten is
reported, so that corrections which LiteLLM has adopted are noticed and removed.
"""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.errors import PriceTableError
from tollspan.prices.fields import TIERS, TOKEN_FIELDS
from tollspan.prices.litellm_file import number
from tollspan.prices.row import TRAITS
from tollspan.runtime.resources import folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tollspan.prices.litellm_file import Rows

PATH: Final = Path(__file__).with_name("corrections.toml")

_SHAPES: Final = {
    "fill": {"keys", "prices"},
    "replace": {"keys", "prices"},
    "move": {"keys", "from", "to", "traits"},
    "share": {"providers", "field", "of", "times"},
    "batch": {"providers"},
    "copy": {"keys", "prefix"},
    "unknown": {"providers"},
}


def load(text: str | None = None) -> dict[str, Any]:
    """Return the corrections of a text, or of the bundled file.

    Raises:
        PriceTableError: The text is not TOML, or an entry lacks a reason or a source.
    """
    if text is None:
        text = folder(__package__).joinpath(PATH.name).read_text("utf-8")
    try:
        corrections = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PriceTableError(f"the corrections file is not TOML: {error}") from None
    for kind, entries in corrections.items():
        if kind == "version":
            continue
        for entry in entries:
            if set(entry) != _SHAPES.get(kind, set()) | {"reason", "source"}:
                msg = (
                    f"corrections: [[{kind}]] has {sorted(entry)}, not {sorted(_SHAPES.get(kind, ()))}, reason, source"
                )
                raise PriceTableError(msg)
    return corrections


def apply(rows: Rows, corrections: dict[str, Any]) -> list[str]:
    """Correct rows in place; return a line for each correction that had no effect."""
    said: list[str] = []
    for entry in corrections.get("copy", ()):
        said += _copy(rows, entry)
    for entry in corrections.get("move", ()):
        said += _move(rows, entry)
    for entry in corrections.get("replace", ()):
        said += _replace(rows, entry)
    for entry in corrections.get("unknown", ()):
        _unprice(rows, entry)
    for entry in corrections.get("fill", ()):
        said += _fill(rows, entry)
    for entry in corrections.get("share", ()):
        _share(rows, entry)
    for entry in corrections.get("batch", ()):
        _batch(rows, entry)
    return said


def _fill(rows: Rows, entry: dict[str, Any]) -> Iterator[str]:
    """Add prices to rows that lack them; create `PROVIDER/*` rows for providers in the table."""
    labels = {label for label, _ in rows.values()}
    for key in entry["keys"]:
        if key.endswith("/*") and key[:-2] in labels:
            rows.setdefault(key, (key[:-2], {}))
        if key not in rows:
            yield f"fill: {key} is not in the file"
            continue
        fields = rows[key][1]
        for name, value in entry["prices"].items():
            if fields.setdefault(name, number(value)) != number(value):
                yield f"fill: {key} has a {name} price now"


def _replace(rows: Rows, entry: dict[str, Any]) -> Iterator[str]:
    """Replace wrong prices."""
    right = {name: number(value) for name, value in entry["prices"].items()}
    for key in entry["keys"]:
        if key not in rows:
            yield f"replace: {key} is not in the file"
        elif right.items() <= rows[key][1].items():
            yield f"replace: {key} has the right prices now"
        else:
            rows[key][1].update(right)


def _move(rows: Rows, entry: dict[str, Any]) -> Iterator[str]:
    """Rename a price field, with its sizes."""
    for key in entry["keys"]:
        fields = rows[key][1] if key in rows else {}
        names = [name for name in fields if name.partition(".")[0] == entry["from"]]
        if not names:
            yield f"move: {key} has no {entry['from']} price"
            continue
        for name in names:
            fields[entry["to"] + name.removeprefix(entry["from"])] = fields.pop(name)
        fields.update(entry["traits"])


def _unprice(rows: Rows, entry: dict[str, Any]) -> None:
    """Remove the prices of models that have no other price than 0, from providers whose models are not free."""
    for label, fields in rows.values():
        prices = [name for name in fields if name not in TRAITS and not name.startswith("x.")]
        if label in entry["providers"] and not any(Decimal(fields[name]) for name in prices):
            for name in prices:
                del fields[name]


def _share(rows: Rows, entry: dict[str, Any]) -> None:
    """Price a field as a share of another one, at every size and tier at which that one has a price."""
    times = Decimal(entry["times"])
    for label, fields in rows.values():
        if label not in entry["providers"] or entry["field"] in fields or "mode" in fields:
            continue
        for name in [name for name in fields if _base(name) == entry["of"]]:
            fields[entry["field"] + name.removeprefix(entry["of"])] = number(str(Decimal(fields[name]) * times))


def _batch(rows: Rows, entry: dict[str, Any]) -> None:
    """Add batch prices to all token prices without one, with the discount of the input."""
    for label, fields in rows.values():
        full, batch = fields.get("input"), fields.get("input/batches")
        if label not in entry["providers"] or not full or not batch or full == "0":
            continue
        for name, value in list(fields.items()):
            if _base(name) in TOKEN_FIELDS and not name.endswith(TIERS):
                discounted = Decimal(value) * Decimal(batch) / Decimal(full)
                fields.setdefault(f"{name}/batches", number(str(discounted)))


def _copy(rows: Rows, entry: dict[str, Any]) -> Iterator[str]:
    """Replace the fields of rows by those of their twins."""
    for key in entry["keys"]:
        twin = rows.get(entry["prefix"] + key)
        if twin is None or key not in rows:
            yield f"copy: {key} or its twin {entry['prefix']}{key} is not in the file"
            continue
        if rows[key][1] == twin[1]:
            yield f"copy: {key} costs the same as its twin now"
        rows[key] = (rows[key][0], dict(twin[1]))


def _base(name: str) -> str:
    """Return the name of a field without its size and tier."""
    return name.partition(">")[0].partition("/")[0].partition("@")[0]
