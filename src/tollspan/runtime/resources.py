"""The files of the package, which may be inside of a zip archive (Spark, zipapp)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def folder(package: str) -> Traversable:
    """Return the folder of a package that has been imported, by the package's name."""
    here = Path(str(sys.modules[package].__file__)).parent
    if here.is_dir():
        return here
    from importlib.resources import files  # takes 20 milliseconds to load, and a start may take 40

    return files(package)
