"""The files of collector-config/: each is accepted by the program that it is for, and agrees with what is tested."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.stack import builds, servers
from tests.stack.builds import ALERTMANAGER, COLLECTOR, JAEGER, PROMETHEUS
from tests.stack.conftest import read_compose

if TYPE_CHECKING:
    from pathlib import Path

FLEET = sorted((servers.CONFIG / "fleet").glob("*.yaml"))
CALLS = servers.CONFIG / "clickhouse" / "calls.yaml"


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - ours


@pytest.mark.parametrize("config", [servers.CONFIG / "otelcol.yaml", *FLEET], ids=lambda path: path.name)
def test_the_collector_accepts_each_of_its_files(config: Path) -> None:
    """`otelcol validate` of a real Collector has nothing against the file as it is, and does not warn of old names."""
    done = _run(builds.executables(COLLECTOR) / "otelcol", "validate", "--config", config)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("config", ["otelcol.yaml", "fleet/gateway.yaml"])
def test_the_collector_accepts_call_records_laid_over(config: str) -> None:
    """The file that keeps call records in ClickHouse goes over that of one machine, and over that of a gateway."""
    files = ("--config", servers.CONFIG / config, "--config", CALLS)
    done = _run(builds.executables(COLLECTOR) / "otelcol", "validate", *files)
    assert (done.returncode, done.stderr) == (0, "")


def test_call_records_are_chosen_alike() -> None:
    """An agent lets the same logs go on to the gateways as these write to ClickHouse."""
    agent = (servers.CONFIG / "fleet" / "agent.yaml").read_text()
    assert _part(agent, "filter/calls") == _part(CALLS.read_text(), "filter/calls")


def test_there_is_a_collector_file_to_check() -> None:
    """The test above cannot pass by finding nothing."""
    assert (servers.CONFIG / "otelcol.yaml").is_file()
    assert [path.name for path in FLEET] == ["agent.yaml", "gateway.yaml"]


def test_collectors_mask_the_same_and_count_the_same() -> None:
    """What is masked on one machine is masked in a fleet, and the starts of counters are put earlier in both."""
    one, agent, gateway = (path.read_text() for path in (servers.CONFIG / "otelcol.yaml", *FLEET))
    assert _part(one, "redaction/content") == _part(agent, "redaction/content")
    assert _part(one, "transform/starts") == _part(gateway, "transform/starts")


def _part(text: str, name: str) -> str:
    """Return a processor's lines, without the comment before it."""
    found = re.search(rf"^  {name}:\n(?:    .*\n|\n)+", text, re.MULTILINE)
    assert found
    return found[0].strip()


def test_prometheus_accepts_its_file() -> None:
    """`promtool check config` has nothing against prometheus.yml and the rules that it names."""
    promtool = (builds.executables(PROMETHEUS) / "promtool", servers.FEATURES)
    done = _run(*promtool, "check", "config", servers.CONFIG / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_does_without_clickhouse() -> None:
    """The file over compose.yaml adds a service and changes who writes there; nothing needs it."""
    base = read_compose("compose.yaml")["services"]
    both = read_compose("compose.yaml", "clickhouse/compose.yaml")["services"]
    assert both.keys() - base.keys() == {"clickhouse"}
    assert {name for name in base if base[name] != both[name]} == {"collector", "gateway-1", "gateway-2"}


def test_each_container_is_pinned(compose: dict[str, Any]) -> None:
    """Every image of compose.yaml names a full version: what was tested today is what starts tomorrow."""
    images = [service["image"] for service in compose["services"].values()]
    assert [image for image in images if not re.search(r":v?\d+\.\d+\.\d+$", image)] == []


def test_each_container_has_a_health_check(compose: dict[str, Any]) -> None:
    """Every service says when it is healthy; for the Collector, whose image has no client, a neighbour says it."""
    unchecked = [name for name, service in compose["services"].items() if "healthcheck" not in service]
    assert unchecked == ["agent", "collector", "gateway-1", "gateway-2"]
    for name in unchecked:
        assert compose["services"][f"{name}-health"]["network_mode"] == f"service:{name}"


def test_each_mounted_file_exists(compose: dict[str, Any]) -> None:
    """Every file or folder that compose.yaml mounts from beside itself is there."""
    volumes = [volume for service in compose["services"].values() for volume in service.get("volumes", [])]
    sources = [servers.CONFIG / volume["source"] for volume in volumes if volume["type"] == "bind"]
    assert sources
    assert [source for source in sources if not source.exists()] == []


def test_each_port_is_open_to_this_machine_only(compose: dict[str, Any]) -> None:
    """Nothing of the stack can be reached from another machine unless somebody chooses so."""
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("service", "pins", "pattern", "image"),
    [
        (
            "gateway-2",  # all Collectors share their image
            COLLECTOR.pins / "builder.yaml",
            r"otlpreceiver v(.+)",
            r"otel/opentelemetry-collector-contrib:\1",
        ),
        ("jaeger", JAEGER.pins / "go.mod", r"jaegertracing/jaeger v(\S+)", r"jaegertracing/all-in-one:\1"),
        # Version 3.15.0 of the program is version 0.315.0 of the module.
        ("agent", COLLECTOR.pins / "builder.yaml", r"otlpreceiver v(.+)", r"otel/opentelemetry-collector-contrib:\1"),
        ("alertmanager", ALERTMANAGER.pins / "go.mod", r"prometheus/alertmanager (v\S+)", r"prom/alertmanager:\1"),
        (
            "prometheus",
            PROMETHEUS.pins / "go.mod",
            r"prometheus/prometheus v0\.3(\d\d)(\S+)",
            r"prom/prometheus:v3.\1\2",
        ),
    ],
)
def test_users_get_the_versions_that_are_tested(
    compose: dict[str, Any], service: str, pins: Path, pattern: str, image: str
) -> None:
    """The version in compose.yaml is the one that the stack tests build."""
    found = re.search(pattern, pins.read_text())
    assert found
    assert compose["services"][service]["image"] == found.expand(image)


def test_the_readme_names_each_file() -> None:
    """collector-config/README.md has one line for each file in the folder."""
    readme = (servers.CONFIG / "README.md").read_text()
    files = [
        path.relative_to(servers.CONFIG).as_posix()
        for path in servers.CONFIG.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    ]
    assert [file for file in files if file != "README.md" and readme.count(f"\n| [{file}]({file}) |") != 1] == []
