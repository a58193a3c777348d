"""The equipment itself: every real program runs, and does for the tests what they rely on it for."""

from __future__ import annotations

import json
import socket
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from tests.stack import builds, processes, servers
from tests.stack.clients import post_json
from tests.stack.processes import LOOPBACK, NotReadyError, Server, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stack.conftest import Launch
    from tests.stack.servers import RunningCollector, RunningRedis


class Webhook:
    """A receiver of Alertmanager's notifications: keeps every alert that it is told of."""

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

        self._server = HTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """Give a webhook that listens on loopback while the test runs."""
    receiver = Webhook()
    yield receiver
    receiver.close()


def test_an_alert_reaches_a_webhook_through_alertmanager(folder: Path, launch: Launch, webhook: Webhook) -> None:
    """An alert that is posted to the real Alertmanager arrives at the receiver that its configuration names."""
    config = folder / "alertmanager.yml"
    route = {"receiver": "test", "group_wait": "0s", "group_by": ["alertname"]}
    receivers = [{"name": "test", "webhook_configs": [{"url": webhook.url}]}]
    config.write_text(json.dumps({"route": route, "receivers": receivers}))  # JSON is YAML
    alertmanager = servers.alertmanager(folder, config)
    launch(alertmanager.server)
    ends = datetime.now(UTC) + timedelta(minutes=5)
    post_json(
        f"{alertmanager.url}/api/v2/alerts", [{"labels": {"alertname": "BudgetSpent"}, "endsAt": ends.isoformat()}]
    )
    wait_until(lambda: webhook.alerts, "notification")
    assert webhook.alerts[0]["labels"] == {"alertname": "BudgetSpent"}
    assert webhook.alerts[0]["status"] == "firing"


def test_redis_keeps_what_it_is_given(redis: RunningRedis) -> None:
    """The real Redis answers a write and a read with its protocol's words."""
    with socket.create_connection((redis.host, redis.port), timeout=5) as connection:
        connection.sendall(b"SET tollspan 1\r\nGET tollspan\r\n")
        answer = b""
        while answer.count(b"\r\n") < len((b"+OK", b"$1", b"1")):
            answer += connection.recv(64)
    assert answer == b"+OK\r\n$1\r\n1\r\n"


def test_a_server_killed_can_be_started_again_in_its_place(folder: Path, launch: Launch) -> None:
    """A server that is killed is down, and after a new start answers on the same addresses."""
    environment = {"COLLECTOR_METRICS_HOST": LOOPBACK, "COLLECTOR_METRICS_PORT": processes.free_address().split(":")[1]}
    spare_folder = folder / "spare"
    spare_folder.mkdir()
    spare: RunningCollector = servers.collector(spare_folder, environment)
    launch(spare.server)
    health = f"http://{spare.server.environment['HEALTH_ADDRESS']}/"
    spare.server.kill()
    with pytest.raises(OSError, match="refused"):
        processes.answers(health)
    spare.server.start()
    spare.server.wait_ready()
    assert processes.answers(health)
    spare.server.stop()


def test_a_server_that_ends_at_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    """A server that does not come up fails at once, and the message carries the end of its log."""
    broken = Server("Broken", ["sh", "-c", "echo no such port; exit 3"], tmp_path / "log", "http://127.0.0.1:1/")
    broken.start()
    with pytest.raises(NotReadyError, match=r"(?s)not running.*no such port"):
        broken.wait_ready()


def test_a_missing_go_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Go and without built programs nothing is skipped: the error names what to install."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(builds.BuildError, match=r"Install Go 1\.26 or newer"):
        builds.executables(builds.JAEGER)


def test_changed_pins_give_another_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The digest of a program changes with any of its pin files, so that an old build is not taken for a new one."""
    monkeypatch.setattr(builds, "PINS", tmp_path)
    (tmp_path / "jaeger").mkdir()
    (tmp_path / "jaeger" / "go.mod").write_text("module a")
    before = builds.JAEGER.digest()
    (tmp_path / "jaeger" / "go.sum").write_text("")
    assert builds.JAEGER.digest() != before
