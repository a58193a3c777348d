"""The JSON Schema of `tollspan.toml`, made from the tables that the file is read by.

    python -m docs.generate.toml_schema            writes docs/reference/tollspan.schema.json
    python -m docs.generate.toml_schema --check    exits with 1 if that file is not current

Which keys exist comes from the code. What a key does comes from where the reference has it: the descriptions of the
settings, and the tables of keys in docs/reference.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.policy import budget as policy
from tollspan.prices import overrides
from tollspan.prices.fields import TIERS, TOKEN_FIELDS, UNIT_FIELDS
from tollspan.settings import DESCRIPTIONS
from tollspan.wire import providers

if TYPE_CHECKING:
    from collections.abc import Mapping

REFERENCE: Final = Path(__file__).parents[1] / "reference"
FILE: Final = REFERENCE / "tollspan.schema.json"

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string", "pattern": r"\S"}
TEXTS: Final[Schema] = {"type": "array", "items": TEXT}
PRICE: Final[Schema] = {
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^\d*\.?\d+([eE][-+]?\d+)?$"}]
}
SHARE: Final[Schema] = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
TRAIT: Final = rf"^({'|'.join(policy.KEYS)}|tag\.[\w.-]{{1,64}})$"
MOMENT: Final[Schema] = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d"}

SETTINGS: Final[Mapping[str, Schema]] = {
    "budget": TEXT,
    "hosts": {"anyOf": [TEXT, {"type": "array", "items": {"type": "string", "pattern": r"^[^=]+=\s*\S"}}]},
    "metric_attributes": {
        "anyOf": [TEXT, {"type": "array", "items": {"pattern": r"^(user|session|run|step|agent|tag\.[\w.-]{1,64})$"}}]
    },
}
"""Settings of which an editor can say more than what type they have."""

BUDGET: Final[Mapping[str, Schema]] = {
    "name": {**TEXT, "maxLength": 100},
    "limit": {
        "type": "string",
        "pattern": r"^\s*(\$\s*[\d_.]+|[\d_.]+\s*(\$|[Uu][Ss][Dd]|dollars?|tokens?|calls?|identical( calls?)?))\s*$",
    },
    "period": {
        "type": "string",
        "pattern": r"^(session|run|total|hour|day|week|month|rolling\s+\d{1,4}\s*[smhd])$",
    },
    "time_zone": TEXT,
    "match": {
        "type": "object",
        "propertyNames": {"pattern": TRAIT},
        "additionalProperties": {"anyOf": [TEXT, {**TEXTS, "minItems": 1}]},
    },
    "per": {"type": "array", "items": {"type": "string", "pattern": TRAIT}},
    "hard": {"type": "boolean"},
    "fit": {"type": "boolean"},
    "fit_at_least": {"type": "integer", "minimum": 1},
    "wait": {
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": 3600},
            {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*[smhdSMHD]?\s*$"},
        ]
    },
    "warn_at": {"type": "array", "items": SHARE},
    "webhook": {"type": "string", "pattern": r"^https?://[^\s/]+\S*$"},
    "webhook_secret": TEXT,
    "unpriced": {
        "anyOf": [
            {"enum": ["deny", "allow"]},
            {
                "type": "object",
                "properties": {"input": PRICE, "output": PRICE},
                "required": ["input", "output"],
                "additionalProperties": False,
            },
        ]
    },
    "downgrade": {"type": "object", "additionalProperties": TEXT, "minProperties": 1},
    "downgrade_at": SHARE,
    "message": TEXT,
}
"""Keys of a budget that are not one of a few words."""

PROVIDER: Final[Mapping[str, Schema]] = {
    "cache_header": {
        "type": "object",
        "properties": {"name": TEXT, "hit": TEXT},
        "required": ["name", "hit"],
    },
    "token_headers": {
        "type": "object",
        "propertyNames": {"enum": ["cache_read", "cache_write", "input", "output"]},
        "additionalProperties": TEXT,
    },
    "region": TEXT,
    "paths": {"type": "object", "additionalProperties": TEXT},
    "unseen": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
    "tools_counted": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
    "served_by": {
        "type": "object",
        "properties": {"header": TEXT, "labels": {"type": "object", "additionalProperties": TEXT}},
    },
}
"""Keys of a provider that are not a text, a list of texts or a switch."""

PRICES: Final[Mapping[str, Schema]] = {
    "model": {"type": "string", "minLength": 1},
    "provider": {"type": "string", "minLength": 1},
    "unit": {"enum": ["per_token", "per_1k", "per_1m", "per_second", "per_request"]},
    "multiplier": {"type": "number", "minimum": 0},
    "from": MOMENT,
    "until": MOMENT,
    "per_unit": {"type": "object", "propertyNames": {"enum": list(UNIT_FIELDS)}, "additionalProperties": PRICE},
    "note": {},
    "price": PRICE,
}
"""Keys of an entry of prices that are not the name of a price."""


def texts(page: str) -> dict[str, str]:
    """Return what each key does, by the table of keys on a page of the reference."""
    _, _, below = (REFERENCE / page).read_text("utf-8").partition("### Keys\n")
    table = re.search(r"^\|.+(?:\n\|.+)*", below, re.MULTILINE)
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", table[0] if table else "", re.MULTILINE)
    return {key: text.replace("`", "") for key, text in rows}


def table(keys: Mapping[str, Schema], page: str, **more: Any) -> Schema:
    """Return the schema of `[[...]]` tables with these keys. Raises KeyError if the page says nothing about one."""
    described_keys = texts(page)
    properties = {key: {"description": described_keys[key], **schema} for key, schema in keys.items()}
    properties |= more.pop("properties", {})
    return {
        "type": "array",
        "items": {"type": "object", "properties": properties, "additionalProperties": False, **more},
    }


def _budget() -> Schema:
    keys = {key: BUDGET.get(key) or {"enum": list(read.choices)} for key, read in policy._KEYS.items()}  # noqa: SLF001
    return table(keys, "budgets.md", required=["limit"])


def _providers() -> Schema:
    kinds = {providers._TEXT: TEXT, providers._TEXTS: TEXTS, providers._FLAG: {"type": "boolean"}}  # noqa: SLF001
    keys = {key: PROVIDER.get(key) or kinds[read] for key, read in providers._KEYS.items()}  # noqa: SLF001
    return table(keys, "providers.md")


def _prices() -> Schema:
    keys = {key: PRICES[key] for key in (*overrides._FACTS, *overrides._PER_REQUEST)}  # noqa: SLF001
    named = rf"^({'|'.join(TOKEN_FIELDS)})(>\d+k)?(/({'|'.join(TIERS)}))?$"
    return table(
        keys,
        "prices.md",
        properties={field: {"description": "A price in US dollars, per `unit`.", **PRICE} for field in TOKEN_FIELDS},
        patternProperties={named: PRICE},
        allOf=[
            {"anyOf": [{"required": ["model"]}, {"required": ["provider"]}]},
            {"anyOf": [{"required": ["unit"]}, {"required": ["multiplier"]}, {"required": ["per_unit"]}]},
        ],
    )


def schema() -> Schema:
    """Return the schema."""
    tables = {"budgets": _budget, "providers": _providers, "prices": _prices}
    properties = {}
    for name, description in DESCRIPTIONS.items():
        what = tables[name]() if name in tables else SETTINGS.get(name, description.schema)
        properties[name] = {"description": description.text.replace("`", ""), **what}
    budgets = properties.pop("budgets")
    line = properties["budget"]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "tollspan.toml",
        "description": "Settings of tollspan",
        "type": "object",
        "properties": {
            **properties,
            "budget": {
                "description": line["description"],
                "anyOf": [{"type": "string", "pattern": r"\S"}, {key: budgets[key] for key in ("type", "items")}],
            },
        },
        "additionalProperties": False,
    }


def written() -> str:
    """Return the text of the file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(prog="toml_schema", description="Make the JSON Schema of tollspan.toml.")
    parser.add_argument("--check", action="store_true", help="only compare the file with what would be written")
    if parser.parse_args().check:
        return int(FILE.read_text("utf-8") != written())
    FILE.write_text(written(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
