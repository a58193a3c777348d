"""Starts tollspan in the programs of `tollspan run`: Python imports this module at start-up, before the program.

It needs nothing but the standard library: the Python that imports it may be one that has no tollspan. Where a budget is
set, the clients that it limits cannot be imported there. Other programs run as ever, because they spend nothing that
the budget would have seen.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

_CLIENTS = ("httpx", "httpx2")


class _Unmetered:
    """A finder on `sys.meta_path` that reports the import of a client, and refuses it if there is a budget."""

    def __init__(self, why: str) -> None:
        self._why = why

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> None:
        """Return None: other finders find the module."""
        if name not in _CLIENTS:
            return
        if os.environ.get("TOLLSPAN_LIMITED"):
            text = f"tollspan run: {name} cannot be used here, because no budget would hold: {self._why}"
            sys.stderr.write(f"{text}\n")
            raise ImportError(text, name=name)
        sys.meta_path.remove(self)
        sys.stderr.write(f"tollspan run: calls are not metered here: {self._why}\n")


def _start() -> None:
    why = f"{sys.executable} has no tollspan; install it into its environment"
    try:
        from tollspan.cli.run.autoload import start

        why = "tollspan could not start; see the log"
        start()
    except Exception as error:
        if not isinstance(error, ModuleNotFoundError) or error.name != "tollspan":
            logging.getLogger("tollspan").exception("tollspan could not start")
        sys.meta_path.insert(0, _Unmetered(why))


def _run_next() -> None:
    """Run the next sitecustomize on the path, which this one hides, as Python would have run it."""
    here = Path(__file__).resolve().parent
    rest = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    spec = PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


_start()
_run_next()
