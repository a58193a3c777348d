"""The README says what the code does."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

import tollspan
from tollspan.budget.policy.budget import _KEYS as KEYS
from tollspan.budget.policy.budget import parse_tables
from tollspan.cli.main import main
from tollspan.settings import Settings
from tollspan.telemetry import names

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", PYTHON)
def test_python_runs(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every Python example runs as it stands."""
    monkeypatch.chdir(tmp_path)
    try:
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own text
    finally:
        tollspan.uninstrument()


def test_budgets_are_read() -> None:
    """The table of a budget in the README is one that is accepted, with every key there is."""
    (table,) = (text for text in re.findall(r"```toml\n(.*?)```", README, re.DOTALL) if "[[budget]]" in text)
    (budget,) = parse_tables(tomllib.loads(table)["budget"])
    assert budget.name == "per-user daily"
    assert set(KEYS) - {"webhook_secret", "downgrade_at"} == set(tomllib.loads(table)["budget"][0])


def test_settings_are_all_told() -> None:
    """Every setting is told in the README, and every setting told there exists."""
    table = README.partition("## Settings")[2].partition("\n## ")[0]
    names = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    told = set(re.findall(r"`([a-z_]+)`", " ".join(names)))
    assert told == {field.name for field in fields(Settings)}


def test_commands_exist() -> None:
    """Every `tollspan COMMAND` in the README is a command."""
    named = set(re.findall(r"\btollspan ([a-z]+)\b(?! is\b)", " ".join(re.findall(r"`([^`\n]+)`", README))))
    assert named <= set(main.commands), named - set(main.commands)


def test_metrics_are_all_told() -> None:
    """Every metric of our own is told in the README, by its whole name or by the end of it."""
    table = README.partition("## Metrics")[2].partition("\n## ")[0]
    told = set()
    for row in table.splitlines():
        first, *more = re.findall(r"`([a-z_.]+)`", row.split("|")[1]) if row.startswith("| `") else ("",)
        stem = first.removesuffix(".calls").removesuffix(".spend").rpartition(".")[0] if more else ""
        told |= {first, *(f"{stem}{end}" for end in more)}
    own = Path(names.__file__).read_text("utf-8").partition("# Metrics of our own\n")[2].partition("\n\n")[0]
    assert set(re.findall(r'"(tollspan\.[a-z_.]+)"', own)) - told == set()
    assert names.TOKENS in told


def test_make_targets_exist() -> None:
    """Every `make TARGET` in the README is a target."""
    makefile = (Path(__file__).parents[1] / "Makefile").read_text("utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", " ".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
