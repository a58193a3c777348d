"""Metadata that depend on the project's address, which only `[tool.tollspan] home` in pyproject.toml holds.

While `home` is empty, the links of README.md stay relative and there are no `[project.urls]`. When it is the address of
a repository, links and images become absolute, as a package index needs them, and the URLs follow from it.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# ](target), src="target", srcset="target" and href="target", where the target is a path in the tree.
RELATIVE = re.compile(r'(?P<before>\]\(|\b(?:src|srcset|href)=")(?P<path>(?![a-z]+:|#|/)[^)"\s]+)')
IMAGES = (".png", ".svg")


class Metadata(MetadataHookInterface):
    """Sets `readme` and `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set both, by the address in pyproject.toml."""
        root = Path(self.root)
        home = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["tollspan"]["home"]
        text = (root / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, home) if home else text}
        metadata["urls"] = urls(home) if home else {}


def absolute(text: str, home: str) -> str:
    """Return a text whose relative links lead to the repository at `home`: to files, for images to their bytes."""

    def link(found: re.Match[str]) -> str:
        path = found["path"]
        view = "raw" if path.partition("#")[0].endswith(IMAGES) else "blob"
        return f"{found['before']}{home.rstrip('/')}/{view}/HEAD/{path}"

    return RELATIVE.sub(link, text)


def urls(home: str) -> dict[str, str]:
    """Return the project's URLs."""
    home = home.rstrip("/")
    return {
        "Homepage": home,
        "Documentation": f"{home}/blob/HEAD/docs/index.md",
        "Changelog": f"{home}/blob/HEAD/CHANGELOG.md",
        "Issues": f"{home}/issues",
    }
