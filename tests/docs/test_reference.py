"""The reference says what the code does: every setting, key, command, attribute, metric and public name."""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

import tollspan
import tollspan.budget as budgets
from docs.generate import filled
from docs.generate.settings import PAGES
from docs.generate.telemetry import created
from docs.generate.toml_schema import texts
from tests.docs import pages
from tollspan.budget.policy.budget import _KEYS as BUDGET_KEYS
from tollspan.budget.policy.budget import parse_tables
from tollspan.cli.main import main
from tollspan.prices.fields import TIERS, TOKEN_FIELDS, UNIT_FIELDS
from tollspan.prices.overrides import _FACTS, _PER_REQUEST, _UNITS
from tollspan.settings import DESCRIPTIONS, Settings
from tollspan.telemetry import names
from tollspan.wire.providers import _KEYS as PROVIDER_KEYS

REFERENCE = "docs/reference"


def quoted(page: str) -> set[str]:
    """Return what stands in backticks on a page of the reference, its generated parts included."""
    return set(re.findall(r"`([^`\n]+)`", filled(pages.text_of(f"{REFERENCE}/{page}.md"))))


def test_settings_are_complete() -> None:
    """Every setting has its section, and every section is that of a setting."""
    sections = re.findall(r"^## `(\w+)`$", filled(pages.text_of(f"{REFERENCE}/settings.md")), re.MULTILINE)
    assert sorted(sections) == sorted(field.name for field in fields(Settings))
    assert all(description.text.endswith(".") for description in DESCRIPTIONS.values())


def test_pages_of_settings_exist() -> None:
    """What a section refers to is said of a setting that exists; the strict build checks the links."""
    assert PAGES.keys() <= DESCRIPTIONS.keys()


@pytest.mark.parametrize(
    ("page", "keys"),
    [
        ("budgets.md", set(BUDGET_KEYS)),
        ("providers.md", set(PROVIDER_KEYS)),
        ("prices.md", {*_FACTS, *_PER_REQUEST}),
    ],
)
def test_keys_are_complete(page: str, keys: set[str]) -> None:
    """The table of keys on a page has every key that the code accepts, and no other."""
    assert texts(page).keys() == keys


def test_names_of_prices_are_complete() -> None:
    """The page on prices names every unit, field and tier."""
    assert {*_UNITS, *TOKEN_FIELDS, *UNIT_FIELDS, *TIERS} - quoted("prices") == set()


def test_budgets_are_read() -> None:
    """The table of a budget is one that is accepted, with every key there is."""
    tables = [block.text for block in pages.page(f"{REFERENCE}/budgets.md").blocks if block.language == "toml"]
    (table,) = (text for text in tables if "[[budget]]" in text)
    (budget,) = parse_tables(tomllib.loads(table)["budget"])
    assert budget.name == "per-user daily"
    assert set(BUDGET_KEYS) - {"webhook_secret", "downgrade_at"} == set(tomllib.loads(table)["budget"][0])


@pytest.mark.parametrize("page", pages.names())
def test_commands_exist(page: str) -> None:
    """Every `tollspan COMMAND` on a page is a command."""
    named = set(
        re.findall(r"\btollspan ([a-z]+)\b(?! is\b)", "\n".join(re.findall(r"`([^`\n]+)`", pages.text_of(page))))
    )
    assert named <= set(main.commands), named - set(main.commands)


@pytest.mark.parametrize("page", pages.names())
def test_make_targets_exist(page: str) -> None:
    """Every `make TARGET` on a page is a target."""
    makefile = (pages.ROOT / "Makefile").read_text("utf-8")
    code = "\n".join(re.findall(r"`([^`\n]+)`", pages.text_of(page)))
    for target in re.findall(r"\bmake ([a-z-]+)", code):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_metrics_are_complete() -> None:
    """Every metric of our own is on the page, whatever settings it needs."""
    own = Path(names.__file__).read_text("utf-8").partition("# Metrics of our own\n")[2].partition("\n\n")[0]
    assert set(re.findall(r'"(tollspan\.[a-z_.]+)"', own)) - quoted("metrics") == set()
    assert {metric.name for metric in created("both", per_chunk=True)} - quoted("metrics") == set()
    assert names.TOKENS in quoted("metrics")


def emitted() -> set[str]:
    """Return every name out of `names` that the code uses elsewhere; one that ends in a dot gets a part behind it."""
    package = Path(tollspan.__file__).parent
    used = {
        node.attr
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "names" and node.attr.isupper()
    }
    values = [getattr(names, name) for name in used]
    plain = {value for value in values if isinstance(value, str)}
    return plain | {value for several in values if several == names.COST_ALIASES for value in several}


def test_attributes_are_complete() -> None:
    """Every name that the code emits is on the page of attributes, of metrics or of events."""
    known = {
        re.sub(r"(?<=\.)(NAME|KIND)$", "", name)
        for page in ("attributes", "metrics", "events")
        for name in quoted(page)
    }
    stems = {f"{name.rpartition('.')[0]}." for name in quoted("metrics")}
    assert {
        name for name in emitted() - known - stems if not name.startswith("opentelemetry.")
    } == set()  # keys of contexts
    assert len(emitted()) > 100


def test_attributes_exist() -> None:
    """Every attribute on the page is one that the code knows."""
    rows = re.findall(r"^\| (`[a-z]+\.[^|]+) \|", pages.text_of(f"{REFERENCE}/attributes.md"), re.MULTILINE)
    listed = {re.sub(r"(?<=\.)(NAME|KIND)$", "", name) for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert listed - {"tollspan.cost.quality"} <= emitted()


def test_public_names_are_complete() -> None:
    """Every public name of `tollspan` and of `tollspan.budget` has its entry, and so has what `attribution` returns."""
    entries = set(re.findall(r"auto\w+:: tollspan\.([\w.]+)", pages.text_of(f"{REFERENCE}/api.md")))
    inner = {f"budget.{name}" for name in budgets.__all__}
    assert entries == {*tollspan.__all__, *inner, "attribution.Scope"} - {"__version__"}


def test_unknown_parts_are_refused() -> None:
    """A page that wants a generated part which does not exist fails the build."""
    with pytest.raises(KeyError):
        filled("<!-- generated: nothing -->")
