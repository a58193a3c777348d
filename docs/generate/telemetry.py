"""The reference of metrics and of the event of a call.

Metrics are read off the code that creates them, by a meter that notes the instruments. The attributes of the event are
those in collector-config/README.md, which tests compare with what is emitted.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, NamedTuple

from opentelemetry.metrics import NoOpMeter

from tollspan.budget import instruments as budgets
from tollspan.telemetry.counters import Accumulator
from tollspan.telemetry.metrics import Instruments, observe_prices

ROOT: Final = Path(__file__).parents[2]
EVENT_ROW: Final = re.compile(r"^\| (`[a-z].*?) \| (.*?) \| (.*?) \| (.*)\|$", re.MULTILINE)


class Instrument(NamedTuple):
    """A metric as it is created."""

    name: str
    kind: str
    unit: str
    description: str


class NotingMeter(NoOpMeter):
    """A meter that keeps a list of the instruments that are created."""

    def __init__(self) -> None:
        super().__init__("reference")
        self.made: list[Instrument] = []

    def create_histogram(self, name: str, unit: str = "", description: str = "", **more: Any) -> Any:
        """Note a histogram."""
        self.made.append(Instrument(name, "histogram", unit, description))
        return super().create_histogram(name, unit, description, **more)

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Any:
        """Note a counter."""
        self.made.append(Instrument(name, "counter", unit, description))
        return super().create_counter(name, unit, description)

    def create_observable_counter(self, name: str, callbacks: Any = None, unit: str = "", description: str = "") -> Any:
        """Note a counter that is read."""
        self.made.append(Instrument(name, "counter", unit, description))
        return super().create_observable_counter(name, callbacks, unit, description)

    def create_observable_up_down_counter(
        self, name: str, callbacks: Any = None, unit: str = "", description: str = ""
    ) -> Any:
        """Note an up-down counter that is read."""
        self.made.append(Instrument(name, "up-down counter", unit, description))
        return super().create_observable_up_down_counter(name, callbacks, unit, description)

    def create_observable_gauge(self, name: str, callbacks: Any = None, unit: str = "", description: str = "") -> Any:
        """Note a gauge that is read."""
        self.made.append(Instrument(name, "gauge", unit, description))
        return super().create_observable_gauge(name, callbacks, unit, description)


def created(generation: Any, *, per_chunk: bool) -> list[Instrument]:
    """Return the metrics that exist with these settings (`metrics` and `chunk_metric`)."""
    meter = NotingMeter()
    Instruments(meter, Accumulator(), generation, per_chunk=per_chunk)
    observe_prices(meter, lambda: None, _unread)
    budgets.observe(meter, lambda: None)
    return meter.made


def _unread() -> Any:
    raise AssertionError("instruments are created here, and never read")


def metrics_table() -> str:
    """Return a table of every metric: the usual ones first, then those that a setting adds."""
    usual = created("released", per_chunk=False)
    settings = [
        ("", usual),
        ("`chunk_metric`", created("released", per_chunk=True)),
        ('`metrics = "newest"` or `"both"`', created("both", per_chunk=False)),
        ("the same, and `chunk_metric`", created("both", per_chunk=True)),
    ]
    rows: dict[str, str] = {}
    for needs, instruments in settings:
        for name, kind, unit, description in instruments:
            shown = f"`{unit}`" if unit else "of the budget"
            rows.setdefault(name, f"| `{name}` | {kind} | {shown} | {description} | {needs} |")
    return "\n".join(["| metric | instrument | unit | what | needs |", "|---|---|---|---|---|", *rows.values()])


def event_table() -> str:
    """Return a table of the attributes of the event `tollspan.call`, with their types."""
    text = (ROOT / "collector-config" / "README.md").read_text("utf-8")
    rows = [f"| {name} | {kind} | {what.strip()} |" for name, kind, _, what in EVENT_ROW.findall(text)]
    return "\n".join(["| attribute | type | what |", "|---|---|---|", *rows])
