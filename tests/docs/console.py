"""Blocks of commands: what is typed, what is shown, and whether a command line is one that its program accepts."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from tests.docs.pages import ROOT
from tollspan.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS: Final = frozenset(
    {
        ".", "aws", "cat", "cd", "celery", "clickhouse-client", "cp", "curl", "docker", "echo", "export", "git",
        "gunicorn", "jupyter", "ls", "mkdir", "opentelemetry-instrument", "pip", "pytest", "python", "sam", "seq",
        "sleep", "uv", "uvicorn", "zip",
    }
)  # fmt: skip
"""Programs that the documentation calls besides `tollspan` and `make`."""

YOURS: Final = "app.py"
"""What the reader's program is called, where any will do."""

_SEPARATORS: Final = re.compile(r"[|&;()<>]+")


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and the output that is shown below it."""

    line: str
    output: str


def commands(text: str) -> list[Command]:
    """Return the commands of a block. Raises ValueError if output stands before the first one."""
    found: list[tuple[str, list[str]]] = []
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            whole = line[2:]
            while whole.endswith("\\"):
                whole = whole[:-1] + next(lines).removeprefix("> ").strip()
            found.append((whole, []))
        elif found:
            found[-1][1].append(line)
        else:
            raise ValueError(f"{line!r} is no command: one begins with '$ '")
    return [Command(line, "\n".join(output).strip("\n")) for line, output in found]


def simple_commands(line: str) -> Iterator[list[str]]:
    """Yield the words of each simple command in a line, without assignments before it and redirections after it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    redirected = False
    for word in [*lexer, ";"]:
        if not _SEPARATORS.fullmatch(word):
            if not redirected:
                words.append(word)
            continue
        redirected = word[0] in "<>"
        if not redirected and words:
            yield _bare(words)
            words = []


def _bare(words: list[str]) -> list[str]:
    """Return a simple command without the shell's own words and the assignments before it."""
    if words[0] in {"for", "done"}:
        return []
    words = words[words[0] == "do" :]
    first = next((at for at, word in enumerate(words) if not re.match(r"[A-Za-z_]\w*=", word)), len(words))
    return words[first:]


def check(words: list[str], files: frozenset[str]) -> None:
    """Check that a simple command can be what it says; `files` are those that the page has written so far.

    Raises AssertionError or click's UsageError if it is not.
    """
    match words:
        case []:
            pass
        case ["tollspan", *arguments] | ["python", "-m", "tollspan", *arguments]:
            context = accept(main, "tollspan", arguments)
            if context is not None and context.info_name == "run":
                program = list(context.params["command"])
                assert not program[0].startswith("-"), f"tollspan run has no option {program[0]}"
                check(program, files)
        case ["make", target, *_]:
            makefile = (ROOT / "Makefile").read_text("utf-8")
            assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"there is no target {target}"
        case ["make"]:
            pass
        case ["opentelemetry-instrument", *command] if command:
            check(command, files)
        case ["python", script, *_] if not script.startswith("-"):
            known = script in files or script == YOURS or (ROOT / script).is_file()
            assert known, f"{script} is not a file of the page or of the tree"
        case [program, *_]:
            assert program in PROGRAMS, f"{program} is not a known program: add it to PROGRAMS if it is meant"


def accept(
    command: click.Command, name: str, arguments: list[str], parent: click.Context | None = None
) -> click.Context | None:
    """Parse arguments down to the last subcommand, without running anything.

    Returns that command's context, or None for --help and --version. Raises click.UsageError if arguments are wrong.
    """
    try:
        context = command.make_context(name, list(arguments), parent)
    except click.exceptions.Exit:
        return None
    if not isinstance(command, click.Group):
        return context
    found, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    assert inner is not None
    return accept(inner, str(found), rest, context)
