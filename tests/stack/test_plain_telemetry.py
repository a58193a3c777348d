"""The stack without tollspan: what an application says by OTLP is found in Jaeger and in Prometheus."""

from __future__ import annotations

import time
import urllib.error
from typing import TYPE_CHECKING

import pytest

from tests.stack.applications import run_app
from tests.stack.clients import post_json
from tests.stack.processes import wait_until

if TYPE_CHECKING:
    from tests.stack.servers import RunningCollector, RunningJaeger, RunningPrometheus

AMOUNT = 0.0125


@pytest.fixture(scope="module", params=["grpc", "http/protobuf"])
def service(
    request: pytest.FixtureRequest, collector: RunningCollector, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Return the name of a service that has reported once, over one of the two protocols, and has ended."""
    protocol: str = request.param
    name = f"plain-{protocol.partition('/')[0]}"
    folder = tmp_path_factory.mktemp(name)
    run_app("opentelemetry-instrument", "plain_otel.py", name, folder, collector.exporter_settings(protocol))
    return name


def test_a_span_comes_back_from_jaeger(service: str, jaeger: RunningJaeger) -> None:
    """A span sent to the Collector is in Jaeger, once, with its kind, scope and attributes of their own types."""
    (span,) = wait_until(lambda: jaeger.api.find_spans(service), f"span of {service}")
    assert (span.name, span.kind, span.scope, span.parent_id) == ("chat gpt-5.5", "client", "tollspan.test.plain", None)
    assert span.attributes["gen_ai.usage.input_tokens"] == 1000
    assert span.attributes["gen_ai.usage.cost.amount"] == AMOUNT
    assert span.resource["telemetry.sdk.language"] == "python"
    assert jaeger.api.find_spans(service, {"gen_ai.request.model": "another"}) == []


def test_counters_come_back_from_prometheus_once(service: str, prometheus: RunningPrometheus) -> None:
    """Each counter is one series under its Prometheus name, with dots turned into underscores."""
    spend = wait_until(lambda: prometheus.api.query(f'probe_spend_total{{job="{service}"}}'), f"spend of {service}")
    assert [sample.value for sample in spend] == [AMOUNT]
    assert spend[0].labels["gen_ai_request_model"] == "gpt-5.5"
    assert spend[0].labels["service_name"] == service
    assert prometheus.api.value(f'sum(probe_call_cost_count{{job="{service}"}})') == 1


def test_a_script_that_reports_once_counts_in_increase(service: str, prometheus: RunningPrometheus) -> None:
    """The money of a process that ended after its first report is in increase(), to the cent with `anchored`."""
    promql = f'sum(increase(probe_spend_total{{job="{service}"}}[5m] anchored))'
    assert wait_until(lambda: prometheus.api.value(promql), promql) == pytest.approx(AMOUNT)


def test_an_exemplar_opens_its_trace(service: str, jaeger: RunningJaeger, prometheus: RunningPrometheus) -> None:
    """An exemplar of a histogram carries the id of a trace that Jaeger has."""
    promql = f'probe_call_cost_bucket{{job="{service}"}}'
    now = time.time()
    (exemplar,) = wait_until(lambda: prometheus.api.exemplars(promql, now - 600, now + 600), "exemplar")
    assert exemplar.value == AMOUNT
    trace = wait_until(lambda: jaeger.api.trace(exemplar.labels["trace_id"]), "trace of the exemplar")
    assert [span.span_id for span in trace] == [exemplar.labels["span_id"]]


def test_logs_are_accepted_and_their_text_is_kept_nowhere(collector: RunningCollector) -> None:
    """A log record is taken, as `opentelemetry-instrument` sends them, and the Collector shows only that it was."""
    record = {"body": {"stringValue": "what the bridge heard"}}
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    post_json(f"http://{collector.otlp_http}/v1/logs", body)
    wait_until(lambda: '"log records": 1' in collector.server.log.read_text(), "count of log records")
    assert "what the bridge heard" not in collector.server.log.read_text()


def test_the_collectors_own_figures_are_scraped(prometheus: RunningPrometheus) -> None:
    """Prometheus reaches the Collector's own metrics, so that refused and dropped data can be seen."""
    assert wait_until(lambda: prometheus.api.value('up{job="collector"}'), "scrape of the Collector") == 1


def test_an_expression_that_does_not_parse_is_an_error_with_prometheus_words(prometheus: RunningPrometheus) -> None:
    """A wrong expression is not an empty result: the error has the server's own explanation."""
    with pytest.raises(urllib.error.HTTPError, match="parse error"):
        prometheus.api.query("sum(")
