"""What an interpreter has installed and whether tollspan works in it. Run as a file by any Python, it prints JSON.

`tollspan doctor` runs it in the interpreter of the program that it is asked about, started as `tollspan run` would
start it. So it needs the standard library only, and nothing of tollspan may be imported at its top.
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
    """Return what is installed here, by names as PyPI spells them, and which HTTP libraries tollspan has hooked."""
    found = {_plain(each.metadata["Name"] or ""): each for each in distributions()}
    needs: dict[str, list[str]] = {name: [] for name in _LIBRARIES}
    for name, each in found.items():
        for need in each.requires or ():
            library = _NAME.match(need)
            if library and library[0] in needs and "extra ==" not in need:
                needs[library[0]].append(name)
    anthropic = found.get("anthropic")
    return {
        "python": sys.executable,
        "installed": {name: each.version for name, each in found.items()},
        "needs": {library: sorted(set(names)) for library, names in needs.items()},
        "instrumentors": sorted(
            [entry.name, entry.module, _plain(entry.dist.name) if entry.dist else ""]
            for entry in entry_points(group="opentelemetry_instrumentor")
        ),
        "anthropic_spans": bool(anthropic and _is_there(anthropic.locate_file("anthropic/_tracing.py"))),
        "active": _active(),
        "hooked": {name: _hooked(name) for name in _LIBRARIES},
    }


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_there(path: object) -> bool:
    return bool(getattr(path, "exists", lambda: False)())


def _active() -> bool:
    module = sys.modules.get("tollspan.setup.instrument")
    return module is not None and module.current() is not None


def _hooked(name: str) -> bool | None:
    """Return whether tollspan meters an HTTP library; None where the library is not there or cannot be imported."""
    if name not in sys.modules and find_spec(name) is None:
        return None
    try:
        library = import_module(name)
    except Exception:  # noqa: BLE001 - whatever a broken installation raises: the program will not get it either
        return None
    transport = sys.modules.get("tollspan.hooks.httpx")
    return transport is not None and hasattr(library, "Client") and transport.is_wrapped(library)


if __name__ == "__main__":
    print(json.dumps(look()))  # noqa: T201 - that is what it is run for
