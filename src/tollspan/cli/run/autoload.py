"""The start of tollspan inside a program that `tollspan run` started, before the program's first line."""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tollspan.settings import LIMITED_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("tollspan")

SITE: Final = str(Path(__file__).parent / "site")
"""The folder that `tollspan run` puts first on PYTHONPATH; it contains only `sitecustomize.py`."""

_EXPORTERS: Final = {
    "OTEL_TRACES_EXPORTER": ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
    "OTEL_METRICS_EXPORTER": ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
}
_FOR_EVENTS: Final = {
    "OTEL_LOGS_EXPORTER": ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
}
"""Used only if call events are enabled: they are the only logs that tollspan sends."""


def start() -> None:
    """Set up export if the standard variables configure it, instrument, and watch for programs that would not do so."""
    try:
        _set_up_export()
    except Exception:
        log.exception("tollspan could not set up export; calls are metered, and budgets hold")
    from tollspan.setup.instrument import instrument

    instrument()
    if os.environ.get(LIMITED_VARIABLE):
        sys.addaudithook(_watch)


_STARTS: Final = frozenset({"os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"})
_reported: Final[set[str]] = set()


def _report(event: str, *arguments: Any) -> None:
    from tollspan.cli.run.interpreters import pythons_of  # only if a program starts another one

    words: Any
    match event:
        case "os.system":
            words, environment = ["sh", "-c", arguments[0]], None
        case "subprocess.Popen":
            (_, words, _, environment) = arguments
        case "os.spawn":
            (_, _, words, environment) = arguments
        case _:
            (_, words, environment) = arguments
    words = [words] if isinstance(words, (str, bytes, os.PathLike)) else words
    for python in pythons_of([os.fsdecode(word) for word in words], os.environ):
        keeps = environment is None or SITE in os.fsdecode(_value(environment, "PYTHONPATH")).split(os.pathsep)
        if (python.is_isolated or not keeps) and python.name not in _reported:
            _reported.add(python.name)
            why = "-I, -E or -S" if python.is_isolated else "an environment without the PYTHONPATH of tollspan run"
            log.warning("no budget holds in a program that was started: %s, with %s", python.name, why)


def _value(environment: Any, name: str) -> Any:
    """Return a variable of an environment, whose names may be bytes."""
    return environment.get(name) or environment.get(os.fsencode(name)) or ""


def _watch(
    event: str,
    arguments: tuple[Any, ...],
    starts: frozenset[str] = _STARTS,
    report: Callable[..., None] = _report,
) -> None:
    """Report a Python that this program starts in a way that keeps tollspan, and so every budget, out of it.

    Python calls this at each of its events, up to the very end, when a module's names are gone: it needs none.
    """
    if event not in starts:
        return
    try:
        report(event, *arguments)
    except Exception:
        log.exception("tollspan could not look at a program that was started; it was not affected")


def _set_up_export() -> None:
    """Configure the OpenTelemetry SDK as `opentelemetry-instrument` does, if an exporter is configured."""
    exporters = _EXPORTERS | (_FOR_EVENTS if _events_enabled() else {})
    for exporter, endpoints in exporters.items():
        if any(os.environ.get(name) for name in endpoints):
            os.environ.setdefault(exporter, "otlp")
    if not any(os.environ.get(exporter) for exporter in exporters):
        return
    for entry_point in entry_points(group="opentelemetry_configurator", name="configurator"):
        entry_point.load()().configure(auto_instrumentation_version="tollspan")
        return


def _events_enabled() -> bool:
    from tollspan.settings import look  # does not log: `instrument()` reports invalid settings once

    return look().events
