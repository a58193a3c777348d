"""The equipment itself: every real program runs, and does for the tests what they rely on it for."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.stack import builds, processes, servers
from tests.stack.processes import LOOPBACK, NotReadyError, Server

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stack.conftest import Launch
    from tests.stack.servers import RunningCollector, RunningRedis


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
