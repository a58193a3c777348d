"""Prints, as JSON, the packages of the interpreter that runs this file, and whether tollspan is active in it.

`tollspan doctor` runs this file in the interpreter of a program, started as `tollspan run` starts it. So the file
imports only the standard library: importing tollspan here would change the result.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from importlib.metadata import distributions, entry_points
from importlib.util import find_spec

_LIBRARIES = ("httpx", "httpx2")
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def look() -> dict[str, object]:
    """Return the installed packages, by their normalized names on PyPI, and the HTTP libraries that tollspan hooks."""
    installed = {_normalized(package.metadata["Name"] or ""): package for package in distributions()}
    needs: dict[str, list[str]] = {name: [] for name in _LIBRARIES}
    for name, package in installed.items():
        for requirement in package.requires or ():
            library = _NAME.match(requirement)
            if library and library[0] in needs and "extra ==" not in requirement:
                needs[library[0]].append(name)
    anthropic = installed.get("anthropic")
    return {
        "python": sys.executable,
        "installed": {name: package.version for name, package in installed.items()},
        "needs": {library: sorted(set(names)) for library, names in needs.items()},
        "instrumentors": sorted(
            [entry.name, entry.module, _normalized(entry.dist.name) if entry.dist else ""]
            for entry in entry_points(group="opentelemetry_instrumentor")
        ),
        "anthropic_spans": bool(anthropic and _exists(anthropic.locate_file("anthropic/_tracing.py"))),
        "active": _active(),
        "hooked": {name: _hooked(name) for name in _LIBRARIES},
    }


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _exists(path: object) -> bool:
    return bool(getattr(path, "exists", lambda: False)())


def _active() -> bool:
    module = sys.modules.get("tollspan.setup.instrument")
    return module is not None and module.current() is not None


def _hooked(name: str) -> bool | None:
    """Return whether tollspan meters an HTTP library; None if it is not installed or cannot be imported."""
    if name not in sys.modules and find_spec(name) is None:
        return None
    try:
        library = import_module(name)
    except Exception:  # noqa: BLE001 - a broken installation may raise anything; the program cannot use it either
        return None
    transport = sys.modules.get("tollspan.hooks.httpx")
    return transport is not None and hasattr(library, "Client") and transport.is_wrapped(library)


if __name__ == "__main__":
    print(json.dumps(look()))  # noqa: T201 - the purpose of running this file
