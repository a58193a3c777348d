"""A fleet's Collectors: an agent that masks content and spreads traces, two gateways that decide what is kept.

The traces are made here, span by span, so that each has one reason to be kept or none; the share of the others that
is kept besides is set to nothing.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from examples.fake_provider import FakeProvider
from tests.stack import servers
from tests.stack.applications import run_app
from tests.stack.clients import post_json
from tests.stack.processes import free_address, wait_until
from tests.stack.traffic import provider_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stack.conftest import Launch
    from tests.stack.servers import RunningCollector, RunningJaeger, RunningPrometheus

ARRIVAL_SECONDS: Final = 30.0
ERROR: Final = {"code": 2}
SECRET: Final = "the bridge is not for sale"
KEY: Final = "sk-made-up-0123456789abcdef"  # no key: it opens nothing

CHEAP: Final = {"gen_ai.usage.cost.amount": 0.001, "tollspan.outcome": "ok", "tollspan.cost.quality": "measured"}
KEPT: Final[dict[str, dict[str, Any]]] = {
    "dear": {**CHEAP, "gen_ai.usage.cost.amount": 0.25},
    "failed": {"tollspan.outcome": "error", "error.type": "server_error"},
    "aborted": {**CHEAP, "tollspan.outcome": "aborted"},
    "denied": {"tollspan.outcome": "denied", "error.type": "budget_exceeded"},
    "unpriced": {"tollspan.outcome": "ok", "tollspan.cost.quality": "unpriced"},
    "retry": {**CHEAP, "http.request.resend_count": 1},
    "slow": {**CHEAP, "tollspan.time_to_first_token": 12.5},
}
"""A span's attributes, by the reason to keep its trace."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """An agent and the gateways behind it."""

    agent: RunningCollector
    gateways: tuple[RunningCollector, ...]

    def send(self, service: str, *spans: dict[str, Any]) -> None:
        """Send spans to the agent, as an application does."""
        resource = {"attributes": _attributes({"service.name": service})}
        body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]}
        post_json(f"http://{self.agent.otlp_http}/v1/traces", body)


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, launch: Launch, jaeger: RunningJaeger, prometheus: RunningPrometheus
) -> Iterator[Fleet]:
    """Return an agent and two gateways with the files of collector-config/fleet."""
    onward = {
        "JAEGER_ADDRESS": jaeger.otlp_grpc,
        "PROMETHEUS_URL": prometheus.url,
        "SHARE_PERCENT": "0",
        "DECISION_WAIT": "20s",
        "DECISION_WAIT_AFTER_ROOT": "1s",
    }
    gateways = tuple(_collector(tmp_path_factory.mktemp(name), onward, "gateway") for name in ("one", "two"))
    addresses = json.dumps([gateway.otlp_grpc for gateway in gateways])
    agent = _collector(tmp_path_factory.mktemp("agent"), {"GATEWAYS": addresses}, "agent")
    launch(*(gateway.server for gateway in gateways))
    launch(agent.server)
    yield Fleet(agent, gateways)
    for collector in (agent, *gateways):
        collector.server.stop()


def _collector(folder: Path, environment: dict[str, str], name: str) -> RunningCollector:
    host, _, port = free_address().partition(":")
    own = {"COLLECTOR_METRICS_HOST": host, "COLLECTOR_METRICS_PORT": port}
    return servers.collector(folder, {**environment, **own}, f"fleet/{name}.yaml")


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = {str: "stringValue", float: "doubleValue", int: "intValue"}
    return [{"key": key, "value": {kinds[type(value)]: value}} for key, value in values.items()]


def _span(attributes: dict[str, Any], trace: str, parent: str = "", **more: Any) -> dict[str, Any]:
    now = time.time_ns()
    return {
        "traceId": trace,
        "spanId": secrets.token_hex(8),
        "parentSpanId": parent,
        "name": "chat gpt-5.5",
        "kind": 3,
        "startTimeUnixNano": str(now - 10**9),
        "endTimeUnixNano": str(now),
        "attributes": _attributes(attributes),
        **more,
    }


def _trace_id() -> str:
    return secrets.token_hex(16)


def test_calls_that_matter_are_kept_and_the_others_are_not(fleet: Fleet, jaeger: RunningJaeger) -> None:
    """Each reason alone keeps its trace; of fifty cheap calls that ended well, none is kept."""
    for reason, attributes in KEPT.items():
        more: dict[str, Any] = {"status": ERROR} if reason == "failed" else {}
        fleet.send(f"sampled-{reason}", _span(attributes, _trace_id(), **more))
    for _ in range(50):
        fleet.send("sampled-cheap", _span(CHEAP, _trace_id()))
    # Sent last, and kept: when it has come through both gateways, the cheap ones before it have too.
    for _ in range(20):
        fleet.send("sampled-last", _span(KEPT["dear"], _trace_id()))
    for reason in KEPT:
        service = f"sampled-{reason}"
        (span,) = wait_until(lambda: jaeger.api.find_spans(service), service, ARRIVAL_SECONDS)  # noqa: B023 - at once
        assert span.name == "chat gpt-5.5"
    wait_until(lambda: len(jaeger.api.find_spans("sampled-last")) == 20, "the last ones", ARRIVAL_SECONDS)
    assert jaeger.api.find_spans("sampled-cheap") == []


def test_a_trace_is_kept_whole(fleet: Fleet, jaeger: RunningJaeger) -> None:
    """A dear call that comes after a cheap one of its trace takes it along, though they were sent apart."""
    trace = _trace_id()
    fleet.send("whole", _span(CHEAP, trace, parent="aa" * 8))
    fleet.send("whole-later", _span(KEPT["dear"], trace, parent="aa" * 8))
    fleet.send("whole", _span(CHEAP, trace))
    wait_until(lambda: len(jaeger.api.trace(trace)) == 3, "trace of three spans", ARRIVAL_SECONDS)
    spans = jaeger.api.trace(trace)
    assert {span.service for span in spans} == {"whole", "whole-later"}


def test_content_does_not_leave_the_host(fleet: Fleet, jaeger: RunningJaeger) -> None:
    """Prompts, answers and keys, in attributes and in events of whichever convention, are masked behind the agent."""
    content = {
        "gen_ai.input.messages": SECRET,
        "gen_ai.output.messages": SECRET,
        "gen_ai.system_instructions": SECRET,
        "gen_ai.tool.call.arguments": SECRET,
        "gen_ai.prompt.0.content": SECRET,
        "llm.input_messages.0.message.content": SECRET,
        "input.value": SECRET,
        "traceloop.entity.output": SECRET,
        "langfuse.observation.input": SECRET,
        "url.full": f"https://provider.example/v1?key={KEY}",
        "http.request.header.authorization": f"Bearer {KEY}",
    }
    event = {"name": "gen_ai.user.message", "timeUnixNano": "1", "attributes": _attributes({"content": SECRET})}
    trace = _trace_id()
    fleet.send("masked", _span({**KEPT["dear"], **content, "gen_ai.request.model": "gpt-5.5"}, trace, events=[event]))
    (span,) = wait_until(lambda: jaeger.api.find_spans("masked"), "masked", ARRIVAL_SECONDS)
    raw = json.dumps(jaeger.api.raw(trace))
    assert SECRET not in raw
    assert KEY not in raw
    assert span.attributes["gen_ai.request.model"] == "gpt-5.5"
    assert content.keys() <= span.attributes.keys()


def test_counters_are_whole_whatever_is_sampled_and_whoever_is_killed(
    fleet: Fleet, prometheus: RunningPrometheus, tmp_path: Path
) -> None:
    """What an application reports to the agent is in Prometheus, though a gateway, and then the agent, are killed."""
    with FakeProvider() as provider:
        settings = {**fleet.agent.exporter_settings("grpc"), **provider_settings(provider)}
        for gateway in fleet.gateways:
            gateway.server.kill()
        run_app("tollspan run", "openai_calls.py", "fleet", tmp_path, settings)
        tally = provider.tally()
    fleet.agent.server.kill()
    for collector in (*fleet.gateways, fleet.agent):
        collector.server.start()
    for collector in (*fleet.gateways, fleet.agent):
        collector.server.wait_ready()
    promql = 'sum(tollspan_spend_total{job="fleet"})'
    wait_until(lambda: prometheus.api.value(promql), promql, ARRIVAL_SECONDS)
    assert prometheus.api.value(promql) == pytest.approx(float(tally["spend_usd"]))
    increase = 'sum(increase(tollspan_calls_total{job="fleet"}[5m] anchored))'
    assert prometheus.api.value(increase) == pytest.approx(tally["attempts"])
