"""The reference of the settings, from `Settings`: its fields, their defaults and values, and its docstring."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields
from typing import Final, NamedTuple

from tollspan import settings
from tollspan.settings import Settings

LINKS: Final = {
    'see "What changes in a request"': "see [What changes in a request](requests.md)",
    'see "Custom providers"': "see [Custom providers](providers.md)",
    'see "Prices"': "see [Prices](prices.md)",
    'see "Budgets"': "see [Budgets](budgets.md)",
    'see "Events"': "see [Events](events.md)",
}
"""How the docstring refers to pages, and the links that this becomes."""


class Setting(NamedTuple):
    """One setting: its name, what it does, its default and its values as text, and whether only the file has it."""

    name: str
    text: str
    default: str
    values: str
    file_only: bool


def described() -> dict[str, str]:
    """Return the text of each setting, as the docstring of `Settings` has it."""
    lines = inspect.getdoc(Settings) or ""
    items = re.findall(r"^- `(\w+)`: (.+(?:\n  .+)*)", lines, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in items}


def documented() -> list[Setting]:
    """Return all settings, in the order of the docstring. Raises KeyError if it names one that does not exist."""
    defaults = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(Settings)
    }
    values = {name: re.sub(r" \(docs/.+\)$", "", text) for name, (_, text) in settings._PARSERS.items()}  # noqa: SLF001
    return [
        Setting(name, text, _shown(defaults[name]), values[name], name in settings._FILE_ONLY)  # noqa: SLF001
        for name, text in described().items()
    ]


def _shown(default: object) -> str:
    """Return a default as it would be written, or nothing if it is empty."""
    if isinstance(default, bool):
        return f"`{default}`".lower()
    return f"`{default}`" if default else ""


def sections() -> str:
    """Return a section of Markdown for each setting."""
    return "\n".join(_section(setting) for setting in documented())


def _section(setting: Setting) -> str:
    text = setting.text
    for words, link in LINKS.items():
        text = text.replace(words, link)
    written = (
        f"tables `[[{'budget' if setting.name == 'budgets' else setting.name}]]` of `tollspan.toml` only"
        if setting.file_only
        else f"`TOLLSPAN_{setting.name.upper()}`, key `{setting.name}`, option `{setting.name}=`"
    )
    return "\n".join(
        [
            f"## `{setting.name}`",
            "",
            f"{text[0].upper()}{text[1:]}",
            "",
            f"- Written as: {written}",
            *([f"- Values: {setting.values}"] if not setting.file_only else []),
            f"- Default: {setting.default or 'none'}",
            "",
        ]
    )
