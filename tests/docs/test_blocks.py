"""Every code block of the documentation does what the page says. docs/README.md has the rules."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click
import pytest
import yaml

from examples.fake_provider import FakeProvider
from tests.docs import pages
from tests.docs.console import check, commands, simple_commands
from tests.docs.environments.built import pins
from tests.docs.pages import ROOT, Block, Page, page_of
from tests.docs.running import Run, environment, here, shows
from tests.docs.validation import refused_by_code, refused_by_schema

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGES = pytest.mark.parametrize("name", pages.names())
INSTRUCTIONS = frozenset(
    {
        "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "ONBUILD", "RUN",
        "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
    }
)  # fmt: skip


def here_and_now(block: Block) -> bool:
    """Return whether a block is run by `make test`: it needs no other environment, and nothing that is not there."""
    return not {"needs", "stack"} & block.marks.keys()


@PAGES
def test_blocks_run(name: str, tmp_path: Path) -> None:
    """Each block runs, those of a page in order and in one folder, and prints what the page shows."""
    page = pages.page(name)
    with FakeProvider() as fake, Run(page, tmp_path / "page", environment(fake, tmp_path), here) as run:
        for block in page.chosen(here_and_now):
            run.block(block)


def files_before(page: Page, block: Block) -> frozenset[str]:
    """Return the files that the page has written when a block is reached."""
    return frozenset(other.marks["file"] for other in page.blocks if "file" in other.marks and other.line <= block.line)


def check_python(page: Page, block: Block, _: Path) -> None:
    """It compiles; a file is used by a block below it."""
    compile(block.text, page.name, "exec")
    if (name := block.marks.get("file")) is not None:
        later = [other.text for other in page.blocks if other.line > block.line and other.language != "text"]
        stem = re.escape(name.removesuffix(".py").replace("/", "."))
        collected = "|pytest" if re.search(r"(^|/)(conftest|test_\w+)\.py$", name) else ""
        assert any(re.search(rf"\b({stem}|{re.escape(name)}{collected})\b", text) for text in later), (
            f"nothing runs {name}"
        )


def check_console(page: Page, block: Block, folder: Path) -> None:
    """Each command is one that its program accepts."""
    del folder
    for command in commands(block.text):
        for words in simple_commands(command.line):
            check(words, files_before(page, block))


def check_toml(page: Page, block: Block, folder: Path) -> None:
    """A tollspan.toml is accepted by the code and by the schema."""
    del page
    if block.marks.get("file", "tollspan.toml") != "tollspan.toml":
        tomllib.loads(block.text)
        return
    assert refused_by_code(block.text, folder) == []
    assert refused_by_schema(block.text) == []


def check_yaml(page: Page, block: Block, _: Path) -> None:
    """It is YAML."""
    assert list(yaml.safe_load_all(block.text)), page.name


def check_json(page: Page, block: Block, _: Path) -> None:
    """It is JSON."""
    assert json.loads(block.text) is not None, page.name


def check_ini(page: Page, block: Block, _: Path) -> None:
    """It is an ini file with sections."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(block.text, page.name)
    assert parser.sections()


def check_dockerfile(page: Page, block: Block, _: Path) -> None:
    """Its instructions exist, and what it copies is a file of the page or of the tree."""
    lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
    instructions = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    assert instructions[0][0] in {"FROM", "ARG"}
    names = {other.marks["file"] for other in page.blocks if "file" in other.marks}
    for word, *arguments in instructions:
        assert word in INSTRUCTIONS, word
        if word == "COPY" and not any(argument.startswith("--from") for argument in arguments):
            for source in arguments[:-1]:
                assert source == "." or source in names or (ROOT / source).exists(), source


def check_text(page: Page, block: Block, _: Path) -> None:
    """It is for reading; what is marked as output follows a block that prints."""
    at = page.blocks.index(block)
    assert "output" not in block.marks or page.blocks[at - 1].language in {"python", "console"}


CHECKS: dict[str, Callable[[Page, Block, Path], None]] = {
    "console": check_console,
    "dockerfile": check_dockerfile,
    "ini": check_ini,
    "json": check_json,
    "python": check_python,
    "text": check_text,
    "toml": check_toml,
    "yaml": check_yaml,
}


@PAGES
def test_blocks_are_right(name: str, tmp_path: Path) -> None:
    """Each block is right in its language, whether or not it is run here."""
    page = pages.page(name)
    for block in page.blocks:
        try:
            CHECKS[block.language](page, block, tmp_path)
        except Exception as error:
            error.add_note(f"in {page.name}:{block.line}")
            raise


@PAGES
def test_marks_fit(name: str) -> None:
    """Marks stand before blocks that they mean something for; what needs a stack says why; environments exist."""
    page = pages.page(name)
    wanted = {"run": "console", "serve": "console", "output": "text", "raises": "python"}
    for block in page.blocks:
        where = f"{page.name}:{block.line}"
        for mark, language in wanted.items():
            assert mark not in block.marks or block.language == language, where
        assert block.marks.get("stack") != "", f"{where}: say what it needs, as in `stack: docker compose`"
        if (needs := block.marks.get("needs")) is not None:
            assert pins(needs).is_file(), f"{where}: there is no environment {needs!r}"


def test_few_blocks_are_never_run() -> None:
    """What needs Docker, a cluster or a cloud is the exception."""
    blocks = [block for name in pages.names() for block in pages.page(name).blocks]
    code = [block for block in blocks if block.language in {"console", "python"}]
    assert sum("stack" in block.marks for block in code) <= len(code) / 8


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```\nx\n```", "is not one of"),
        ("```rust\nx\n```", "is not one of"),
        ("```{note}\nx\n```", "is not one of"),
        ("text\n\n    indented\n", "no language"),
        ("<!-- run; ruin -->\n```console\n$ ls\n```", "'ruin' is not one of"),
    ],
)
def test_what_cannot_be_tested_is_refused(text: str, complaint: str) -> None:
    """A block that no test would see fails."""
    with pytest.raises(ValueError, match=complaint):
        page_of("page.md", text)


@pytest.mark.parametrize(
    "line",
    [
        "tollspan inspekt",
        "tollspan prices lookup --cheap gpt-5.5",
        "echo x | tollspan ledger",
        "TOLLSPAN_LEDGER=on tollspan run --fast -- python -c pass",
        "make tea",
        "python nothing.py",
        "rm -rf /",
    ],
)
def test_wrong_commands_are_found(line: str) -> None:
    """A command, an option, a target or a file that does not exist fails."""
    with pytest.raises((AssertionError, click.UsageError)):
        check_line(line)


def check_line(line: str) -> None:
    """Check each simple command of a line, as on a page that has written no file."""
    for words in simple_commands(line):
        check(words, frozenset())


SERVED = (
    "<!-- serve: 8000 -->\n```console\n$ python -m http.server 8000 --bind 127.0.0.1\n```\n"
    "```python\nimport socket\nsocket.create_connection(('127.0.0.1', 8000)).close()\n```"
)


@pytest.mark.parametrize(
    ("block", "right"),
    [
        ('```python\nprint("one\\ntwo")\n```\n<!-- output -->\n```text\none\n...\n```', True),
        ('```python\nprint("one")\n```\n<!-- output -->\n```text\ntwo\n```', False),
        ("```python\nraise SystemExit(3)\n```", False),
        ("<!-- raises: KeyError -->\n```python\n{}[1]\n```", True),
        ("<!-- raises: KeyError -->\n```python\n[][1]\n```", False),
        ("<!-- run: exit 3 -->\n```console\n$ exit 3\n```", True),
        ("<!-- run -->\n```console\n$ echo one  two\none two\n```", True),
        ("<!-- run -->\n```console\n$ echo one\n...two\n```", False),
        ("<!-- file: a.py -->\n```python\nprint(5)\n```\n<!-- run -->\n```console\n$ python a.py\n5\n```", True),
        (SERVED, True),
    ],
)
def test_the_runner_notices(block: str, *, right: bool, tmp_path: Path) -> None:
    """Output, exit status, exceptions, files and servers are what the marks say, or the page fails."""
    page = page_of("page.md", block)
    with FakeProvider() as fake, Run(page, tmp_path / "page", environment(fake, tmp_path), here) as run:
        for each in page.blocks[:-1]:
            run.block(each)
        with nullcontext() if right else pytest.raises(AssertionError):
            run.block(page.blocks[-1])


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a ... c\n...\ne", "a b b c\nd\ne\n", True),
        ("a ... c", "a  c", True),
        ("...\na", "a", True),
        ("a\n...", "a\nb\nc", True),
        ("$0...5 USD", "$0.00015 USD", True),
        ("a   b", "a\nb", True),
        ("", "", True),
        ("a ... c", "a b d", False),
        ("a ... c", "abc", False),
        ("a", "a b", False),
        ("", "a", False),
        ("a.b", "aXb", False),
    ],
)
def test_three_dots_stand_for_anything(expected: str, printed: str, *, same: bool) -> None:
    """In a word for any text, alone for any words; everything else must be there."""
    assert shows(expected, printed) is same
