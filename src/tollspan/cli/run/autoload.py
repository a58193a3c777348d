"""The start of tollspan inside a program that `tollspan run` started, before the program's first line."""

from __future__ import annotations

import logging
import os
import sys
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from importlib.util import module_from_spec
from pathlib import Path
from typing import Final

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
    """Set up export if the standard variables configure it, instrument, and run the next sitecustomize on the path."""
    try:
        _set_up_export()
        from tollspan.setup.instrument import instrument

        instrument()
    except Exception:
        logging.getLogger("tollspan").exception("tollspan could not start; the program runs without it")
    _run_next_sitecustomize()


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


def _run_next_sitecustomize() -> None:
    """Run the next sitecustomize on the path, which ours hides, as Python would have run it."""
    rest = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(SITE).resolve()]
    spec = PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))
