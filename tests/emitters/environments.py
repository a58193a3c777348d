"""One virtual environment for each emitter, outside of the checkout, built once and found again.

`environments/NAME.txt` pins every package, and pip's resolver is not asked: two packages of November 2026 ask for a
certifi that no index has. An environment's folder is named after a hash of its file and of the interpreter, so a change
of either makes a new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollspan-emitters"
ENVIRONMENTS = {
    "langchain_genai": "langchain",
    "langchain_openinference": "langchain",
    "langchain_openllmetry": "langchain",
    "bedrock_botocore": "bedrock",
    "bedrock_genai": "bedrock",
}
"""Emitters that share an environment with others; those that are not here have one of their own name."""

PATIENCE = 600
"""Seconds after which a program that hangs is given up."""


def python_of(emitter: str) -> Path:
    """Return the interpreter of an emitter's environment; it is built where it is not there yet."""
    return environment(HERE / "environments" / f"{ENVIRONMENTS.get(emitter, emitter)}.txt")


def environment(pins: Path) -> Path:
    """Return the interpreter of the environment that a file pins; it is built where it is not there yet."""
    stamp = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:16]
    return built(CACHE / f"{pins.stem}-{stamp}", "--no-deps", "--requirement", str(pins))


def checkout_in(pins: Path) -> Path:
    """Return the interpreter of such an environment that also has tollspan, installed from this checkout."""
    stamp = hashlib.sha256(pins.read_bytes() + sys.version.encode() + bytes(ROOT)).hexdigest()[:16]
    folder = CACHE / f"{pins.stem}-checkout-{stamp}"
    return built(folder, "--no-deps", "--requirement", str(pins), "--editable", str(ROOT))


def built(folder: Path, *what: str) -> Path:
    """Return the interpreter of the environment in a folder; where it is not there yet, uv installs `what` into it."""
    python = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _uv("venv", "--quiet", "--python", sys.executable, str(folder))
        _uv("pip", "install", "--quiet", "--python", str(python), *what)
        (folder / ".complete").touch()
    return python


def _uv(*arguments: str) -> None:
    """Run uv: the one that `make` installs under the checkout, or one of one's own."""
    program = shutil.which("uv", path=f"{ROOT / '.uv' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        message = "there is no uv: run `make .uv/bin/uv`, or install it (https://docs.astral.sh/uv)"
        raise FileNotFoundError(message)
    subprocess.run([program, *arguments], check=True)  # noqa: S603 - our own arguments


def run(emitter: str, program: Path, *arguments: str, **environment: str) -> str:
    """Run a program in an emitter's environment, with tollspan and the examples importable; give what it printed.

    Raises CalledProcessError, with what it wrote to standard error as a note, where it failed.
    """
    ended = subprocess.run(  # noqa: S603 - our own programs
        [str(python_of(emitter)), str(program), *arguments],
        cwd=ROOT,
        env={**_plain_environment(), "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if ended.returncode:
        error = subprocess.CalledProcessError(ended.returncode, ended.args, ended.stdout, ended.stderr)
        error.add_note(ended.stderr[-4000:])
        raise error
    return ended.stdout


def _plain_environment() -> dict[str, str]:
    """Return the environment without settings of tollspan's or OpenTelemetry's that happen to be there."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("TOLLSPAN_", "OTEL_"))}


@cache
def scenario(emitter: str, order: str) -> dict[str, Any]:
    """Return what `scenario.py` tells of an emitter, with tollspan `first`, `last` or `without`."""
    program = "bedrock.py" if emitter.startswith("bedrock_") else "scenario.py"
    found: dict[str, Any] = json.loads(run(emitter, HERE / program, emitter, order))
    return found
