"""Dashboards and rules on real data: an application makes every kind of call, and every query has an answer.

Grafana itself is not run: what it would send is sent in its place, with its variables put in.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest

from tests.stack import boards, builds, servers
from tests.stack.builds import PROMETHEUS
from tests.stack.processes import NotReadyError, wait_until
from tests.stack.traffic import Traffic, make_traffic

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stack.boards import Target
    from tests.stack.clients import Rule
    from tests.stack.servers import RunningCollector, RunningJaeger, RunningPrometheus
    from tests.stack.webhook import Webhook

ARRIVAL_SECONDS: Final = 30.0
COST: Final = "gen_ai.usage.cost.amount"

LIVE: Final = boards.targets("prometheus")
SEARCHES: Final = boards.targets("jaeger")

# What stands after one of these is a threshold; `bool` lets the figure through whatever the threshold says of it.
_COMPARISON: Final = re.compile(r"(?<![=!<>~])(>=|<=|==|!=|>|<)(?= )")


def without_thresholds(promql: str) -> str:
    """Return an alert's expression with the comparisons made to answer 0 or 1, and so to answer at all."""
    return _COMPARISON.sub(r"\1 bool", promql)


@pytest.fixture(scope="module")
def traffic(collector: RunningCollector, tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    """Return what the provider counted of an application that made every kind of call."""
    return make_traffic(collector, tmp_path_factory.mktemp("traffic"))


@pytest.fixture(scope="module")
def moment(traffic: Traffic, prometheus: RunningPrometheus) -> float:
    """Return a moment, in Unix seconds, when everything has arrived and every rule has been evaluated since."""

    def arrived() -> bool:
        calls = prometheus.api.value(f'sum(tollspan_calls_total{{job="{traffic.service}"}})')
        return calls is not None and calls == attempts

    def both_arrived() -> bool:
        # The last application to run, without a budget store, is another service than the one whose calls are counted.
        return prometheus.api.value("sum(increase(tollspan_budget_store_errors_total[5m] anchored))") is not None

    def evaluated() -> bool:
        calls = prometheus.api.value(f'sum(tollspan:calls:increase5m{{job="{traffic.service}"}})')
        return calls is not None and bool(calls == pytest.approx(attempts))

    attempts = (
        int(traffic.tally["attempts"]) + 1
    )  # a call that a budget denied is counted, and never reached the provider
    wait_until(arrived, f"{attempts} calls of {traffic.service}", ARRIVAL_SECONDS)
    wait_until(both_arrived, f"counters of {traffic.service}-without-store", ARRIVAL_SECONDS)
    wait_until(evaluated, "evaluation of the rules", ARRIVAL_SECONDS)
    return time.time() + 1  # the alerts' own round of evaluation comes within a second


def test_the_application_did_everything(traffic: Traffic) -> None:
    """The provider has calls in full, failed ones and ones that broke off: no query below can answer by chance."""
    tally = traffic.tally
    assert (tally["failed"], tally["partial"]) == (5, 2)
    assert {row["provider"] for row in tally["by"]} == {"anthropic", "openai"}
    assert [row["model"] for row in tally["by"] if row["cost_usd"] is None] == ["gpt-99-made-up"]
    assert sum(row["cache_read"] for row in tally["by"]) > 0


@pytest.mark.parametrize("target", LIVE, ids=str)
def test_each_query_of_each_dashboard_has_an_answer(
    target: Target, moment: float, prometheus: RunningPrometheus
) -> None:
    """Prometheus parses the expression, and gives at least one figure, none of which is not a number."""
    samples = prometheus.api.query(target.promql, moment)
    assert samples
    assert [sample for sample in samples if sample.value != sample.value] == []


@pytest.mark.parametrize(("selector", "label"), boards.label_values())
def test_each_choice_has_something_to_choose(
    selector: str, label: str, moment: float, prometheus: RunningPrometheus
) -> None:
    """Each variable of a dashboard finds series, and every one of them has the label whose values are offered."""
    samples = prometheus.api.query(selector, moment)
    assert samples
    assert all(sample.labels.get(label) for sample in samples)


@pytest.mark.parametrize("label", boards.splits())
def test_spend_can_be_split(label: str, traffic: Traffic, moment: float, prometheus: RunningPrometheus) -> None:
    """Each label that is offered to split spend by is on the application's series: service, user, tag and others."""
    (panel,) = [target for target in LIVE if target.panel == "By $split"]
    promql = boards.put_in(panel.query["expr"].replace("$split", label).replace("$service", traffic.service))
    samples = prometheus.api.query(promql, moment)
    assert [sample for sample in samples if sample.labels.get(label) and sample.value > 0]


@pytest.mark.parametrize("target", SEARCHES, ids=str)
def test_each_search_of_the_call_explorer_finds_a_trace(
    target: Target, traffic: Traffic, moment: float, jaeger: RunningJaeger
) -> None:
    """What Grafana would ask of Jaeger finds traces of the application."""
    del moment
    tags = target.query["tags"]
    assert wait_until(lambda: jaeger.api.search(traffic.service, tags), f"trace with {tags}", ARRIVAL_SECONDS)


@pytest.mark.parametrize("kind", ["record", "alert"])
def test_each_rule_is_evaluated_and_has_data(kind: str, moment: float, prometheus: RunningPrometheus) -> None:
    """Prometheus evaluates every rule without an error, and its expression gives figures, thresholds aside."""
    rules = prometheus.api.rules(kind)
    assert rules
    assert [(rule.name, rule.error) for rule in rules if rule.health != "ok"] == []
    assert [rule.name for rule in rules if not prometheus.api.query(_asked(rule, kind), moment)] == []


def _asked(rule: Rule, kind: str) -> str:
    return without_thresholds(rule.query) if kind == "alert" else rule.query


def test_labels_in_queries_are_those_of_series(traffic: Traffic, prometheus: RunningPrometheus) -> None:
    """Every label that a query groups by or a legend shows is one that series have; a misspelt one would be empty."""
    del traffic
    texts = [f"{target.promql} {target.query.get('legendFormat', '')}" for target in LIVE]
    texts += [rule.query for kind in ("record", "alert") for rule in prometheus.api.rules(kind)]
    groups = [group for text in texts for group in re.findall(r"\b(?:by|on) ?\(([^)]*)\)", text)]
    grouped = {label for group in groups for label in re.findall(r"\w+", group)}
    shown = {label for text in texts for label in re.findall(r"\{\{(\w+)\}\}", text)}
    assert grouped | shown <= prometheus.api.labels()


def test_spend_on_the_dashboard_is_the_providers(
    traffic: Traffic, moment: float, prometheus: RunningPrometheus
) -> None:
    """The panel of spend shows what the provider would bill for calls in full, and our estimate for those cut short."""
    (panel,) = [target for target in LIVE if target.panel == "In the dashboard's time"]
    promql = panel.promql.replace('job=~".*"', f'job="{traffic.service}"')
    broken = promql.replace("_spend_", "_failed_spend_")
    spent, failed = (prometheus.api.query(asked, moment)[0].value for asked in (promql, broken))
    assert spent - failed == pytest.approx(float(traffic.tally["spend_usd"]))
    assert failed > 0


def test_an_exemplar_of_a_dear_call_opens_its_trace(
    traffic: Traffic, moment: float, prometheus: RunningPrometheus, jaeger: RunningJaeger
) -> None:
    """From the panel of costs there is a way to the trace of the dearest call, which says what it cost."""
    (panel,) = [target for target in LIVE if target.panel == "Cost of each call"]
    assert panel.query["exemplar"]
    promql = panel.promql.replace('job=~".*"', f'job="{traffic.service}"')
    exemplars = prometheus.api.exemplars(promql, moment - 600, moment)
    dearest = max(exemplars, key=lambda exemplar: exemplar.value)
    assert dearest.value > 0.1
    (span,) = [s for s in jaeger.api.trace(dearest.labels["trace_id"]) if s.span_id == dearest.labels["span_id"]]
    assert span.attributes[COST] == pytest.approx(dearest.value)


@pytest.mark.parametrize(
    ("alert", "labels"),
    [
        ("BudgetSpent", {"tollspan_budget_name": "embeddings", "severity": "page"}),
        ("BudgetStoreErrors", {"job": "all-kinds-without-store"}),
        ("UnpricedModel", {"gen_ai_response_model": "gpt-99-made-up", "severity": "ticket"}),
        ("TollspanInternalErrors", {"tollspan_kind": "subscriber:RuntimeError"}),
    ],
)
def test_an_alert_reaches_the_webhook(alert: str, labels: dict[str, str], moment: float, webhook: Webhook) -> None:
    """What happened in the application fires an alert of the very rules, which comes through Alertmanager."""
    del moment

    def told() -> bool:
        return any(labels.items() <= each["labels"].items() for each in webhook.named(alert))

    with suppress(NotReadyError):
        wait_until(told, alert, ARRIVAL_SECONDS)
    assert told(), webhook.alerts
    (first, *_) = webhook.named(alert)
    assert first["status"] == "firing"
    assert "RUNBOOK.md#" in first["annotations"]["runbook"]


def test_the_dashboards_are_what_the_code_makes() -> None:
    """The JSON files are those that `python -m dashboards` writes, which the SDK's types have checked."""
    done = subprocess.run(
        [sys.executable, "-m", "dashboards", "--check"], cwd=servers.CONFIG, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_rules_pass_their_tests() -> None:
    """`promtool test rules`: each alert fires where it should, and stays silent where it should."""
    tests = sorted((servers.CONFIG / "rules" / "tests").glob("*.yml"))
    assert tests
    command: list[str | Path] = [builds.executables(PROMETHEUS) / "promtool", servers.FEATURES, "test", "rules", *tests]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tested_both_ways(prometheus: RunningPrometheus) -> None:
    """The rule tests have, for every alert, a moment when it fires and one when it stays silent."""
    text = "\n".join(path.read_text() for path in (servers.CONFIG / "rules" / "tests").glob("*.yml"))
    fires = set(re.findall(r"alertname: (\w+)\n +exp_alerts:\n", text))
    silent = set(re.findall(r"alertname: (\w+) \}", text))
    alerts = {rule.name for rule in prometheus.api.rules("alert")}
    assert fires == alerts
    assert silent == alerts


def test_each_alert_has_its_section_in_the_runbook(prometheus: RunningPrometheus) -> None:
    """Every alert says in words what to do, and where more is written; the runbook has a section for it alone."""
    sections = re.findall(r"^## (\w+)$", (servers.CONFIG / "RUNBOOK.md").read_text(), re.MULTILINE)
    alerts = prometheus.api.rules("alert")
    assert sorted(sections) == sorted(rule.name for rule in alerts)
    for rule in alerts:
        assert {"summary", "description", "runbook"} <= rule.annotations.keys()
        assert rule.annotations["runbook"].endswith(f"RUNBOOK.md#{rule.name.lower()}")
