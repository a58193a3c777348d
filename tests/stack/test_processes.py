"""Applications that end soon, or fork: Prometheus has what the ledger keeps, which is what the provider would bill."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import pytest

from examples.fake_provider import FakeProvider
from tests.stack.applications import LAUNCHERS, run_app, serve_requests
from tests.stack.processes import NotReadyError, wait_until
from tests.stack.traffic import provider_settings
from tollspan.ledger.queries import Ledger
from tollspan.model.money import usd

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stack.servers import RunningCollector, RunningJaeger, RunningPrometheus

ARRIVAL_SECONDS: Final = 30.0
WORKERS: Final = 4
REQUESTS: Final = 80
RUNS: Final = 3


@dataclass(frozen=True, slots=True)
class Books:
    """What the provider counted, and what the ledger has."""

    attempts: int
    spend: Decimal
    kept: Decimal
    calls: int


def _books(provider: FakeProvider, ledger: Path) -> Books:
    tally = provider.tally()
    with Ledger(ledger) as opened:
        figures = opened.figures()
    return Books(tally["attempts"], Decimal(tally["spend_usd"]), usd(figures.spend), figures.calls)


def _settled(prometheus: RunningPrometheus, promql: str, expected: float) -> float | None:
    """Return a figure once it is what is expected, or what it is when the time is up."""
    with suppress(NotReadyError):  # the caller compares, and shows both figures
        wait_until(lambda: prometheus.api.value(promql) == pytest.approx(expected), promql, ARRIVAL_SECONDS)
    return prometheus.api.value(promql)


def _check(service: str, books: Books, prometheus: RunningPrometheus) -> None:
    """Compare counter, increase, ledger and provider."""
    assert books.kept == books.spend
    assert books.calls == books.attempts
    spend = float(books.kept)
    assert _settled(prometheus, f'sum(tollspan_spend_total{{job="{service}"}})', spend) == pytest.approx(spend)
    increase = f'sum(increase(tollspan_spend_total{{job="{service}"}}[5m] anchored))'
    assert _settled(prometheus, increase, spend) == pytest.approx(spend)
    calls = f'sum(increase(tollspan_calls_total{{job="{service}"}}[5m] anchored))'
    assert _settled(prometheus, calls, books.attempts) == pytest.approx(books.attempts)


@pytest.mark.parametrize("launcher", list(LAUNCHERS))
def test_scripts_that_ask_once(
    launcher: str, collector: RunningCollector, prometheus: RunningPrometheus, tmp_path: Path
) -> None:
    """Three runs of a script that asks once: three times its price in Prometheus, in the ledger and in the tally."""
    service = f"once-{launcher}".replace(" ", "-")
    with FakeProvider() as provider:
        ledger = tmp_path / "ledger.db"
        settings = {
            **collector.exporter_settings("http/protobuf"),
            **provider_settings(provider),
            "TOLLSPAN_LEDGER": str(ledger),
        }
        for _ in range(RUNS):
            run_app(launcher, "one_call.py", service, tmp_path, settings)
        books = _books(provider, ledger)
    assert books.attempts == RUNS
    _check(service, books, prometheus)


@pytest.mark.parametrize("interval", ["60000", "300"], ids=["reported at the end", "reported all the time"])
def test_workers_that_gunicorn_forks(
    interval: str, collector: RunningCollector, prometheus: RunningPrometheus, jaeger: RunningJaeger, tmp_path: Path
) -> None:
    """`gunicorn --preload -w 4`: Prometheus has of all workers what the ledger keeps, and Jaeger every span."""
    service = f"gunicorn-{interval}"
    with FakeProvider() as provider:
        ledger = tmp_path / "ledger.db"
        settings = {
            **collector.exporter_settings("http/protobuf"),
            **provider_settings(provider),
            "OTEL_METRIC_EXPORT_INTERVAL": interval,
            "TOLLSPAN_LEDGER": str(ledger),
        }
        answered = serve_requests(service, tmp_path, settings, workers=WORKERS, requests=REQUESTS)
        books = _books(provider, ledger)
    assert len(answered) > 1
    assert books.attempts > REQUESTS  # the question whether it is up was one too
    _check(service, books, prometheus)
    wanted = f"{books.attempts} spans of {service}"
    wait_until(lambda: len(jaeger.api.find_spans(service)) >= books.attempts, wanted, ARRIVAL_SECONDS)
    spans = jaeger.api.find_spans(service)
    assert len([span for span in spans if "gen_ai.operation.name" in span.attributes]) == books.attempts
