"""The package works from a zip archive, as it does from its folder: what comes with it is found there too."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipfile
from decimal import Decimal
from pathlib import Path

import pytest

import tollspan
from tollspan.runtime.resources import folder

SOURCE = Path(str(tollspan.__file__)).parent

PROGRAM = """
    import json
    import httpx2
    import tollspan

    answer = {"id": "made", "object": "chat.completion", "model": "gpt-4o-mini-2024-07-18", "choices": [],
              "usage": {"prompt_tokens": 1200, "completion_tokens": 345, "total_tokens": 1545}}
    tollspan.instrument()
    with httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json=answer))) as client:
        client.post("https://api.openai.com/v1/chat/completions", json={"model": "gpt-4o-mini", "messages": []})
    print(tollspan.__file__)
    print(tollspan.last_call().cost_usd)
"""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Pack the package as `zipapp`, Spark's `--py-files` and others do."""
    path = tmp_path / "packed.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for file in sorted(SOURCE.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts and ".mypy_cache" not in file.parts:
                packed.write(file, Path("tollspan", file.relative_to(SOURCE)))
    return path


def run(archive: Path, *arguments: str) -> str:
    """Run Python with the package from the archive, from nowhere in particular."""
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(archive)},
        cwd=archive.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_calls_are_priced_from_an_archive(archive: Path) -> None:
    """Providers and prices are found: 1,200 x 0.15 + 345 x 0.60 = 387 dollars a million."""
    where, said = run(archive, "-c", textwrap.dedent(PROGRAM)).splitlines()
    assert where.startswith(str(archive))
    assert Decimal(said) == Decimal("0.000387")


@pytest.mark.parametrize(("command", "said"), [("prices lookup gpt-4o-mini", "0.15"), ("providers", "openai")])
def test_the_command_works_from_an_archive(archive: Path, command: str, said: str) -> None:
    """So does the command."""
    assert said in run(archive, "-m", "tollspan", *command.split())


def test_a_folder_is_read_as_it_is() -> None:
    """Where the package lies in a folder nothing is loaded to find its files."""
    assert folder("tollspan.wire.providers") == SOURCE / "wire" / "providers"
