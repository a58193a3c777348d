"""Where programs of this user keep what they remember, by the rules of the platform."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Return the folder for what can be fetched again: XDG_CACHE_HOME or ~/.cache, and `tollspan` in it."""
    return (_of_xdg("XDG_CACHE_HOME", environment) or Path.home() / ".cache") / "tollspan"


def _of_xdg(variable: str, environment: Mapping[str, str] | None) -> Path | None:
    """Return the folder that a variable names; None if it is not set.

    A relative path is ignored, as the XDG Base Directory Specification requires: it would follow the current directory.
    """
    value = (os.environ if environment is None else environment).get(variable, "")
    return Path(value) if os.path.isabs(value) else None  # noqa: PTH117 - "" is not a path


LAMBDA_VARIABLE: Final = "AWS_LAMBDA_FUNCTION_NAME"


def on_lambda(environment: Mapping[str, str] | None = None) -> bool:
    """Return whether this is an AWS Lambda function, whose disk is read-only and which is frozen when it is idle."""
    return LAMBDA_VARIABLE in (os.environ if environment is None else environment)


def state_folder(environment: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """Return the folder for what this user's programs keep: that of XDG, or of Windows or macOS."""
    environment = os.environ if environment is None else environment
    if (state_home := _of_xdg("XDG_STATE_HOME", environment)) is not None:
        return state_home / "tollspan"
    if platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "tollspan"
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "tollspan"
    return Path.home() / ".local" / "state" / "tollspan"


def tiktoken_folder(environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder where tiktoken keeps its tables, by its own variables; None if they tell it to keep none."""
    environment = os.environ if environment is None else environment
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in environment:
            return Path(environment[variable]) if environment[variable] else None
    import tempfile  # loaded here: it brings five other modules

    return Path(tempfile.gettempdir(), "data-gym-cache")
