"""Run an application as users do, as a process of its own under a launcher, with its telemetry going to the stack."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.stack.processes import Server, free_address

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

APPS: Final = Path(__file__).parent / "apps"
BIN: Final = Path(sys.executable).parent
APP_SECONDS: Final = 120.0
_OTHERS: Final = ("OTEL_", "TOLLSPAN_", "OPENAI_", "ANTHROPIC_")
"""What the variables of the tests' own environment that an application must not see begin with."""

LAUNCHERS: Final[Mapping[str, Sequence[str | Path]]] = {
    "opentelemetry-instrument": (BIN / "opentelemetry-instrument",),
    "tollspan run": (BIN / "tollspan", "run", "--"),
}
"""The ways to run an unchanged application, by what a user would type."""


def environment(service: str, folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return an application's environment, without whatever the tests' own says of telemetry.

    Args:
        service: The `service.name` that its telemetry bears.
        folder: Stands for the user's home and state folders, so that the real ones are left alone.
        settings: Variables, such as where to export.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)}
    return {
        **ours,
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder),
        "XDG_CACHE_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "OTEL_SERVICE_NAME": service,
        **settings,
    }


def run_app(
    launcher: str, app: str, service: str, folder: Path, settings: Mapping[str, str], *, status: int = 0
) -> None:
    """Run an application to its end.

    Args:
        launcher: A key of `LAUNCHERS`.
        app: The name of a file in `apps/`.
        service: The `service.name` that its telemetry bears.
        folder: See `environment`.
        settings: Environment variables, such as where to export.
        status: The exit status that is expected.
    """
    command = [*LAUNCHERS[launcher], sys.executable, APPS / app]
    done = subprocess.run(  # noqa: S603 - the words are the tests' own
        command,
        env=environment(service, folder, settings),
        capture_output=True,
        text=True,
        timeout=APP_SECONDS,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    # The exporters log a failed export and go on; here it would show only as a figure that never comes.
    assert "Failed to export" not in said, said


class Steady:
    """An application that asks once each time it is told to, and ends when it is told to."""

    def __init__(self, launcher: str, service: str, folder: Path, settings: Mapping[str, str]) -> None:
        """Start it; the arguments are those of `run_app`."""
        self._log = (folder / f"{service}.log").open("w+")
        self._process = subprocess.Popen(  # noqa: S603 - the words are the tests' own
            [*LAUNCHERS[launcher], sys.executable, APPS / "steady.py"],
            env=environment(service, folder, settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def ask(self, times: int) -> None:
        """Have it ask so many times, and wait until it has."""
        assert self._process.stdin
        assert self._process.stdout
        for number in range(times):
            self._process.stdin.write(f"What does bridge {number} cost?\n")
            self._process.stdin.flush()
            assert self._process.stdout.readline() == "asked\n", self._said()

    def end(self) -> None:
        """Have it end, and wait until it has."""
        with self._process, self._log:
            assert self._process.stdin
            self._process.stdin.close()
            assert self._process.wait(APP_SECONDS) == 0, self._said()

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read()


def serve_requests(service: str, folder: Path, settings: Mapping[str, str], *, workers: int, requests: int) -> set[str]:
    """Run `tollspan run -- gunicorn --preload`, ask it so many times at once, end it as an operator does.

    Args:
        service: See `run_app`.
        folder: See `environment`.
        settings: See `run_app`.
        workers: How many processes gunicorn forks once it has loaded the application.
        requests: How many requests are made, after all workers are there.

    Returns:
        The process ids that answered.
    """
    address = free_address()
    gunicorn: list[str | Path] = [
        BIN / "gunicorn",
        "--preload",
        "--workers",
        str(workers),
        "--bind",
        address,
        "--chdir",
        APPS,
    ]
    quiet = ["--no-control-socket", "openai_web:app"]
    command: list[str | Path] = [*LAUNCHERS["tollspan run"], *gunicorn, *quiet]
    log = folder / f"{service}.log"
    server = Server("gunicorn", command, log, f"http://{address}/", environment(service, folder, settings))
    server.start()
    try:
        server.wait_ready()
        with ThreadPoolExecutor(2 * workers) as pool:
            answered = set(pool.map(lambda n: _get(f"http://{address}/{n}"), range(requests)))
    finally:
        server.stop()
    assert "Failed to export" not in log.read_text(), log.read_text()
    return answered


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - http://127.0.0.1 only
        body: bytes = answer.read()
    return body.decode()
