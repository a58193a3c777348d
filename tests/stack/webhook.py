"""A receiver of Alertmanager's notifications on loopback: keeps every alert that it is told of."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.stack.processes import LOOPBACK


class Webhook:
    """Listens from the beginning; `alerts` are those that came, `url` is where they come."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        kept = self.alerts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name that http.server asks for
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kept.extend(json.loads(body)["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Stay silent: the tests read `alerts`."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the alerts of one name."""
        return [alert for alert in self.alerts if alert["labels"]["alertname"] == name]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
