"""The whole chain for real: openai SDK, tollspan, OTLP, Collector, Jaeger and Prometheus, against the provider's books.

The application is unchanged and runs under each launcher and over each protocol. What is read back is compared with
the tally of the fake provider, which imports nothing of tollspan and has its own prices.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from examples.fake_provider import FakeProvider
from tests.stack.applications import LAUNCHERS, run_app
from tests.stack.processes import NotReadyError, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.stack.clients import Span
    from tests.stack.servers import RunningCollector, RunningJaeger, RunningPrometheus

COST = "gen_ai.usage.cost.amount"
INPUT = "gen_ai.usage.input_tokens"
OUTPUT = "gen_ai.usage.output_tokens"
ARRIVAL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Books:
    """What the fake provider counted of one service: see `examples/fake_provider/tally.py`."""

    service: str
    tally: Mapping[str, Any]

    @property
    def attempts(self) -> int:
        """Return the number of requests, those that failed included."""
        return int(self.tally["attempts"])

    @property
    def spend(self) -> float:
        """Return what the provider would bill, in US dollars."""
        return float(Decimal(self.tally["spend_usd"]))

    def tokens(self, kind: str) -> int:
        """Return the sum of the tokens of one kind: "input" or "output"."""
        return sum(row[kind] for row in self.tally["by"])


@pytest.fixture(scope="module", params=["grpc", "http/protobuf"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Return each of the two protocols of OTLP."""
    return str(request.param)


@pytest.fixture(scope="module", params=list(LAUNCHERS))
def books(
    request: pytest.FixtureRequest,
    protocol: str,
    collector: RunningCollector,
    tmp_path_factory: pytest.TempPathFactory,
) -> Books:
    """Run the application once to its end, and give what the provider counted meanwhile."""
    launcher: str = request.param
    service = f"{launcher}-{protocol}".replace(" ", "-").replace("/", "-")
    with FakeProvider() as provider:
        provider.fail_next(429)
        settings = {
            **collector.exporter_settings(protocol),
            "OPENAI_API_KEY": "made-up",
            "OPENAI_BASE_URL": provider.base_url("openai"),
            "TOLLSPAN_HOSTS": f"{provider.netloc}/openai=openai",
        }
        run_app(launcher, "openai_calls.py", service, tmp_path_factory.mktemp(service), settings)
        return Books(service, provider.tally())


@pytest.fixture(scope="module")
def spans(books: Books, jaeger: RunningJaeger) -> list[Span]:
    """Return the inference spans that Jaeger has of the application, once as many are there as there were attempts."""

    def arrived() -> list[Span] | None:
        found = jaeger.api.find_spans(books.service)
        inference = [span for span in found if "gen_ai.operation.name" in span.attributes]
        return inference if len(inference) >= books.attempts else None

    return wait_until(arrived, f"{books.attempts} inference spans of {books.service}", ARRIVAL_SECONDS)


def _settled(prometheus: RunningPrometheus, promql: str, expected: float) -> float | None:
    """Return a figure once it is what is expected, or what it is when the time is up."""

    def figure() -> bool:
        return prometheus.api.value(promql) == pytest.approx(expected)

    with suppress(NotReadyError):  # the caller compares, and shows both figures
        wait_until(figure, promql, ARRIVAL_SECONDS)
    return prometheus.api.value(promql)


def test_the_application_did_what_it_is_there_for(books: Books) -> None:
    """The tally has calls of several models, one failed attempt and money: an empty chain cannot pass for true."""
    assert (books.tally["calls"], books.tally["failed"]) == (7, 1)
    assert len(books.tally["by"]) == len(("gpt-5.5", "gpt-4o-mini", "gpt-5.4-mini", "text-embedding-3-small"))
    assert books.spend > 0


def test_each_attempt_is_one_span(books: Books, spans: list[Span]) -> None:
    """Jaeger has exactly one inference span for each request that was made, the one that failed included."""
    assert len(spans) == books.attempts
    assert {span.kind for span in spans} == {"client"}


def test_only_the_failed_attempt_is_an_error(spans: list[Span]) -> None:
    """The span of the 429 is in error, and no other: a stream that the SDK read to its last event has ended well."""
    failed = [span for span in spans if span.status == "ERROR" or "error.type" in span.attributes]
    assert [span.attributes["http.response.status_code"] for span in failed] == [429]
    assert all(span.status == "ERROR" and span.attributes["error.type"] for span in failed)


def test_tokens_in_jaeger_are_the_providers(books: Books, spans: list[Span]) -> None:
    """The tokens on the spans, added up by served model, are those that the provider counted."""
    assert _by_model(spans, INPUT) == {row["model"]: row["input"] for row in books.tally["by"]}
    assert _by_model(spans, OUTPUT) == {row["model"]: row["output"] for row in books.tally["by"] if row["output"]}


def test_cost_in_jaeger_is_the_providers(books: Books, spans: list[Span]) -> None:
    """The cost on the spans, added up by served model, is what the provider would bill; the failed attempt has none."""
    expected = {row["model"]: pytest.approx(float(row["cost_usd"])) for row in books.tally["by"]}
    assert _by_model(spans, COST) == expected
    priced = [span for span in spans if COST in span.attributes]
    assert len(priced) == books.tally["calls"]
    assert {span.attributes["gen_ai.usage.cost.currency"] for span in priced} == {"USD"}


def _by_model(spans: list[Span], attribute: str) -> dict[str, float]:
    """Add up an attribute of the spans that have it, by the model served; a sum of zero is left out."""
    sums: dict[str, float] = {}
    for span in spans:
        model, value = span.attributes.get("gen_ai.response.model"), span.attributes.get(attribute)
        if isinstance(model, str) and isinstance(value, int | float) and value:
            sums[model] = sums.get(model, 0) + value
    return sums


@pytest.mark.parametrize(
    ("promql", "figure"),
    [
        ("tollspan_spend_total{}", "spend"),
        ("tollspan_calls_total{}", "attempts"),
        ("gen_ai_client_operation_cost_sum{}", "spend"),
        ("gen_ai_client_operation_duration_seconds_count{}", "attempts"),
        ('gen_ai_client_token_usage_sum{gen_ai_token_type="input"}', "input"),
        ('gen_ai_client_token_usage_sum{gen_ai_token_type="output"}', "output"),
    ],
)
def test_figures_in_prometheus_are_the_providers(
    books: Books, prometheus: RunningPrometheus, promql: str, figure: str
) -> None:
    """Each counter and histogram in Prometheus, summed over its labels, is the provider's own figure."""
    expected = {
        "attempts": books.attempts,
        "spend": books.spend,
        "input": books.tokens("input"),
        "output": books.tokens("output"),
    }[figure]
    chosen = promql.replace("{", f'{{job="{books.service}",', 1)
    assert _settled(prometheus, f"sum({chosen})", expected) == pytest.approx(expected)


def test_spend_by_model_in_prometheus_is_the_providers(books: Books, prometheus: RunningPrometheus) -> None:
    """The spend counter tells the models apart as the provider's books do."""
    promql = f'sum by (gen_ai_response_model) (tollspan_spend_total{{job="{books.service}"}}) > 0'
    found = wait_until(lambda: prometheus.api.query(promql), promql, ARRIVAL_SECONDS)
    expected = {row["model"]: pytest.approx(float(row["cost_usd"])) for row in books.tally["by"]}
    assert {sample.labels["gen_ai_response_model"]: sample.value for sample in found} == expected


def test_a_script_that_ended_counts_in_increase(books: Books, prometheus: RunningPrometheus) -> None:
    """What an application that lived for seconds has spent is in increase(), which dashboards and alerts read."""
    promql = f'sum(increase(tollspan_spend_total{{job="{books.service}"}}[5m] anchored))'
    assert _settled(prometheus, promql, books.spend) == pytest.approx(books.spend)


def test_an_exemplar_of_a_cost_opens_its_call(
    books: Books, spans: list[Span], jaeger: RunningJaeger, prometheus: RunningPrometheus
) -> None:
    """From the histogram of costs there is a way to the trace of a call that cost so much."""
    promql = f'gen_ai_client_operation_cost_bucket{{job="{books.service}"}}'
    now = time.time()
    exemplars = wait_until(lambda: prometheus.api.exemplars(promql, now - 600, now + 600), "exemplar", ARRIVAL_SECONDS)
    costs = {span.span_id: span.attributes.get(COST) for span in spans}
    for exemplar in exemplars:
        assert exemplar.value == pytest.approx(costs[exemplar.labels["span_id"]])
        assert exemplar.labels["span_id"] in {span.span_id for span in jaeger.api.trace(exemplar.labels["trace_id"])}
