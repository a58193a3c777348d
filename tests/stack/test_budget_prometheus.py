"""Budgets over what a fleet has exported: all but the provider are real, and the provider's books judge."""

from __future__ import annotations

import time
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pytest

from examples.fake_provider import FakeProvider
from tests.stack.applications import run_app
from tests.stack.processes import wait_until
from tests.stack.traffic import provider_settings
from tollspan.budget.policy.budget import parse_tables
from tollspan.budget.stores.prometheus import PrometheusStore
from tollspan.budget.stores.prometheus_queries import difference, increase
from tollspan.model.money import usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.stack.servers import RunningCollector, RunningPrometheus

ARRIVAL_SECONDS: Final = 30.0
SERVICE: Final = "counted-by-prometheus"
LAUNCHER: Final = "tollspan run"
REFUSED: Final = 40
"""How `tollspan run` ends where a budget refused a call."""
RUNS: Final = 2


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    """Start a fake provider."""
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
def settings(provider: FakeProvider, collector: RunningCollector) -> Mapping[str, str]:
    """Return what an application of the fleet is started with."""
    exporting = collector.exporter_settings("http/protobuf")
    who = {"TOLLSPAN_METRIC_ATTRIBUTES": "user", "OTEL_METRIC_EXPORT_INTERVAL": "60000"}
    return {**exporting, **provider_settings(provider), **who}


@pytest.fixture(scope="module")
def tally(
    provider: FakeProvider,
    settings: Mapping[str, str],
    prometheus: RunningPrometheus,
    tmp_path_factory: pytest.TempPathFactory,
) -> Mapping[str, Any]:
    """Run two applications of a fleet, one after the other, and give what the provider counted once it has arrived."""
    for _ in range(RUNS):
        run_app(LAUNCHER, "openai_calls.py", SERVICE, tmp_path_factory.mktemp("fleet"), settings)
    counted: Mapping[str, Any] = provider.tally()
    spent = pytest.approx(float(Decimal(counted["spend_usd"])))
    promql = f'sum(tollspan_spend_total{{job="{SERVICE}"}})'
    wait_until(lambda: prometheus.api.value(promql) == spent, promql, ARRIVAL_SECONDS)
    return counted


def budget_store(prometheus: RunningPrometheus, service: str = SERVICE) -> str:
    """Return the setting for the budgets of a fleet."""
    return f'{prometheus.url}?select=job="{service}"'


def test_counters_are_the_providers_books(prometheus: RunningPrometheus, tally: Mapping[str, Any]) -> None:
    """Dollars, tokens and calls of ended processes are what the provider counted, in all and by model."""
    tables = [
        {"name": "usd", "limit": "5 USD", "period": "rolling 1h"},
        {"name": "tokens", "limit": "1000000 tokens", "period": "rolling 1h"},
        {"name": "calls", "limit": "1000 calls", "period": "rolling 1h"},
        *(
            {
                "name": row["model"],
                "limit": "5 USD",
                "period": "rolling 1h",
                "match": {"model": f"{row['model'][:-1]}*"},
            }
            for row in tally["by"]
        ),
    ]
    with closing(PrometheusStore(budget_store(prometheus), parse_tables(tables))) as store:
        counters = store.counters(time.time())
    found = {counter.name: counter.spent for counter in counters}
    assert found.pop("calls") == tally["attempts"]
    assert found.pop("tokens") == sum(row["input"] + row["output"] for row in tally["by"])
    dollars = {name: float(usd(spent)) for name, spent in found.items()}
    expected = {row["model"]: float(row["cost_usd"]) for row in tally["by"]}
    assert dollars == pytest.approx({"usd": float(tally["spend_usd"]), **expected})
    assert all(counter.as_of is not None and time.time() - counter.as_of < ARRIVAL_SECONDS * 4 for counter in counters)


@pytest.mark.usefixtures("tally")
def test_both_questions_have_one_answer(prometheus: RunningPrometheus) -> None:
    """A Prometheus without extended range selectors is asked in another way, and says the same."""
    now = time.time()
    series = f'tollspan_spend_total{{job="{SERVICE}"}}'
    labels = ["gen_ai_response_model", "gen_ai_operation_name"]
    exact, plain = (
        {tuple(sorted(sample.labels.items())): sample.value for sample in prometheus.api.query(ask)}
        for ask in (increase(series, labels, now - 3000, now), difference(series, labels, now - 3000, now))
    )
    assert len(exact) > 1
    assert plain == pytest.approx(exact)


def test_a_fleet_that_has_spent_it_all_refuses(
    provider: FakeProvider,
    settings: Mapping[str, str],
    prometheus: RunningPrometheus,
    tally: Mapping[str, Any],
    tmp_path: Path,
) -> None:
    """A process that has spent nothing is refused, because others have: no request leaves."""
    limited = {
        **settings,
        "TOLLSPAN_BUDGET": f"{tally['spend_usd']} USD/rolling 1h",
        "TOLLSPAN_BUDGET_STORE": f"prometheus:{budget_store(prometheus)}&deadline=30",
    }
    run_app(LAUNCHER, "tolerant.py", "refused-by-the-fleet", tmp_path, limited, status=REFUSED)
    assert provider.tally()["attempts"] == tally["attempts"]


@pytest.mark.usefixtures("tally")
def test_own_spending_is_not_waited_for(
    provider: FakeProvider, settings: Mapping[str, str], prometheus: RunningPrometheus, tmp_path: Path
) -> None:
    """A process stops at the limit though it exports only at its end: it adds what it has spent since the answer."""
    before = provider.tally()["attempts"]
    limited = {
        **settings,
        "TOLLSPAN_BUDGET": "3 calls/rolling 1h",
        "TOLLSPAN_BUDGET_STORE": f"prometheus:{budget_store(prometheus, 'new-fleet')}&deadline=30",
    }
    run_app(LAUNCHER, "tolerant.py", "new-fleet", tmp_path, limited, status=REFUSED)
    assert provider.tally()["attempts"] - before == 3
    promql = 'sum(tollspan_calls_total{job="new-fleet",tollspan_outcome!="denied"})'
    wait_until(lambda: prometheus.api.value(promql) == 3, promql, ARRIVAL_SECONDS)
