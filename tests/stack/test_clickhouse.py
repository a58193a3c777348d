"""Call records of real applications, through real Collectors, in ClickHouse's engine: its answers equal the ledger's.

One machine and a fleet, with the files of collector-config as users get them: the Collector's own clickhouse exporter
writes what schema.sql takes in, and each query of queries.sql is asked. Its answers are compared with those of
`tollspan inspect --json`, to the last digit, and with the fake provider's own books.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pytest
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from examples.fake_provider import FakeProvider
from tests.ledger.call_factory import EVERYTHING, FAILED, START, made
from tests.stack import servers
from tests.stack.applications import BIN, run_app, serve_requests
from tests.stack.clickhouse import QUERIES, ClickHouse, running, statements
from tests.stack.processes import free_address, wait_until
from tests.stack.traffic import BUDGETS, REFUSED, provider_settings
from tollspan.ledger.conditions import EVERYTHING as ALL
from tollspan.ledger.queries import Ledger
from tollspan.model.money import usd
from tollspan.model.records import Usage
from tollspan.telemetry.events import Events

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.stack.conftest import Launch
    from tests.stack.servers import RunningCollector, RunningJaeger, RunningPrometheus

CALLS: Final = "clickhouse/calls.yaml"
ARRIVAL_SECONDS: Final = 45.0
REQUESTS: Final = 20
WORKERS: Final = 3
LAUNCHER: Final = "tollspan run"
ASKED: Final = statements(QUERIES.read_text())
PERIOD: Final = {"since": "2026-06-01", "until": "2149-01-01"}
"""From after the made calls on: what the applications have called."""
MADE: Final = {"since": "2026-05-01", "until": "2026-06-01"}


@dataclass(frozen=True, slots=True)
class Books:
    """What the ledger has of the applications, and what the provider counted."""

    ledger: Path
    spend: Decimal
    attempts: int

    def inspect(self, *arguments: str) -> dict[str, Any]:
        """Return what `tollspan inspect --json` tells."""
        command = [str(BIN / "tollspan"), "inspect", "--ledger", str(self.ledger), "--json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    @property
    def rows(self) -> int:
        """Return the number of calls in the ledger."""
        with Ledger(self.ledger) as ledger:
            return ledger.last_n


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    """Return the engine with the tables of schema.sql."""
    with running(tmp_path_factory.mktemp("clickhouse") / "data") as engine:
        yield engine


@pytest.fixture(scope="module")
def onward(jaeger: RunningJaeger, prometheus: RunningPrometheus, clickhouse: ClickHouse) -> dict[str, str]:
    """Return the variables that tell a Collector where everything goes."""
    return {"JAEGER_ADDRESS": jaeger.otlp_grpc, "PROMETHEUS_URL": prometheus.url, "CLICKHOUSE_URL": clickhouse.url}


def _collector(folder: Path, environment: dict[str, str], *files: str) -> RunningCollector:
    host, _, port = free_address().partition(":")
    own = {"COLLECTOR_METRICS_HOST": host, "COLLECTOR_METRICS_PORT": port}
    return servers.collector(folder, {**environment, **own}, *files)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, launch: Launch, onward: dict[str, str]) -> RunningCollector:
    """Return the Collector of one machine, which keeps call records."""
    collector = _collector(tmp_path_factory.mktemp("machine"), onward, "otelcol.yaml", CALLS)
    launch(collector.server)
    return collector


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory, machine: RunningCollector, clickhouse: ClickHouse) -> Books:
    """Run the applications, one of them while ClickHouse is away, and wait until all they called has arrived."""
    folder = tmp_path_factory.mktemp("applications")
    config = folder / "tollspan.toml"
    config.write_text(BUDGETS)
    ledger = folder / "ledger.db"
    with FakeProvider() as provider:
        settings = {
            **machine.exporter_settings("http/protobuf"),
            **provider_settings(provider),
            "TOLLSPAN_EVENTS": "1",
            "TOLLSPAN_LEDGER": str(ledger),
        }
        clickhouse.away = True
        sorts = {**settings, "TOLLSPAN_CONFIG": str(config)}
        run_app(LAUNCHER, "sorts.py", "sorts", folder, sorts, status=REFUSED)
        clickhouse.away = False
        steps = {**settings, **machine.exporter_settings("grpc"), "TOLLSPAN_RUN_ID": "first"}
        run_app("opentelemetry-instrument", "steps.py", "steps", folder, steps)
        serve_requests("web", folder, settings, workers=WORKERS, requests=REQUESTS)
        tally = provider.tally()
    kept = Books(ledger, Decimal(tally["spend_usd"]), tally["attempts"])
    wait_until(lambda: _arrived(clickhouse, PERIOD) >= kept.rows, f"{kept.rows} calls", ARRIVAL_SECONDS)
    return kept


def _arrived(clickhouse: ClickHouse, period: dict[str, str]) -> int:
    sql = "SELECT count() AS calls FROM tollspan.spend WHERE day >= {since:Date} AND day < {until:Date}"
    return int(clickhouse.rows(sql, **period)[0]["calls"])


def _figures(row: dict[str, Any], known: dict[str, Any]) -> dict[str, Decimal]:
    """Return the figures of a row that both sides know."""
    return {name: Decimal(str(row[name])) for name in row if name in known and name not in {"day", "outcome", "error"}}


def test_the_applications_did_what_they_are_there_for(books: Books) -> None:
    """The ledger has every kind of call and of money: nothing below can pass by comparing zeros."""
    total = books.inspect()["total"]
    counted = ("calls", "failed", "denied", "unpriced", "uncertain", "broken", "retries", "cache_read", "cache_write")
    assert [name for name in counted if not total[name]] == []
    assert [name for name in ("cost_usd", "savings_usd", "broken_usd", "retry_usd") if not Decimal(total[name])] == []


def test_every_call_arrived_once(books: Books, clickhouse: ClickHouse) -> None:
    """There is one row for each row of the ledger, denials too, in spite of an outage: by id and by exact cost."""
    with Ledger(books.ledger) as ledger:
        kept = {item.call.id: item.call.cost.amount for item in ledger.each(ALL)}
    rows = clickhouse.rows("SELECT id, cost FROM tollspan.calls FINAL WHERE started_at >= '2026-06-01'")
    assert len(rows) == len(kept)
    assert {row["id"]: row["cost"] for row in rows} == {
        id_: None if amount is None else usd(amount) for id_, amount in kept.items()
    }


def test_the_total_is_the_ledgers(books: Books, clickhouse: ClickHouse) -> None:
    """All figures of `inspect` come out alike, to the last digit, and the attempts are those that the provider saw."""
    (row,) = clickhouse.rows(ASKED["total"], **PERIOD)
    told = books.inspect()["total"]
    assert _figures(row, told) == {name: Decimal(str(value)) for name, value in told.items() if name in row}
    assert row.keys() <= told.keys()
    assert row["calls"] + row["failed"] == books.attempts


@pytest.mark.parametrize(
    ("query", "by", "keys"),
    [
        ("by day", "day", ["day"]),
        ("by provider", "provider", ["provider"]),
        ("by provider, model", "provider,model", ["provider", "model"]),
        ("by session", "session", ["session"]),
        ("by run", "run", ["run"]),
        ("by step of a run", "step", ["step"]),
        ("by user", "user", ["user"]),
        ("by service_tier", "service_tier", ["service_tier"]),
        ("by tag", "tier", ["value"]),
        ("cache", "provider,model", ["provider", "model"]),
        ("money for nothing", "provider,model", ["provider", "model"]),
        ("how calls ended", "outcome,error", ["outcome", "error"]),
    ],
)
def test_each_query_answers_as_inspect_does(
    books: Books, clickhouse: ClickHouse, query: str, by: str, keys: list[str]
) -> None:
    """The groups are the ledger's, and so is every figure in them, to the last digit."""
    of_run = ["--run", "first"] if query == "by step of a run" else []
    rows = clickhouse.rows(ASKED[query], **PERIOD, run="first", tag="tier")
    names = by.split(",")
    told = {tuple(row[name] for name in names): row for row in books.inspect("--by", by, *of_run)["by"]}
    assert {tuple(row[key] for key in keys) for row in rows} == told.keys()
    assert len(rows) == len(told)
    for row in rows:
        known = told[tuple(row[key] for key in keys)]
        figures = _figures({name: value for name, value in row.items() if name not in keys}, known)
        assert figures
        assert figures == {name: Decimal(str(known[name])) for name in figures}


def test_dearest_calls_are_the_ledgers(books: Books, clickhouse: ClickHouse) -> None:
    """The ten dearest cost the same in the same order; among equals either may come first."""
    rows = clickhouse.rows(ASKED["dearest calls"], **PERIOD)
    with Ledger(books.ledger) as ledger:
        dearest = ledger.calls(ALL, 10, most_expensive=True)
        assert [row["cost_usd"] for row in rows] == [usd(item.call.cost.amount or 0) for item in dearest]
        assert all(usd(ledger.call(row["id"])[0].call.cost.amount or 0) == row["cost_usd"] for row in rows)


def test_unpriced_models_are_named(books: Books, clickhouse: ClickHouse) -> None:
    """What has no price is counted by model, as in the ledger."""
    rows = clickhouse.rows(ASKED["unpriced"], **PERIOD)
    told = {row["model"]: row["unpriced"] for row in books.inspect("--by", "model")["by"] if row["unpriced"]}
    assert {row["model"]: row["unpriced"] for row in rows} == told != {}


def test_services_are_told_apart(books: Books, clickhouse: ClickHouse) -> None:
    """A fleet's own question: what each service spent, all of which is the ledger's total."""
    rows = {row["service"]: row for row in clickhouse.rows(ASKED["by service"], **PERIOD)}
    assert rows.keys() >= {"steps", "sorts", "web"}
    assert rows["web"]["calls"] > REQUESTS  # one more for each time it was asked whether it is up
    total = books.inspect()["total"]
    for figure in ("calls", "cost_usd"):
        assert sum(rows[name][figure] for name in ("steps", "sorts", "web")) == Decimal(str(total[figure]))


def test_what_comes_twice_counts_once(books: Books, clickhouse: ClickHouse) -> None:
    """All that the Collector sent, sent again, as when it is killed before it sees the answer: nothing changes."""
    before = clickhouse.rows(ASKED["by provider, model"], **PERIOD)
    assert clickhouse.send_again() > 0
    assert clickhouse.rows(ASKED["by provider, model"], **PERIOD) == before
    assert books.spend > 0


def test_every_field_of_a_call_has_its_column(machine: RunningCollector, clickhouse: ClickHouse) -> None:
    """A call in which each field has a value of its own arrives with all of them.

    A pending call is counted until it is settled; of a result that two machines have told, the earlier one counts.
    """
    asked = made(20, **FAILED | {"pending": True, "outcome": "ok", "error_type": None})
    fetched = made(21, settles=asked.id)
    waiting = replace(asked, id=f"{22:032x}")
    again = replace(fetched, started_at=fetched.started_at + 86_400 * 10**9, cost=EVERYTHING.cost)
    resource = Resource({"service.name": "made", "service.instance.id": "one"})
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    exporter = OTLPLogExporter(endpoint=f"http://{machine.otlp_http}/v1/logs")
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    events = Events(provider.get_logger("tollspan", "1.2.3"), {})
    for call in (EVERYTHING, asked, fetched, waiting, again):
        events.add(call)
    assert provider.force_flush()
    provider.shutdown()
    wait_until(lambda: _arrived(clickhouse, MADE) >= 4, "made calls", ARRIVAL_SECONDS)
    (row,) = clickhouse.rows("SELECT * FROM tollspan.calls FINAL WHERE id = {id:String}", id=EVERYTHING.id)
    assert row == _expected(row.keys())
    (pending,) = clickhouse.rows(ASKED["pending"], **MADE)
    assert pending["waiting"] == 1
    (total,) = clickhouse.rows(ASKED["total"], **MADE)
    assert (total["calls"], total["cost_usd"]) == (2, usd((EVERYTHING.cost.amount or 0) + (fetched.cost.amount or 0)))
    assert clickhouse.rows(ASKED["by day"], since="2026-05-29", until="2026-05-30") == []


def _expected(schema: Iterable[str]) -> dict[str, Any]:
    """Return the row of the made call, whose columns mostly have the names of its fields."""
    call, cost, usage = EVERYTHING, EVERYTHING.cost, EVERYTHING.usage
    assert usage is not None
    assert call.refusal is not None
    main = ("input", "output", "cache_read", "cache_write", "reasoning")
    others = {item.name: getattr(usage, item.name) for item in fields(Usage) if item.name not in {*main, "units"}}
    same = [item.name for item in fields(call) if item.name in schema]
    costs = ("source", "quality", "price_key", "rule", "table_version", "note")
    return {
        **{name: getattr(call, name) for name in same},
        **{name: getattr(cost, name) for name in costs},
        **{name: call.attribution[name] for name in ("session", "user", "run", "step", "agent")},
        **{f"{name}_tokens": getattr(usage, name) for name in main},
        **{name: usd(getattr(cost, name)) for name in ("savings", "computed", "low", "high")},
        "started_at": f"2026-05-28 20:26:{40 + (call.started_at - START) // 10**9}.000000000",
        "first_chunk": call.time_to_first_chunk,
        "first_token": call.time_to_first_token,
        "service": "made",
        "instance": "one",
        "tollspan": "1.2.3",
        "finish_reasons": list(call.finish_reasons),
        "service_tier": call.tier,
        "tags": {key.removeprefix("tag."): value for key, value in call.attribution.items() if key.startswith("tag.")},
        "counts": {name: Decimal(str(count)) for name, count in (others | dict(usage.units)).items()},
        "cost": usd(cost.amount or 0),
        "avoided": usd(call.avoided or 0),
        "breakdown": {kind: usd(part) for kind, part in cost.breakdown.items()},
        "price_labels": list(call.price_labels),
        "missing": list(cost.missing),
        "budget": call.refusal.budget,
        "budget_reason": call.refusal.reason,
        "refusal": json.dumps(call.refusal.as_data()),
        "parts": '[{"kind": "compaction", "model": "m", "usage": {"input": 5, "pages": "0.1"}}]',
    }


def test_users_get_the_branch_that_is_tested(compose: dict[str, Any], clickhouse: ClickHouse) -> None:
    """The server of compose.yaml is of the branch of the engine that answers here."""
    (row,) = clickhouse.rows("SELECT version() AS version")
    _, _, tag = compose["services"]["clickhouse"]["image"].partition(":")
    assert tag.split(".")[:2] == row["version"].split(".")[:2]


def test_a_fleet_keeps_its_calls(
    books: Books,
    clickhouse: ClickHouse,
    onward: dict[str, str],
    launch: Launch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Application, agent, two gateways, ClickHouse: what the service spent is what the provider would bill."""
    assert books.spend > 0
    folder = tmp_path_factory.mktemp("fleet")
    gateways = [
        _collector(tmp_path_factory.mktemp(name), onward, "fleet/gateway.yaml", CALLS) for name in ("one", "two")
    ]
    addresses = json.dumps([gateway.otlp_grpc for gateway in gateways])
    agent = _collector(tmp_path_factory.mktemp("agent"), {"GATEWAYS": addresses}, "fleet/agent.yaml")
    launch(*(gateway.server for gateway in gateways))
    launch(agent.server)
    with FakeProvider() as provider:
        settings = {**agent.exporter_settings("grpc"), **provider_settings(provider), "TOLLSPAN_EVENTS": "1"}
        run_app(LAUNCHER, "steps.py", "of-a-fleet", folder, settings)
        tally = provider.tally()

    def arrived() -> dict[str, Any] | None:
        rows = {row["service"]: row for row in clickhouse.rows(ASKED["by service"], **PERIOD)}
        found = rows.get("of-a-fleet")
        return found if found is not None and found["calls"] >= tally["calls"] else None

    row = wait_until(arrived, "calls of the fleet", ARRIVAL_SECONDS)
    assert row["calls"] == tally["calls"]
    assert row["cost_usd"] == Decimal(tally["spend_usd"])
    for collector in (agent, *gateways):
        collector.server.stop()
