"""The command `tollspan`. A command's module is imported when the command is used: the others cost it no time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from io import TextIOWrapper
from typing import Final

import click

from tollspan.version import __version__

_HOMES: Final = {
    "budget": "budget",
    "call": "reports.calls",
    "calls": "reports.calls",
    "doctor": "doctor.command",
    "export": "reports.export",
    "import": "reports.import_",
    "inspect": "reports.inspect",
    "prices": "prices",
    "providers": "providers",
    "prune": "reports.prune",
    "reprice": "reports.reprice",
    "reset": "reports.prune",
    "run": "run.run",
    "runs": "reports.inspect",
    "top": "live.top",
    "ui": "live.server",
}
"""Command: the module of `tollspan.cli` that has it, under the command's name."""

_VARIABLES: Final = {"import": "import_"}
"""But for these, whose name Python keeps for itself."""


class _Commands(MutableMapping[str, click.Command]):
    """The commands by name, each imported when it is asked for."""

    def __init__(self) -> None:
        self._added: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._added:
            module = import_module(f"tollspan.cli.{_HOMES[name]}")
            self._added[name] = _unwrapped(getattr(module, _VARIABLES.get(name, name)))
        return self._added[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._added[name] = command

    def __delitem__(self, name: str) -> None:
        del self._added[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*_HOMES, *self._added}))

    def __len__(self) -> int:
        return len({*_HOMES, *self._added})


def _unwrapped(command: click.Command) -> click.Command:
    """Have examples in a help text stay as they are: a raw docstring has click's mark for that as two characters."""
    command.help = (command.help or "").replace("\\b\n", "\b\n")
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _unwrapped(inner)
    return command


@click.group(commands=_Commands(), context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tollspan")
def main() -> None:
    """Read the toll of every LLM call off the wire: what it used, what it cost, how fast it was.

    Start with:  tollspan run -- python app.py
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # one in ASCII is to get names in any letters
            stream.reconfigure(errors="backslashreplace")
