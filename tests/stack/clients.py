"""Ask the real servers what they have: spans from Jaeger's query API, samples and exemplars from Prometheus's.

Each client is given a base address and gives frozen facts back; an HTTP error is raised as urllib raises it, with
the server's own words added.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT: Final = 10.0

TOLD_AS_TAGS: Final = (
    "error",
    "internal.span.format",
    "otel.scope.name",
    "otel.scope.version",
    "otel.status_code",
    "otel.status_description",
    "span.kind",
)
"""What Jaeger makes a tag of, though it is no attribute of an OTLP span."""

Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Span:
    """One span as Jaeger keeps it.

    `parent_id` is None for a root; `scope` is the instrumentation's name; `status` is "OK", "ERROR", or None if unset.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    service: str
    kind: str
    scope: str | None
    status: str | None
    attributes: Mapping[str, Attribute]
    resource: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an instant query: its labels and its value."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One exemplar of a series: the series' labels, the exemplar's own (trace_id, span_id) and its value."""

    series: Mapping[str, str]
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as Prometheus runs it; `health` is "ok", "err", or "unknown" before its first evaluation."""

    name: str
    query: str
    health: str
    error: str
    annotations: Mapping[str, str]


def get_json(url: str, **parameters: str) -> Any:
    """Get an address and read the JSON in the answer."""
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    return _read(urllib.request.Request(url + query))  # noqa: S310 - http://127.0.0.1 only


def post_json(url: str, body: object) -> Any:
    """Post a body as JSON and read the JSON in the answer; None where the answer is empty."""
    request = urllib.request.Request(  # noqa: S310 - http://127.0.0.1 only
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    return _read(request)


def _read(request: urllib.request.Request) -> Any:
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - http://127.0.0.1 only
            body = answer.read()
    except urllib.error.HTTPError as error:
        error.msg = f"{error.msg}: {error.read(2000).decode(errors='replace')}"
        raise
    return json.loads(body) if body else None


class Jaeger:
    """Jaeger's query API.

    Args:
        url: The base address, such as `http://127.0.0.1:16686`.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def find_spans(self, service: str, attributes: Mapping[str, Attribute] | None = None) -> list[Span]:
        """Return every span of a service's recent traces that carries all these attributes, in order of start.

        Args:
            service: The `service.name` of the resource; spans of other services in its traces are left out.
            attributes: Attributes that a span must have, with their values.
        """
        wanted = (attributes or {}).items()
        found = get_json(f"{self.url}/api/traces", service=service, limit="1000", lookback="1h")
        spans = [span for trace in found["data"] or [] for span in _spans(trace)]
        return [span for span in spans if span.service == service and wanted <= span.attributes.items()]

    def search(self, service: str, tags: str) -> list[list[Span]]:
        """Return the traces that Grafana's Jaeger data source would find.

        Args:
            service: The `service.name`.
            tags: In logfmt, as a user of Grafana writes them; the data source sends them as JSON.
        """
        wanted = json.dumps(dict(tag.split("=", 1) for tag in tags.split()))
        found = get_json(f"{self.url}/api/traces", service=service, tags=wanted, limit="50", lookback="1h")
        return [_spans(trace) for trace in found["data"] or []]

    def trace(self, trace_id: str) -> list[Span]:
        """Return the spans of one trace, in order of start. A trace that Jaeger does not have is an HTTP error 404."""
        return [span for trace in self.raw(trace_id) for span in _spans(trace)]

    def raw(self, trace_id: str) -> list[dict[str, Any]]:
        """Return one trace as Jaeger tells it, events included, in a list of one."""
        data: list[dict[str, Any]] = get_json(f"{self.url}/api/traces/{trace_id}")["data"]
        return data


def _spans(trace: Mapping[str, Any]) -> list[Span]:
    ordered = sorted(trace["spans"], key=lambda span: span["startTime"])
    return [_span(span, trace["processes"][span["processID"]]) for span in ordered]


def _span(span: Mapping[str, Any], process: Mapping[str, Any]) -> Span:
    attributes = {tag["key"]: tag["value"] for tag in span["tags"]}
    told = {name: attributes.pop(name, None) for name in TOLD_AS_TAGS}
    parents = [ref["spanID"] for ref in span["references"] if ref["refType"] == "CHILD_OF"]
    return Span(
        trace_id=span["traceID"],
        span_id=span["spanID"],
        parent_id=parents[0] if parents else None,
        name=span["operationName"],
        service=process["serviceName"],
        kind=told["span.kind"] or "internal",
        scope=told["otel.scope.name"],
        status=told["otel.status_code"],
        attributes=attributes,
        resource={tag["key"]: tag["value"] for tag in process["tags"]},
    )


class Prometheus:
    """Prometheus's query API.

    Args:
        url: The base address, such as `http://127.0.0.1:9090`.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, promql: str, at: float | None = None) -> list[Sample]:
        """Return the series of an instant query; an expression that does not parse is an HTTP error 400.

        Args:
            promql: The expression.
            at: The moment, in Unix seconds; None = now.
        """
        moment = {} if at is None else {"time": f"{at:.3f}"}
        data = get_json(f"{self.url}/api/v1/query", query=promql, **moment)["data"]
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(series["metric"], float(series["value"][1])) for series in data["result"]]

    def value(self, promql: str) -> float | None:
        """Return the value of a query that has one series, None where it has none yet.

        Raises:
            ValueError: There are several: the query does not say which one is meant.
        """
        samples = self.query(promql)
        if len(samples) > 1:
            raise ValueError(f"{promql} has {len(samples)} series, such as {samples[:3]}")
        return samples[0].value if samples else None

    def rules(self, kind: str) -> list[Rule]:
        """Return the rules that are loaded, of a kind: "record" or "alert"."""
        groups = get_json(f"{self.url}/api/v1/rules", type=kind)["data"]["groups"]
        return [
            Rule(rule["name"], rule["query"], rule["health"], rule.get("lastError", ""), rule.get("annotations", {}))
            for group in groups
            for rule in group["rules"]
        ]

    def labels(self) -> set[str]:
        """Return the names of all labels that any series has."""
        return set(get_json(f"{self.url}/api/v1/labels")["data"])

    def exemplars(self, promql: str, start: float, end: float) -> list[Exemplar]:
        """Return the exemplars of a query's series between two Unix times in seconds."""
        found = get_json(f"{self.url}/api/v1/query_exemplars", query=promql, start=f"{start}", end=f"{end}")
        return [
            Exemplar(series["seriesLabels"], exemplar["labels"], float(exemplar["value"]))
            for series in found["data"]
            for exemplar in series["exemplars"]
        ]
