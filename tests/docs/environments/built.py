"""Environments for blocks of the documentation that need other packages: `<!-- needs: NAME -->`.

NAME.txt pins every package, here or in tests/emitters/environments. tollspan is installed from the checkout, without
its dependencies, so that its command and its entry points are there too. To make a file of pins:

    uv pip compile --python-version 3.11 --no-header --no-annotate - -o tests/docs/environments/NAME.txt

with the names of the packages on standard input, and those that tollspan needs: click, rich, httpx, opentelemetry-sdk
and opentelemetry-exporter-otlp.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from tests.emitters.environments import HERE as EMITTERS
from tests.emitters.environments import checkout_in

HERE: Final = Path(__file__).parent


def pins(name: str) -> Path:
    """Return the file that pins an environment: one of these, or of the tests beside other instrumentations."""
    own = HERE / f"{name}.txt"
    return own if own.is_file() else EMITTERS / "environments" / f"{name}.txt"


@cache
def python_of(name: str) -> Path:
    """Return the interpreter of an environment, which is built if it is not there yet."""
    return checkout_in(pins(name))
