"""Return how each real server is started for the tests: its command, its addresses, how it tells that it is up.

The Collector and Prometheus run the very files of collector-config/, with addresses of this machine put in: what
users get is what is tested. Everything listens on 127.0.0.1 only, on ports chosen free.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.stack import builds, debian
from tests.stack.clients import Jaeger, Prometheus
from tests.stack.processes import Server, free_address

if TYPE_CHECKING:
    from collections.abc import Mapping

Command = list[str | Path]
CONFIG: Final = Path(__file__).parents[2] / "collector-config"
FEATURES: Final = "--enable-feature=promql-extended-range-selectors"
"""What promtool has to be told about our rules; compose.yaml tells Prometheus."""


@dataclass(frozen=True, slots=True)
class RunningJaeger:
    """A Jaeger all-in-one: where it takes OTLP over gRPC, and a client of its query API."""

    server: Server
    otlp_grpc: str
    api: Jaeger


@dataclass(frozen=True, slots=True)
class RunningPrometheus:
    """A Prometheus: its address, and a client of its query API."""

    server: Server
    url: str
    api: Prometheus


@dataclass(frozen=True, slots=True)
class RunningCollector:
    """A Collector: where it takes OTLP over gRPC and over HTTP, and where it shows its own figures."""

    server: Server
    otlp_grpc: str
    otlp_http: str

    def exporter_settings(self, protocol: str) -> dict[str, str]:
        """Return the standard variables that make an application export here.

        Args:
            protocol: "grpc" or "http/protobuf".
        """
        address = {"grpc": self.otlp_grpc, "http/protobuf": self.otlp_http}[protocol]
        return {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}"}


@dataclass(frozen=True, slots=True)
class RunningAlertmanager:
    """An Alertmanager and its address."""

    server: Server
    url: str


@dataclass(frozen=True, slots=True)
class RunningRedis:
    """A Redis, empty at start, that keeps nothing on disk."""

    server: Server
    host: str
    port: int

    @property
    def url(self) -> str:
        """Return the address as clients of Redis read it."""
        return f"redis://{self.host}:{self.port}/0"


def jaeger(folder: Path) -> RunningJaeger:
    """Set up Jaeger all-in-one with its spans in memory; it is not started yet."""
    otlp_grpc, query, admin = free_address(), free_address(), free_address()
    # All that it would otherwise open on its standard ports; what we do not use, too.
    addresses = {
        "collector.otlp.grpc.host-port": otlp_grpc,
        "collector.otlp.http.host-port": free_address(),
        "collector.grpc-server.host-port": free_address(),
        "collector.http-server.host-port": free_address(),
        "query.http-server.host-port": query,
        "query.grpc-server.host-port": free_address(),
        "admin.http.host-port": admin,
        "http-server.host-port": free_address(),
        "processor.zipkin-compact.server-host-port": free_address(),
        "processor.jaeger-compact.server-host-port": free_address(),
        "processor.jaeger-binary.server-host-port": free_address(),
    }
    command: Command = [builds.executables(builds.JAEGER) / "all-in-one", *(f"--{k}={v}" for k, v in addresses.items())]
    quiet = {"OTEL_TRACES_SAMPLER": "always_off"}  # or it would send traces of itself to localhost:4317
    server = Server("Jaeger", command, folder / "jaeger.log", f"http://{admin}/", quiet)
    return RunningJaeger(server, otlp_grpc, Jaeger(f"http://{query}"))


def prometheus(
    folder: Path, addresses: Mapping[str, str], flags: list[str], history: str | None = None
) -> RunningPrometheus:
    """Set up Prometheus with collector-config/prometheus.yml and the rules; it is not started yet.

    Args:
        folder: For its log, its data and the configuration with addresses put in.
        addresses: What is put in for addresses of the file, such as `collector:8888`.
        flags: What compose.yaml starts it with, without the places of files.
        history: What it is to remember of the past, in the OpenMetrics text format.
    """
    address = free_address()
    config = folder / "prometheus.yml"
    text = (CONFIG / "prometheus.yml").read_text()
    # Rules are evaluated every second and not every fifteen, so that tests need not wait; nothing else is changed.
    changes = {"_interval: 15s": "_interval: 1s", **addresses}
    for found, put in changes.items():
        assert found in text, f"{found} is not in prometheus.yml"
        text = text.replace(found, put)
    config.write_text(text)
    shutil.copytree(CONFIG / "rules", folder / "rules", ignore=shutil.ignore_patterns("tests"))
    if history is not None:
        _remember(folder, history)
    command: Command = [
        builds.executables(builds.PROMETHEUS) / "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus-data'}",
        f"--web.listen-address={address}",
        *flags,
    ]
    url = f"http://{address}"
    server = Server("Prometheus", command, folder / "prometheus.log", f"{url}/-/ready")
    return RunningPrometheus(server, url, Prometheus(url))


def _remember(folder: Path, history: str) -> None:
    """Write blocks of data of the past, as Prometheus's own tool makes them."""
    text = folder / "history.om"
    text.write_text(history)
    command: Command = [
        builds.executables(builds.PROMETHEUS) / "promtool",
        *("tsdb", "create-blocks-from", "openmetrics", "--quiet", text, folder / "prometheus-data"),
    ]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - the words are the tests' own


def collector(
    folder: Path, environment: Mapping[str, str], config: str = "otelcol.yaml", *over: str
) -> RunningCollector:
    """Set up the Collector with a file of collector-config/; it is not started yet.

    Args:
        folder: For its log and its queues; one for each Collector.
        environment: What the file's variables are set to, beside the Collector's own addresses: see `otelcol.yaml`.
        config: The file.
        over: Files that are laid over it.
    """
    otlp_grpc, otlp_http, health = free_address(), free_address(), free_address()
    addresses = {
        "OTLP_GRPC_ADDRESS": otlp_grpc,
        "OTLP_HTTP_ADDRESS": otlp_http,
        "HEALTH_ADDRESS": health,
        "QUEUE_FOLDER": str(folder / "queues"),
    }
    command: Command = [builds.executables(builds.COLLECTOR) / "otelcol"]
    command += [word for file in (config, *over) for word in ("--config", CONFIG / file)]
    log = folder / "collector.log"
    server = Server(f"Collector {config}", command, log, f"http://{health}/", {**addresses, **environment})
    return RunningCollector(server, otlp_grpc, otlp_http)


def alertmanager(folder: Path, webhook: str) -> RunningAlertmanager:
    """Set up Alertmanager, alone (no cluster), with collector-config/alertmanager.yml; it is not started yet.

    Args:
        folder: For its log, its data and the configuration with places put in.
        webhook: Where it posts alerts to.
    """
    address = free_address()
    (folder / "webhook-url").write_text(webhook)
    config = folder / "alertmanager.yml"
    text = (CONFIG / "alertmanager.yml").read_text()
    # Alerts are posted at once, so that tests need not wait.
    for found, put in {"/etc/alertmanager": str(folder), "group_wait: 10s": "group_wait: 0s"}.items():
        assert found in text, f"{found} is not in alertmanager.yml"
        text = text.replace(found, put)
    config.write_text(text)
    command: Command = [
        builds.executables(builds.ALERTMANAGER) / "alertmanager",
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager-data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    url = f"http://{address}"
    server = Server("Alertmanager", command, folder / "alertmanager.log", f"{url}/-/ready")
    return RunningAlertmanager(server, url)


def redis(folder: Path) -> RunningRedis:
    """Set up Redis; it is not started yet."""
    host, _, port = free_address().partition(":")
    options = {"bind": host, "port": port, "dir": str(folder), "save": "", "appendonly": "no"}
    words = [word for option, value in options.items() for word in (f"--{option}", value)]
    command: Command = [debian.redis_server(), *words]
    server = Server("Redis", command, folder / "redis.log", lambda: _answers_ping(host, int(port)))
    return RunningRedis(server, host, int(port))


def _answers_ping(host: str, port: int) -> bool:
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
