"""Takes OTLP over HTTP as a backend does, and keeps every span once, and counters as they are last."""

from __future__ import annotations

import gzip
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue


class Sink:
    """A server on a loopback port. `spans` has the attributes by span id; `again` counts those that came once more."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.spans: dict[bytes, dict[str, Any]] = {}
        self.again = 0
        self._sums: dict[tuple[str, frozenset[tuple[str, Any]]], tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        """Return the address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def total(self, name: str) -> float:
        """Return the sum of a counter over all its labels."""
        with self._lock:
            return sum(value for (known, _), (_, value) in self._sums.items() if known == name)

    def by(self, name: str, label: str) -> Counter[str]:
        """Return the sums of a counter by one of its labels."""
        found: Counter[str] = Counter()
        with self._lock:
            for (known, labels), (_, value) in self._sums.items():
                if known == name:
                    found[str(dict(labels).get(label))] += int(value)
        return found

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                sink.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def take(self, path: str, body: bytes) -> None:
        """Keep a request."""
        with self._lock:
            if path.endswith("/v1/traces"):
                self._take_spans(ExportTraceServiceRequest.FromString(body))
            elif path.endswith("/v1/metrics"):
                self._take_sums(ExportMetricsServiceRequest.FromString(body))

    def _take_spans(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.again += span.span_id in self.spans
                    self.spans[span.span_id] = _plain(span.attributes)

    def _take_sums(self, request: ExportMetricsServiceRequest) -> None:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.sum.data_points:
                        key = metric.name, frozenset(_plain(point.attributes).items())
                        value = point.as_double if point.HasField("as_double") else point.as_int
                        if point.time_unix_nano >= self._sums.get(key, (0, 0.0))[0]:
                            self._sums[key] = point.time_unix_nano, value


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each) for each in attributes}


def _value(attribute: KeyValue) -> Any:
    kind = attribute.value.WhichOneof("value")
    return None if kind in {None, "array_value", "kvlist_value"} else getattr(attribute.value, str(kind))
