"""The installed version, read from the package's metadata."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("tollspan")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"
