"""Run the tests on every supported Python that is installed: `.ci/pythons.py UV [--require 3.12 ...] [-- PYTEST ...]`.

Interpreters are looked for in pyenv's folder, among those that uv manages, and on the path; nothing is downloaded. Each
version gets an environment of its own, `.venv-3.12` for Python 3.12. A required version that is not there is an error.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SUPPORTED: Final = ("3.11", "3.12", "3.13", "3.14")


def candidates(version: str, uv: str) -> Iterator[str]:
    """Yield paths that may be a Python of this version, the newest of pyenv first."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    micro = [(int(found.name.split(".")[2]), found) for found in pyenv.glob(f"{version}.*") if found.name[-1].isdigit()]
    for _, found in sorted(micro, reverse=True):
        yield str(found / "bin" / "python")
    managed = [uv, "python", "find", "--managed-python", "--no-python-downloads", version]
    yield subprocess.run(managed, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    yield shutil.which(f"python{version}") or ""


def interpreter(version: str, uv: str) -> str | None:
    """Return the first candidate that runs and is of this version, or None."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    for path in candidates(version, uv):
        if path and Path(path).exists():
            said = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
            if said.stdout.strip() == version:
                return path
    return None


def test(version: str, path: str, uv: str, arguments: list[str]) -> bool:
    """Set the environment of a version up, run the tests in it, and return whether they passed."""
    folder = f".venv-{version}"
    sync = [uv, "sync", "--quiet", "--locked", "--no-default-groups", "--group", "test", "--python", path]
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": folder}
    environment.pop("VIRTUAL_ENV", None)
    if subprocess.run(sync, env=environment, check=False).returncode != 0:  # noqa: S603
        return False
    return subprocess.run([f"{folder}/bin/python", "-m", "pytest", *arguments], check=False).returncode == 0  # noqa: S603


def main() -> int:
    """Run the tests on each version that was found; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uv", help="the uv to make environments with")
    parser.add_argument("--require", nargs="*", default=[], choices=SUPPORTED, help="versions that must be installed")
    parser.add_argument(
        "--only", nargs="*", default=SUPPORTED, choices=SUPPORTED, help="versions to run (default: all)"
    )
    options, arguments = parser.parse_known_args()
    arguments = [argument for argument in arguments if argument != "--"]
    failed = []
    for version in options.only:
        path = interpreter(version, options.uv)
        if path is None:
            if version in options.require:
                sys.stderr.write(f"Python {version} is required and not installed: install it with pyenv or uv\n")
                failed.append(version)
            continue
        sys.stdout.write(f"\n== Python {version}: {path}\n")
        sys.stdout.flush()
        if not test(version, path, options.uv, arguments):
            failed.append(version)
    if failed:
        sys.stderr.write(f"failed on Python {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
