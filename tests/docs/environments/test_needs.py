"""Blocks of the documentation that need other packages run where these are installed, against the fake provider."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from examples.fake_provider import FakeProvider
from tests.docs import pages
from tests.docs.environments.built import python_of
from tests.docs.running import Run, environment

NEEDY = [name for name in pages.names() if any("needs" in block.marks for block in pages.page(name).blocks)]


def interpreter(name: str) -> Path:
    """Return the interpreter for a block that needs this environment, or this one."""
    return python_of(name) if name else Path(sys.executable)


@pytest.mark.parametrize("name", NEEDY)
def test_blocks_run(name: str, tmp_path: Path) -> None:
    """Each block of a page that needs an environment runs in it, in order, with the files that the page has written."""
    page = pages.page(name)
    with FakeProvider() as fake, Run(page, tmp_path / "page", environment(fake, tmp_path), interpreter) as run:
        for block in page.chosen(lambda block: "needs" in block.marks and "stack" not in block.marks):
            run.block(block)
