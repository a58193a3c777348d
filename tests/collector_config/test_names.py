"""Names in collector-config/: every metric and attribute is one that the code emits, and each metric has its place.

The metrics are read off the code that makes them, as for the reference of metrics; the attributes are
the constants of `tollspan.telemetry.names`, beside those that the Collector and Prometheus add themselves.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest

from docs.generate.telemetry import created
from tollspan.telemetry import names

CONFIG: Final = Path(__file__).parents[2] / "collector-config"

HISTOGRAM: Final = ("_bucket", "_count", "_sum")
ADDED: Final = {
    "deployment_environment_name": "a resource attribute of the application, promoted in prometheus.yml",
    "job": "Prometheus: service.name",
    "instance": "Prometheus: service.instance.id",
    "le": "Prometheus: the upper bound of a bucket",
    "service_version": "a resource attribute of the application, promoted in prometheus.yml",
    "exporter": "the Collector's own metrics",
    "alertname": "Prometheus",
    "severity": "rules/alerts.yml",
    "tollspan_tag_tier": "a tag, whose name the application chooses",
}
"""Labels that others add, and who."""
FOREIGN: Final = {"otelcol_exporter_queue_capacity", "otelcol_exporter_queue_size", "up"}
"""Metrics of the Collector and of Prometheus."""


def _shown(name: str, unit: str, kind: str) -> str:
    """Return a metric's name in Prometheus.

    As the OpenTelemetry specification has it (Prometheus and OpenMetrics compatibility): units in braces are left out,
    counters end in _total, and a gauge of 1 is a ratio.
    """
    suffix = {"s": "_seconds", "1": "_ratio" if kind == "gauge" else ""}.get(unit, "")
    return name.replace(".", "_") + suffix + ("_total" if kind == "counter" else "")


@pytest.fixture(scope="module")
def emitted() -> dict[str, str]:
    """Return every metric that the code makes, whatever the settings: its name, and its name in Prometheus."""
    return {name: _shown(name, unit, kind) for name, kind, unit, _ in created("both", per_chunk=True)}


@pytest.fixture(scope="module")
def attributes() -> set[str]:
    """Return every attribute that the code knows by name."""
    constants = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    return {name for name in constants if not name.endswith(".")}


@pytest.fixture(scope="module")
def expressions() -> list[str]:
    """Return the PromQL of dashboards and rules: of the files as they are, comments aside."""
    boards = [
        json.loads(path.read_text("utf-8")) for path in sorted((CONFIG / "grafana" / "dashboards").glob("*.json"))
    ]
    queries = [
        query["expr"]
        for board in boards
        for panel in board["panels"]
        for query in panel.get("targets", ())
        if "expr" in query
    ]
    variables = [variable["query"] for board in boards for variable in board["templating"]["list"]]
    rules = [path.read_text("utf-8") for path in sorted((CONFIG / "rules").glob("*.yml"))]
    found = queries + variables + [rule for text in rules for rule in _rules(text)]
    assert len(queries) > 50
    assert len(found) > len(queries)
    return found


def _rules(text: str) -> list[str]:
    """Return the expressions of a file of rules: what stands after `expr:`, and in the deeper lines below it."""
    without = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return re.findall(r"^ +expr: (?:>-)?(.*(?:\n {10,}.*)*)", without, re.MULTILINE)


def _words(promql: str) -> set[str]:
    """Return the names in an expression, without texts in quotes and Grafana's variables."""
    bare = re.sub(r'"[^"]*"|\$\w+|label_values', " ", promql)
    return set(re.findall(r"[a-zA-Z_:][\w:]*", bare))


def test_each_metric_in_a_query_is_one_that_the_code_emits(emitted: dict[str, str], expressions: list[str]) -> None:
    """Whatever a query calls tollspan_* or gen_ai_client_* is made by the code, and recorded figures are recorded."""
    recorded = set(re.findall(r"record: (\S+)", (CONFIG / "rules" / "recording.yml").read_text("utf-8")))
    known = {shown + suffix for shown in emitted.values() for suffix in ("", *HISTOGRAM)} | recorded | FOREIGN
    labels = {name.replace(".", "_") for name in _label_names()}
    words = {word for promql in expressions for word in _words(promql)}
    ours = {word for word in words if re.match(r"tollspan|gen_ai_client|otelcol", word)}
    assert ours - known - labels - ADDED.keys() == set()


def _label_names() -> set[str]:
    """Return the attributes that metrics of ours carry."""
    return {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}


def test_each_label_in_a_query_is_an_attribute_that_the_code_emits(
    attributes: set[str], expressions: list[str]
) -> None:
    """Labels in braces, in by() and in on() are attributes of ours in Prometheus's spelling, or added by others."""
    known = {name.replace(".", "_") for name in attributes} | ADDED.keys()
    matched = {label for promql in expressions for label in re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", promql)}
    groups = [group for promql in expressions for group in re.findall(r"\b(?:by|on) ?\(([^)$]*)\)", promql)]
    grouped = {label for group in groups for label in re.findall(r"\w+", group)}
    assert (matched | grouped) - known == set()


def test_each_attribute_that_a_collector_looks_at_is_one_that_the_code_emits(attributes: set[str]) -> None:
    """What tail sampling asks for is set by the code; what is masked is nobody's business but the others'."""
    text = (CONFIG / "fleet" / "gateway.yaml").read_text("utf-8")
    asked = set(re.findall(r'attributes\["([^"]+)"\]', text)) | set(re.findall(r"^ +key: (\S+)$", text, re.MULTILINE))
    assert asked
    assert asked - attributes == set()


def test_each_search_in_jaeger_asks_for_attributes_that_the_code_emits(attributes: set[str]) -> None:
    """The Call explorer's searches name attributes of our spans."""
    board = json.loads((CONFIG / "grafana" / "dashboards" / "calls.json").read_text("utf-8"))
    searches = [query["tags"] for panel in board["panels"] for query in panel.get("targets", ()) if "tags" in query]
    assert searches
    assert {tag.partition("=")[0] for search in searches for tag in search.split()} - attributes == set()


def test_each_metric_is_shown_or_said_not_to_be(emitted: dict[str, str], expressions: list[str]) -> None:
    """The README's table of metrics has every metric of the code once, and says truly whether a query asks for it."""
    _, _, table = (CONFIG / "README.md").read_text("utf-8").partition("## Every metric")
    rows = re.findall(r"^\| `(\w+\.[\w.]+)` \| (.+?) \|", table, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(emitted)
    words = {word for promql in expressions for word in _words(promql)}
    asked = {name for name, shown in emitted.items() if words & {shown + suffix for suffix in ("", *HISTOGRAM)}}
    assert {name for name, where in rows if not where.startswith("not shown")} == asked
