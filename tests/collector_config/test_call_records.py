"""The schema of call records: what is documented is what is emitted, and what ClickHouse's tables take in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.ledger.call_factory import EVERYTHING
from tollspan.telemetry.events import attributes_of

CONFIG: Final = Path(__file__).parents[2] / "collector-config"
SCHEMA: Final = (CONFIG / "clickhouse" / "schema.sql").read_text()
QUERIES: Final = (CONFIG / "clickhouse" / "queries.sql").read_text()
KINDS: Final = {"string": str, "int": int, "double": float, "boolean": bool, "string[]": tuple, "decimal text": str}
PREFIXES: Final = ("tollspan.tag.", "tollspan.usage.count.", "tollspan.cost.breakdown_usd.")


def documented() -> dict[str, tuple[str, str]]:
    """Return type and column of each attribute that README.md lists; what stands for names is left off."""
    found = {}
    for row in re.findall(
        r"^\| (`[a-z].*?) \| (.*?) \| (.*?) \| .*\|$", (CONFIG / "README.md").read_text(), re.MULTILINE
    ):
        names, columns = (re.findall(r"`([^`]+)`", cell) for cell in (row[0], row[2]))
        for name, column in zip(names, columns or ["not kept"] * len(names), strict=True):
            found[re.sub(r"[A-Z]+$", "", name)] = (row[1], column)
    return found


def emitted() -> dict[str, object]:
    """Return an example of each attribute that a call can have."""
    attributes = attributes_of(EVERYTHING, {})
    prefix = re.compile("|".join(f"(?<=^{re.escape(prefix)}).*" for prefix in PREFIXES))
    return {prefix.sub("", name): value for name, value in attributes.items()}


def test_what_is_documented_is_emitted() -> None:
    """A call with everything has each documented attribute, and no other."""
    assert documented().keys() == emitted().keys()


@pytest.mark.parametrize("name", [name for name in emitted() if name not in PREFIXES])
def test_types_are_as_documented(name: str) -> None:
    """An attribute has the type that it is said to have."""
    kind = documented()[name][0]
    assert type(emitted()[name]) is KINDS.get(kind, str)


def test_each_attribute_has_its_column() -> None:
    """The view reads each attribute into the column that README.md names, and those that are not kept into none."""
    for name, (_, column) in documented().items():
        read = re.findall(rf"'{re.escape(name)}'.*? AS (\w+),?$", SCHEMA, re.MULTILINE)
        assert read == ([] if column == "not kept" else [column]), name


def test_the_view_gives_the_columns_of_the_table() -> None:
    """Each column of the table is given by the view, in its order, but those that the table makes itself."""
    table = SCHEMA.split("EXISTS tollspan.calls\n")[1].split("ENGINE")[0]
    view = SCHEMA.split("EXISTS tollspan.calls_arrive")[1].split("\nSELECT\n")[1].split("\nFROM")[0]
    columns = re.findall(r"^    (\w+) (?!.*\b(?:MATERIALIZED|minmax)\b)", table, re.MULTILINE)
    assert re.findall(r" AS (\w+),?$", view, re.MULTILINE) == columns


def test_each_query_is_of_a_period() -> None:
    """No query reads everything there ever was by mistake."""
    bodies = [text for text in QUERIES.split(";\n") if "SELECT" in text]
    assert len(bodies) > 10
    assert [text for text in bodies if "day >= {since:Date} AND day < {until:Date}" not in text] == []
