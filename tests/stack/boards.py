"""What the dashboards ask: each PromQL expression and each search in Jaeger, with Grafana's variables put in."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.stack.servers import CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER: Final = CONFIG / "grafana" / "dashboards"

PUT_IN: Final = {
    "$__range_s": "600",
    "$__range": "10m",
    "$__rate_interval": "4m",  # four times the interval of the data source
    "$__interval": "1m",
    "$service": ".*",
    "$provider": ".*",
    "$model": ".*",
    "$split": "job",
}
"""What Grafana puts in for a dashboard of the last ten minutes with everything chosen. Longer names come first."""


@dataclass(frozen=True, slots=True)
class Target:
    """One query of one panel."""

    board: str
    panel: str
    query: dict[str, Any]

    def __str__(self) -> str:
        """Return a name for the test that runs it."""
        return f"{self.board}: {self.panel} {self.query['refId']}"

    @property
    def promql(self) -> str:
        """Return the expression as Prometheus is asked it."""
        return put_in(self.query["expr"])


def put_in(text: str) -> str:
    """Put values in for Grafana's variables; one that is not known stays, and does not parse."""
    for name, value in PUT_IN.items():
        text = text.replace(name, value)
    return text


def board(name: str) -> dict[str, Any]:
    """Return a dashboard's JSON."""
    model: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return model


def names() -> list[str]:
    """Return the names of the dashboards."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def targets(kind: str) -> list[Target]:
    """Return every query to a kind of data source: "prometheus" or "jaeger"."""
    return [target for name in names() for target in _targets(name) if target.query["datasource"]["type"] == kind]


def _targets(name: str) -> Iterator[Target]:
    for panel in board(name)["panels"]:
        for query in panel.get("targets", ()):
            yield Target(name, panel["title"], query)


def splits() -> list[str]:
    """Return the labels that the dashboard Spend offers to split by."""
    (variable,) = [v for v in board("spend")["templating"]["list"] if v["name"] == "split"]
    return sorted(variable["query"].split(","))


def label_values() -> list[tuple[str, str]]:
    """Return selector and label of every variable's `label_values(selector, label)`."""
    variables = [variable for name in names() for variable in board(name)["templating"]["list"]]
    found = [re.fullmatch(r"label_values\((.+), (\w+)\)", v["query"]) for v in variables if v["type"] == "query"]
    assert all(found)
    return sorted({(put_in(match[1]), match[2]) for match in found if match})
