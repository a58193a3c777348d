"""Write the dashboards' JSON, or with `--check` say which file is not what the code makes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import calls, latency, spend

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER: Final = Path(__file__).parents[1] / "grafana" / "dashboards"


def made() -> Mapping[str, str]:
    """Return the JSON of every dashboard by the name of its file."""
    built = {module.__name__.rpartition(".")[2]: module.dashboard().build() for module in (spend, latency, calls)}
    return {f"{name}.json": JSONEncoder(sort_keys=True, indent=2).encode(model) + "\n" for name, model in built.items()}


def main() -> int:
    """Run the command; give the exit status."""
    files = made()
    if "--check" not in sys.argv[1:]:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (FOLDER / name).write_text(text, encoding="utf-8")
        return 0
    kept = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    different = sorted(name for name in kept.keys() | files.keys() if kept.get(name) != files.get(name))
    for name in different:
        sys.stderr.write(f"{name} is not what the code makes: run `python -m dashboards` in collector-config/\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
