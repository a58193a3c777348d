"""The reference of the settings, from `tollspan.settings.DESCRIPTIONS`: what each does, its default and its values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tollspan.settings import DESCRIPTIONS

if TYPE_CHECKING:
    from tollspan.settings import Description

PAGES: Final = {
    "budget": "[Budgets](budgets.md)",
    "budgets": "[Budgets](budgets.md)",
    "budget_store": "[Stores](budgets.md#stores)",
    "events": "[Events](events.md)",
    "hosts": "[Custom providers](providers.md)",
    "ledger": "[The ledger](ledger.md)",
    "prices": "[Prices](prices.md)",
    "pricing_url": "[Prices](prices.md)",
    "providers": "[Custom providers](providers.md)",
    "stream_usage": "[What changes in a request](requests.md)",
}
"""Settings that a page says more about."""


def sections() -> str:
    """Return a section of Markdown for each setting."""
    return "\n".join(_section(name, description) for name, description in DESCRIPTIONS.items())


def _section(name: str, description: Description) -> str:
    written = (
        f"tables `[[{'budget' if name == 'budgets' else name}]]` of `tollspan.toml` only"
        if description.file_only
        else f"`TOLLSPAN_{name.upper()}`, key `{name}`, option `{name}=`"
    )
    values = re.sub(r" \(docs/.+\)$", "", description.expected)
    return "\n".join(
        [
            f"## `{name}`",
            "",
            description.text + (f" See {PAGES[name]}." if name in PAGES else ""),
            "",
            f"- Written as: {written}",
            *([f"- Values: {values}"] if not description.file_only else []),
            f"- Default: {_shown(description.default)}",
            "",
        ]
    )


def _shown(default: object) -> str:
    """Return a default as it would be written; an empty one is none."""
    if isinstance(default, bool):
        return f"`{default}`".lower()
    return f"`{default}`" if default else "none"
