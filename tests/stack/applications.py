"""Run an application as users do, as a process of its own under a launcher, with its telemetry going to the stack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

APPS: Final = Path(__file__).parent / "apps"
BIN: Final = Path(sys.executable).parent
APP_SECONDS: Final = 120.0

LAUNCHERS: Final[Mapping[str, Sequence[str | Path]]] = {
    "opentelemetry-instrument": (BIN / "opentelemetry-instrument",),
    "tollspan run": (BIN / "tollspan", "run", "--"),
}
"""The ways to run an unchanged application, by what a user would type."""


def run_app(
    launcher: str, app: str, service: str, folder: Path, settings: Mapping[str, str], *, status: int = 0
) -> None:
    """Run an application to its end, without whatever the tests' own environment says of telemetry.

    Args:
        launcher: A key of `LAUNCHERS`.
        app: The name of a file in `apps/`.
        service: The `service.name` that its telemetry bears.
        folder: Stands for the user's home and state folders, so that the real ones are left alone.
        settings: Environment variables, such as where to export.
        status: The exit status that is expected.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TOLLSPAN_", "OPENAI_"))}
    environment = {
        **ours,
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder),
        "XDG_CACHE_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "OTEL_SERVICE_NAME": service,
        **settings,
    }
    command = [*LAUNCHERS[launcher], sys.executable, APPS / app]
    done = subprocess.run(  # noqa: S603 - the words are the tests' own
        command, env=environment, capture_output=True, text=True, timeout=APP_SECONDS, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    # The exporters log a failed export and go on; here it would show only as a figure that never comes.
    assert "Failed to export" not in said, said
