"""Whether a `tollspan.toml` is accepted: by the code that reads it, and by the JSON Schema for editors."""

from __future__ import annotations

import json
import logging
import tomllib
from datetime import date
from typing import TYPE_CHECKING, Any

import jsonschema

from docs.generate.toml_schema import FILE
from tollspan.budget.policy.budget import parse_tables, parse_text
from tollspan.model.errors import SettingsError
from tollspan.prices.overrides import parse as parse_prices
from tollspan.settings import load
from tollspan.wire.providers import provider_from

if TYPE_CHECKING:
    from pathlib import Path


class _Collect(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.messages.append(record.getMessage())


def refused_by_code(text: str, folder: Path) -> list[str]:
    """Return what the code has against a file; nothing if every part of it is used."""
    file = folder / "tollspan.toml"
    file.write_text(text, "utf-8")
    collect = _Collect()
    log = logging.getLogger("tollspan")
    log.addHandler(collect)
    try:
        settings: Any = load({"TOLLSPAN_CONFIG": str(file)})
        if settings.budget is not None:
            parse_text(settings.budget)
        if isinstance(settings.budgets, str):
            return [settings.budgets]
        parse_tables(settings.budgets)
        parse_prices(settings.prices)
        for provider in settings.providers:
            provider_from(str(provider["name"]), provider, "[[providers]]")
    except SettingsError as error:
        collect.messages.append(str(error))
    finally:
        log.removeHandler(collect)
    return collect.messages


def refused_by_schema(text: str) -> list[str]:
    """Return what the schema has against a file."""
    schema = json.loads(FILE.read_text("utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(_as_json(tomllib.loads(text)))]


def _as_json(value: Any) -> Any:
    """Return TOML's dates as editors hand them to a schema: as texts."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value
