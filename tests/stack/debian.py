"""Have the programs that come as Debian packages: give a path, installing the package first where we may.

What tests need, the project's own files install; so a missing program is fetched by apt-get when we are root, and
is otherwise a clear `PackageError`, never a skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

APT_TIMEOUT: Final = 10 * 60.0


class PackageError(Exception):
    """A program is missing and could not be installed; the message says what to run."""


def redis_server() -> Path:
    """Return the path of Redis's server (Debian package `redis-server`)."""
    return _program("redis-server", "redis-server")


def ip() -> Path:
    """Return the path of the program that sets up networks (Debian package `iproute2`)."""
    return _program("ip", "iproute2")


def unshare() -> Path:
    """Return the path of the program that makes namespaces (Debian package `util-linux`)."""
    return _program("unshare", "util-linux")


def chromium() -> Path:
    """Return the path of Chromium (Debian package `chromium`)."""
    return _program("chromium", "chromium")


def chromium_driver() -> Path:
    """Return the path of Chromium's WebDriver (Debian package `chromium-driver`)."""
    return _program("chromedriver", "chromium-driver")


def _program(executable: str, package: str) -> Path:
    """Find an executable, or install its package and find it.

    Raises:
        PackageError: It is missing, and we are not root, or apt-get failed or does not exist.
    """
    # Debian keeps servers in places that a user's PATH may lack.
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    found = shutil.which(executable, path=search)
    if found is None:
        _install(package)
        found = shutil.which(executable, path=search)
    if found is None:
        raise PackageError(f"the package {package} is installed, but it brought no `{executable}`")
    return Path(found)


def _install(package: str) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise PackageError(
            f"the stack tests need the Debian package {package}, and only root can install it: "
            f"run `sudo apt-get install {package}` (or your system's equivalent), then `make test-stack` again"
        )
    _apt_get("update")
    _apt_get("install", "--yes", "--no-install-recommends", package)


def _apt_get(*words: str) -> None:
    # policy-rc.d is not asked: without an init system (a container) nothing is started, with one a started service
    # listens on its standard port, which no test uses.
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", *words]
    done = subprocess.run(  # noqa: S603 - the words are this module's own
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        timeout=APT_TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        raise PackageError(f"`{' '.join(command)}` failed:\n{(done.stdout + done.stderr)[-2000:]}")
