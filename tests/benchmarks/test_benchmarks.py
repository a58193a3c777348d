"""The benchmarks run and write their reports: one round each, of which no figure is looked at."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from benchmarks import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", list(run.BENCHMARKS))
def test_writes_its_report(name: str, tmp_path: Path) -> None:
    """Each benchmark runs in its short form, and writes a report that says how to have it again."""
    run.main(["--quick", "--only", name, "--results", str(tmp_path / "results")])
    text = (tmp_path / "results" / f"{name}.md").read_text("utf-8")
    assert text.startswith("# ")
    assert f"make bench BENCH='--quick --only {name}" in text
    assert str(tmp_path) not in text
    for file in re.findall(r"!\[.*\]\((.*)\)", text):
        ET.parse(tmp_path / "results" / file)  # noqa: S314 - we have just written it
