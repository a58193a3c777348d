"""Start the real servers once per test run, and show the end of their logs beside a test that fails."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest

from tests.stack import builds, past, servers
from tests.stack.processes import Server, free_address
from tests.stack.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from tests.stack.servers import (
        RunningCollector,
        RunningJaeger,
        RunningPrometheus,
        RunningRedis,
    )

PLACES: Final = ("--config.file=", "--storage.tsdb.path=")
"""Flags of compose.yaml that name a place inside the container."""

STARTED: Final[list[Server]] = []
"""Every server that this run has started, for the report of a failure and for the end."""


class Launch(Protocol):
    """Starts servers, all at once, and waits until each is up."""

    def __call__(self, *several: Server) -> None:
        """Start them; whatever still runs is ended when the tests are over."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The servers of collector-config/, wired as users get them."""

    collector: RunningCollector
    jaeger: RunningJaeger
    prometheus: RunningPrometheus
    webhook: Webhook


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the end of every server's log to the report of a failed test; the logs stay in pytest's folder."""
    report = yield
    if report.failed:
        report.sections.extend((f"{server.name}, end of {server.log}", server.tail()) for server in STARTED)
    return report


@pytest.fixture(scope="session", autouse=True)
def programs(request: pytest.FixtureRequest) -> None:
    """Build what is not built yet, with the progress shown: pytest would hold it back until the end."""
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        for program in builds.PROGRAMS:
            builds.executables(program)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for the servers' logs and data; pytest keeps those of the last three runs."""
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="session")
def launch() -> Iterator[Launch]:
    """Start servers, and end at the end what still runs, the last started first."""

    def start(*several: Server) -> None:
        for server in several:
            STARTED.append(server)
            server.start()
        for server in several:
            server.wait_ready()

    yield start
    for server in reversed(STARTED):
        server.stop()


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """Return collector-config/compose.yaml with the fleet and ClickHouse, as Compose's own reader understands it."""
    return read_compose("compose.yaml", "clickhouse/compose.yaml")


def read_compose(*files: str) -> dict[str, Any]:
    """Return what files of collector-config/, one merged, are to the Compose specification's own reader."""
    read: list[str | Path] = [builds.executables(builds.COMPOSE) / "compose-spec", "--format", "json", *files]
    environment = {**os.environ, "COMPOSE_PROFILES": "fleet"}
    done = subprocess.run(  # noqa: S603 - ours
        read, cwd=servers.CONFIG, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    model: dict[str, Any] = json.loads(done.stdout)
    return model


def prometheus_flags(compose: dict[str, Any]) -> list[str]:
    """Return what compose.yaml starts Prometheus with, without the places of files."""
    return [flag for flag in compose["services"]["prometheus"]["command"] if not flag.startswith(PLACES)]


@pytest.fixture(scope="session")
def webhook() -> Iterator[Webhook]:
    """Return a receiver of alerts."""
    receiver = Webhook()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def stack(folder: Path, launch: Launch, compose: dict[str, Any], webhook: Webhook) -> Stack:
    """Return Jaeger, Prometheus, Alertmanager and, wired to them, the Collector: up and running."""
    metrics = free_address()
    host, _, port = metrics.partition(":")
    jaeger = servers.jaeger(folder)
    alertmanager = servers.alertmanager(folder, webhook.url)
    addresses = {"collector:8888": metrics, "alertmanager:9093": alertmanager.url.removeprefix("http://")}
    prometheus = servers.prometheus(folder, addresses, prometheus_flags(compose), past.history(time.time()))
    environment = {
        "JAEGER_ADDRESS": jaeger.otlp_grpc,
        "PROMETHEUS_URL": prometheus.url,
        "COLLECTOR_METRICS_HOST": host,
        "COLLECTOR_METRICS_PORT": port,
    }
    collector = servers.collector(folder, environment)
    launch(jaeger.server, prometheus.server, alertmanager.server)
    launch(collector.server)  # last: one that finds nobody to send to waits seconds before it tries again
    return Stack(collector, jaeger, prometheus, webhook)


@pytest.fixture(scope="session")
def collector(stack: Stack) -> RunningCollector:
    """Return the running Collector."""
    return stack.collector


@pytest.fixture(scope="session")
def jaeger(stack: Stack) -> RunningJaeger:
    """Return the running Jaeger, which the Collector sends spans to."""
    return stack.jaeger


@pytest.fixture(scope="session")
def prometheus(stack: Stack) -> RunningPrometheus:
    """Return the running Prometheus, which the Collector sends metrics to."""
    return stack.prometheus


@pytest.fixture(scope="session")
def redis(folder: Path, launch: Launch) -> RunningRedis:
    """Return a running Redis that keeps nothing on disk."""
    running = servers.redis(folder)
    launch(running.server)
    return running
