"""The command `tollspan`. The module of a command is imported when that command is used, so start-up stays fast."""

from __future__ import annotations

import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from io import TextIOWrapper
from typing import Final

import click

from tollspan.version import __version__

_MODULES: Final = {
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
"""The module of `tollspan.cli` that defines each command."""

_VARIABLES: Final = {"import": "import_"}
"""Variables that are not named like their command, because the name is a keyword of Python."""


class _Commands(MutableMapping[str, click.Command]):
    """The commands by name, each imported on first access."""

    def __init__(self) -> None:
        self._added: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._added:
            module = import_module(f"tollspan.cli.{_MODULES[name]}")
            self._added[name] = _keep_examples(getattr(module, _VARIABLES.get(name, name)))
        return self._added[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._added[name] = command

    def __delitem__(self, name: str) -> None:
        del self._added[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*_MODULES, *self._added}))

    def __len__(self) -> int:
        return len({*_MODULES, *self._added})


def _keep_examples(command: click.Command) -> click.Command:
    r"""Mark the examples in the help text of a command, so that click does not rewrap them; return the command.

    Click's mark is the character "\b". A raw docstring contains it as two characters.
    """
    command.help = (command.help or "").replace("\\b\n", "\b\n")
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _keep_examples(inner)
    return command


@click.group(commands=_Commands(), context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tollspan")
def main() -> None:
    """Meter every LLM call of a Python program: tokens, cost and latency.

    Start with:  tollspan run -- python app.py
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # an ASCII stream must not fail on names in other letters
            stream.reconfigure(errors="backslashreplace")
