"""The Collector, or what it sends to, goes away in the middle: nothing is lost from the counters."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest

from examples.fake_provider import FakeProvider
from tests.stack import servers
from tests.stack.applications import Steady, run_app
from tests.stack.conftest import prometheus_flags
from tests.stack.processes import NotReadyError, free_address, wait_until
from tests.stack.traffic import provider_settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stack.conftest import Launch
    from tests.stack.servers import RunningCollector, RunningJaeger, RunningPrometheus

ARRIVAL_SECONDS: Final = 45.0
LAUNCHER: Final = "tollspan run"


def _spend(prometheus: RunningPrometheus, service: str, expected: str) -> float | None:
    """Return the spend of a service once it is what is expected, or what it is when the time is up."""
    promql = f'sum(tollspan_spend_total{{job="{service}"}})'
    with suppress(NotReadyError):  # the caller compares, and shows both figures
        wait_until(lambda: prometheus.api.value(promql) == pytest.approx(float(expected)), promql, ARRIVAL_SECONDS)
    return prometheus.api.value(promql)


def _collector(folder: Path, jaeger: RunningJaeger, prometheus_url: str) -> RunningCollector:
    host, _, port = free_address().partition(":")
    return servers.collector(
        folder,
        {
            "JAEGER_ADDRESS": jaeger.otlp_grpc,
            "PROMETHEUS_URL": prometheus_url,
            "COLLECTOR_METRICS_HOST": host,
            "COLLECTOR_METRICS_PORT": port,
        },
    )


def test_a_collector_that_is_killed_in_the_middle(
    tmp_path: Path, launch: Launch, jaeger: RunningJaeger, prometheus: RunningPrometheus
) -> None:
    """An application that lives on has every call in its counters, those made while there was no Collector too."""
    collector = _collector(tmp_path, jaeger, prometheus.url)
    launch(collector.server)
    with FakeProvider() as provider:
        settings = {
            **collector.exporter_settings("http/protobuf"),
            **provider_settings(provider),
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
        }
        app = Steady(LAUNCHER, "steady", tmp_path, settings)
        app.ask(5)
        assert _spend(prometheus, "steady", provider.tally()["spend_usd"]) is not None
        collector.server.kill()
        app.ask(5)
        collector.server.start()
        collector.server.wait_ready()
        app.ask(5)
        app.end()
        tally = provider.tally()
    collector.server.kill()  # and once more, as soon as the application has handed over its last figures
    collector.server.start()
    collector.server.wait_ready()
    assert tally["attempts"] == 15
    assert _spend(prometheus, "steady", tally["spend_usd"]) == pytest.approx(float(tally["spend_usd"]))
    promql = 'sum(increase(tollspan_spend_total{job="steady"}[5m] anchored))'
    assert prometheus.api.value(promql) == pytest.approx(float(tally["spend_usd"]))
    collector.server.stop()


def test_what_was_accepted_waits_on_disk(
    tmp_path: Path, launch: Launch, jaeger: RunningJaeger, compose: dict[str, Any]
) -> None:
    """A script reports and ends, Prometheus is not there yet, the Collector is killed: it is all there in the end."""
    prometheus = servers.prometheus(tmp_path, {}, prometheus_flags(compose))
    collector = _collector(tmp_path, jaeger, prometheus.url)
    launch(collector.server)
    with FakeProvider() as provider:
        settings = {**collector.exporter_settings("grpc"), **provider_settings(provider)}
        run_app(LAUNCHER, "openai_calls.py", "waits", tmp_path, settings)
        tally = provider.tally()
    collector.server.kill()
    launch(prometheus.server)
    collector.server.start()
    collector.server.wait_ready()
    assert _spend(prometheus, "waits", tally["spend_usd"]) == pytest.approx(float(tally["spend_usd"]))
    spans = wait_until(lambda: jaeger.api.find_spans("waits"), "spans of waits", ARRIVAL_SECONDS)
    assert len([span for span in spans if "gen_ai.operation.name" in span.attributes]) == tally["attempts"]
    collector.server.stop()
    prometheus.server.stop()
