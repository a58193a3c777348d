"""A made Prometheus on loopback: its query API alone, with the results that a test sets."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Mapping

Sample = tuple["Mapping[str, str]", str]


class PrometheusApi:
    """Answers instant queries, by the first text of `answers` that is found in the query; else with nothing.

    `newest` is the moment of the newest sample; None = there is none. `status` is what every query is answered with,
    `anchored` whether the range selector of that name is understood. `held`: answers wait until it is set.
    """

    def __init__(self) -> None:
        """Listen on loopback."""
        self.answers: dict[str, list[Sample]] = {}
        self.newest: float | None = None
        self.status = 200
        self.anchored = True
        self.body: bytes | None = None
        self.held = threading.Event()
        self.held.set()
        self.queries: list[str] = []
        self.authorization: str | None = None
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.held.set()
        self._server.shutdown()
        self._server.server_close()

    def spent(self, budget_labels: str, *samples: Sample) -> None:
        """Have queries that contain a text answered with these samples."""
        self.answers[budget_labels] = list(samples)

    def answer(self, promql: str) -> tuple[int, bytes]:
        """Return status and body for a query."""
        self.queries.append(promql)
        if self.body is not None:
            return self.status, self.body
        if self.status != 200:
            return self.status, b'{"status":"error","errorType":"internal","error":"made"}'
        if "anchored" in promql and not self.anchored:
            return 400, b'{"status":"error","errorType":"bad_data","error":"anchored modifier is experimental"}'
        found = next((found for text, found in self.answers.items() if text in promql), [])
        if re.match(r"max\(", promql):
            found = [] if self.newest is None else [({}, str(self.newest))]
        result: list[dict[str, Any]] = [{"metric": dict(labels), "value": [0, value]} for labels, value in found]
        return 200, json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


class _Handler(BaseHTTPRequestHandler):
    api: PrometheusApi

    def do_POST(self) -> None:
        """Answer a query."""
        asked = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        self.api.authorization = self.headers["authorization"]
        self.api.held.wait(30)
        status, body = self.api.answer(asked["query"][0])
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
