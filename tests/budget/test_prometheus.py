"""Budgets over a fleet's counters in Prometheus: queries, what is added to them, and figures that are too old."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.budget.contract import DOLLAR, NOW, UNTIL, StoreContract, amounts, update
from tests.budget.prometheus_api import PrometheusApi
from tollspan.budget.bounds import Bounds, RequestShape
from tollspan.budget.denials.denial import Denial
from tollspan.budget.guard import Guard
from tollspan.budget.policy.budget import parse_tables
from tollspan.budget.request import BudgetRequest, Grant
from tollspan.budget.stores import Charge, CounterState, CounterUpdate, StoreError
from tollspan.budget.stores.opening import store_of
from tollspan.budget.stores.prometheus import PrometheusStore
from tollspan.budget.stores.prometheus_queries import LABELS
from tollspan.model.errors import SettingsError
from tollspan.model.records import Call, Cost, Facts
from tollspan.prices import bundled
from tollspan.telemetry import names
from tollspan.telemetry.spans import ATTRIBUTION_ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tollspan.budget.stores import Store

CENT = 10**16
TODAY = "daily/2026-09-21"


@pytest.fixture
def api() -> Iterator[PrometheusApi]:
    """Return a made Prometheus that has nothing."""
    with PrometheusApi() as made:
        made.newest = NOW
        yield made


@pytest.fixture
def opened(api: PrometheusApi) -> Iterator[Callable[..., PrometheusStore]]:
    """Open stores on the made Prometheus, and close them at the end; the clock is what the test says."""
    stores = []

    def open_(*tables: dict[str, Any], now: list[float] | None = None, options: str = "") -> PrometheusStore:
        budgets = parse_tables(tables or [{"name": "daily", "limit": "5 USD", "period": "day"}])
        clock = now or [NOW]
        store = PrometheusStore(f"{api.url}?refresh=3600&deadline=30{options}", budgets, lambda: clock[0])
        stores.append(store)
        return store

    yield open_
    for store in stores:
        store.close()


def read_only(store: Store) -> None:
    """Check that nothing can be changed in Prometheus."""
    with pytest.raises(StoreError, match="read only"):
        store.set_limit("A", 1)
    with pytest.raises(StoreError, match="read only"):
        store.reset(["a"])


class TestPrometheus(StoreContract):
    """The store keeps the contract within its process, beside a fleet that spends nothing, but changes nothing."""

    shares_habits = False

    @pytest.fixture
    def store(self, opened: Callable[..., PrometheusStore]) -> Store:
        """Return an empty store."""
        return opened(*({"name": name, "limit": "1 USD", "period": "day"} for name in "ABC"), options="&max_age=86400")

    def test_own_limit(self, store: Store) -> None:
        """No limit can be set: there is nowhere to keep it."""
        read_only(store)
        assert store.limits() == {}

    def test_reset_keeps_what_is_under_way(self, store: Store) -> None:
        """What was spent cannot be forgotten."""
        store.charge([update(500)], NOW)
        read_only(store)
        assert amounts(store) == (500, 0)

    def test_reset_between_lease_and_late_settling(self, store: Store) -> None:
        """Nor can it be while a call is under way."""
        store.reserve("1", [update(600)], NOW, UNTIL)
        read_only(store)
        store.settle("1", [Charge("a", 0, 250)], NOW)
        assert amounts(store) == (250, 0)

    def test_a_part_that_is_settled_after_a_reset(self, store: Store) -> None:
        """Nothing can be reset here while a part of it is settled."""
        store.reserve("1", [update(600)], NOW, UNTIL)
        read_only(store)
        store.settle_part("1", "p", [Charge("a", 0, 40)], [40], NOW)
        assert amounts(store) == (40, 560)

    def test_marks_are_set_once(self, store: Store) -> None:
        """A warning is given once in this process."""
        store.charge([update(1)], NOW)
        assert store.mark("a", "0.5")
        assert not store.mark("a", "0.5")

    def test_a_budget_that_is_no_more(self, store: Store) -> None:
        """A budget of the settings cannot be forgotten."""
        with pytest.raises(StoreError, match="take 'A' out of the settings"):
            store.unregister("A")

    def test_budgets_can_be_listed(self, store: Store) -> None:
        """The budgets are those of the settings."""
        assert store.registered() == dict.fromkeys("ABC", "1.00 USD/day")


def today(amount: int = 0, limit: int = 5 * DOLLAR) -> CounterUpdate:
    """Return an update of today's counter."""
    return CounterUpdate(TODAY, "daily", amount, limit)


def begin(store: PrometheusStore) -> None:
    """Start the store's thread, which reads once; the test refreshes it from then on."""
    store.states([today()], NOW)


def test_the_fleet_is_counted(api: PrometheusApi, opened: Callable[..., PrometheusStore]) -> None:
    """What the fleet has spent is in the way of a reservation: exactly the rest fits, and no atto-dollar more."""
    api.spent("tollspan_spend_total", ({}, "4.25"))
    store = opened()
    assert store.states([today()], NOW) == (CounterState(425 * CENT, 0, 5 * DOLLAR),)
    assert store.reserve("1", [today(75 * CENT + 1)], NOW, UNTIL).refused == 0
    assert store.reserve("2", [today(75 * CENT)], NOW, UNTIL).states == (
        CounterState(425 * CENT, 75 * CENT, 5 * DOLLAR),
    )
    settled = store.settle("2", [Charge(TODAY, 0, 5 * CENT)], NOW)
    assert settled is not None
    assert settled[0].spent == 430 * CENT


def test_own_spending_counts_until_it_shows(api: PrometheusApi, opened: Callable[..., PrometheusStore]) -> None:
    """Between two answers a process adds its own; it takes it away once Prometheus must have it, and not before."""
    now = [NOW]
    store = opened(now=now, options="&lag=90&max_age=86400")
    api.spent("tollspan_spend_total", ({}, "1"))
    begin(store)
    store.charge([today(2 * DOLLAR)], NOW + 1)

    def spent(after: float, told: str) -> int:
        now[0] = api.newest = NOW + after
        api.spent("tollspan_spend_total", ({}, told))
        store.refresh()
        return store.states([today()], now[0])[0].spent // CENT

    assert spent(15, "1") == 300  # the fleet's dollar, and our two
    assert spent(60, "3") == 500  # it has been told, which nobody here can know: it counts twice, never not at all
    assert spent(104, "3") == 500
    assert spent(106, "3.5") == 350  # 90 seconds after the first question that found it spent
    assert spent(3600, "0") == 200  # a Prometheus that has lost its data does not lose what we have spent ourselves


def test_a_new_period_begins_at_nothing(api: PrometheusApi, opened: Callable[..., PrometheusStore]) -> None:
    """What was asked yesterday says nothing of today."""
    api.spent("tollspan_spend_total", ({}, "5"))
    store = opened(options="&max_age=86400")
    assert store.reserve("1", [today(1)], NOW, UNTIL).refused == 0
    tomorrow = today(1)._replace(key="daily/2026-09-22")
    assert store.reserve("2", [tomorrow], NOW + 70_000, UNTIL + 70_000).refused is None


def test_one_counter_per_value(api: PrometheusApi, opened: Callable[..., PrometheusStore]) -> None:
    """A budget per user is one question for all users, and each has what the fleet spent for it."""
    api.spent("by (user_id)", ({"user_id": "al/ice"}, "5.01"), ({}, "0.5"))
    table = {"name": "each", "limit": "5 USD", "period": "day", "per": ["user"]}
    store = opened(table)
    guard = Guard(parse_tables([table]), store, Bounds(bundled), clock=lambda: NOW)
    assert isinstance(guard.check(budget_request("1", user="al/ice")), Denial)
    assert isinstance(guard.check(budget_request("2", user="bob")), Grant)
    found = {counter.key: counter.spent for counter in store.counters(NOW)}
    assert found == {
        "each/2026-09-21/user=al%2Fice": 501 * CENT,
        "each/2026-09-21/user=": 50 * CENT,
        "each/2026-09-21/user=bob": 0,  # reserved for
    }


def budget_request(attempt: str, cost: int = 2 * CENT, **traits: str) -> BudgetRequest:
    """Return a call of two cents."""
    shape = RequestShape(facts=Facts(), prices=(), body={}, content=None, size=0, stated=cost)
    return BudgetRequest(attempt=attempt, traits={"provider": "openai", "model": "m", **traits}, shape=shape)


def ended(attempt: str, cost: int) -> Call:
    """Return the record of a call."""
    return Call(
        id=attempt,
        operation_id=attempt,
        provider="openai",
        operation="chat",
        started_at=0,
        duration=1,
        http_status=200,
        cost=Cost(amount=cost, quality="measured"),
    )


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"limit": "5 USD"}, "sum(increase(tollspan_spend_total{}[SINCE] anchored))"),
        (
            {"limit": "9 tokens"},
            'sum(increase(tollspan_tokens_total{gen_ai_token_type=~"input|output"}[SINCE] anchored))',
        ),
        ({"limit": "9 calls"}, 'sum(increase(tollspan_calls_total{tollspan_outcome!="denied"}[SINCE] anchored))'),
        ({"limit": "5 USD", "period": "rolling 1h"}, "sum(increase(tollspan_spend_total{}[3600000ms] anchored))"),
        (
            {"limit": "5 USD", "match": {"provider": "openai", "model": ["gpt-5*", "o[!13]?"], "tag.tier": 'a"b'}},
            (
                'sum(increase(tollspan_spend_total{gen_ai_provider_name=~"openai",'
                'gen_ai_response_model=~"gpt\\\\-5.*|o[^13].",tollspan_tag_tier=~"a\\"b"}[SINCE] anchored))'
            ),
        ),
        (
            {"limit": "5 USD", "per": ["tag.cost-center", "user"]},
            "sum by (tollspan_tag_cost_center, user_id) (increase(tollspan_spend_total{}[SINCE] anchored))",
        ),
    ],
)
def test_queries(
    api: PrometheusApi, opened: Callable[..., PrometheusStore], table: dict[str, Any], expected: str
) -> None:
    """A budget is asked for by its unit, its period so far, what it matches and what it is kept per."""
    store = opened({"period": "day", **table})
    store.refresh()
    since = int(NOW % 86_400 * 1000)
    assert api.queries[0] == expected.replace("SINCE", f"{since}ms")


def test_labels_are_those_of_the_metrics() -> None:
    """What a budget matches by is called as the counters call it."""
    ours = {
        "provider": names.PROVIDER,
        "model": names.RESPONSE_MODEL,
        "operation": names.OPERATION,
        **{key: spans[0] for key, spans in ATTRIBUTION_ATTRIBUTES.items()},
    }
    assert {key: name.replace(".", "_") for key, name in ours.items()} == LABELS


def test_without_extended_selectors(api: PrometheusApi, opened: Callable[..., PrometheusStore]) -> None:
    """A Prometheus that does not know exact increases is asked in another way, from then on."""
    api.anchored = False
    api.spent("last_over_time", ({}, "3"))
    store = opened({"name": "daily", "limit": "5 USD", "period": "day"})
    assert store.states([today()], NOW)[0].spent == 3 * DOLLAR
    store.refresh()
    assert sum("anchored" in question for question in api.queries) == 1
    since = NOW - NOW % 86_400
    length = f"{int(NOW % 86_400 * 1000)}ms"
    assert api.queries[-2] == (
        f"sum(last_over_time(tollspan_spend_total{{}}[{length}]) - (last_over_time(tollspan_spend_total{{}}[5m] "
        f"@ {since:.3f}) or 0 * last_over_time(tollspan_spend_total{{}}[{length}])))"
    )


def test_select_and_password(api: PrometheusApi, opened: Callable[..., PrometheusStore]) -> None:
    """Labels narrow the fleet, and a password goes as a header and not into the address."""
    store = opened(options='&select={job="shop"}')
    store.refresh()
    assert 'tollspan_spend_total{job="shop"}' in api.queries[0]
    assert 'tollspan_calls_total{job="shop"}' in api.queries[1]
    guarded = PrometheusStore(api.url.replace("//", "//me:p%40ss@"), (), lambda: NOW)
    assert guarded.registered() == {}
    assert api.authorization == "Basic bWU6cEBzcw=="


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"limit": "5 USD"}, "its period is run"),
        ({"limit": "5 USD", "period": "total"}, "its period is total"),
        ({"limit": "3 identical calls", "period": "day"}, "no metric counts identical calls"),
        ({"limit": "5 USD", "period": "day", "match": {"host": "a"}}, "metrics have no label for host"),
        ({"limit": "5 USD", "period": "day", "per": ["host"]}, "metrics have no label for host"),
    ],
)
def test_budgets_that_prometheus_does_not_have(table: dict[str, Any], said: str) -> None:
    """A budget that Prometheus has no figures for is one clear error, before any call."""
    with pytest.raises(SettingsError, match=said):
        store_of("prometheus:http://127.0.0.1:1", parse_tables([table]))


@pytest.mark.parametrize(
    "url", ["prometheus:", "prometheus:localhost:9090", "prometheus:http://h?lag=x", "prometheus:http://h?refresh=0"]
)
def test_bad_addresses(url: str) -> None:
    """An invalid address or option is one error, which says what is expected."""
    with pytest.raises(SettingsError, match=r"invalid .*; expected "):
        store_of(url)


# Too old, or not there


def test_answers_get_too_old(api: PrometheusApi, opened: Callable[..., PrometheusStore]) -> None:
    """While Prometheus is away the last answer holds for `max_age`, and no longer; the error says how old it is."""
    now = [NOW]
    api.spent("tollspan_spend_total", ({}, "1"))
    store = opened(now=now, options="&max_age=120")
    begin(store)
    api.status = 503
    now[0] = NOW + 100
    store.refresh()
    assert store.states([today()], NOW + 119)[0].spent == DOLLAR
    with pytest.raises(StoreError, match=r"is 121 s old: .* answered 503"):
        store.states([today()], NOW + 121)
    with pytest.raises(StoreError, match="121 s old"):
        store.reserve("1", [today(1)], NOW - 121, UNTIL)  # a clock that jumped back
    api.status = 200
    now[0] = NOW + 130
    store.refresh()
    assert store.reserve("2", [today(1)], NOW + 130, UNTIL).refused is None


def test_figures_that_stop_coming(api: PrometheusApi, opened: Callable[..., PrometheusStore]) -> None:
    """A Prometheus that answers and gets no figures is noticed, as soon as a process's own should be there."""
    now = [NOW]
    api.newest = None
    store = opened(now=now, options="&max_age=100&lag=50")
    begin(store)
    assert store.reserve("1", [today(1)], NOW, UNTIL).refused is None  # a fleet's first process
    store.settle("1", [Charge(TODAY, 0, 1)], NOW)
    now[0] = NOW + 10
    store.refresh()
    now[0] = NOW + 61
    store.refresh()
    with pytest.raises(StoreError, match="lacks what this process has exported"):
        store.states([today()], now[0])
    api.newest = NOW + 50
    store.refresh()
    assert store.states([today()], now[0])[0].spent == 1


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"data":{"result":[{"metric":{},"value":[0,"NaN"]}]}}', b"[]"])
def test_answers_that_cannot_be_read(api: PrometheusApi, opened: Callable[..., PrometheusStore], body: bytes) -> None:
    """What is no answer of Prometheus is an error of the store, and never taken for nothing spent."""
    api.body = body
    store = opened()
    with pytest.raises(StoreError, match="unparsable response"):
        store.reserve("1", [today(1)], NOW, UNTIL)


def test_no_call_waits_longer_than_the_deadline(api: PrometheusApi, opened: Callable[..., PrometheusStore]) -> None:
    """A Prometheus that does not answer holds a call up for the deadline, and not for the time a question may take."""
    api.held.clear()
    store = opened(options="&deadline=0.05")
    refused = threading.Event()

    def call() -> None:
        with pytest.raises(StoreError, match="has not answered yet"):
            store.reserve("1", [today(1)], NOW, UNTIL)
        refused.set()

    threading.Thread(target=call, daemon=True).start()
    assert refused.wait(5)  # the question itself is given up after ten seconds
    api.held.set()


@pytest.mark.parametrize("policy", ["closed", "open"])
def test_policy_where_prometheus_is_away(
    opened: Callable[..., PrometheusStore], api: PrometheusApi, policy: str
) -> None:
    """Whether calls go through while there is no figure young enough is the budget's policy; each is counted."""
    api.status = 500
    table = {"limit": "1 USD", "period": "day", "store_failure": policy}
    guard = Guard(parse_tables([table]), opened(table), Bounds(bundled), clock=lambda: NOW)
    answer = guard.check(budget_request("1"))
    assert isinstance(answer, Grant if policy == "open" else Denial)
    assert sum(guard.observed.store_errors.values()) == 1
    if isinstance(answer, Denial):
        assert answer.reason == "store"
        assert "answered 500" in answer.message


def test_guard_over_a_fleet(api: PrometheusApi, opened: Callable[..., PrometheusStore]) -> None:
    """A guard reserves and settles beside the fleet; what the denial and the levels say is the fleet's."""
    api.spent("tollspan_spend_total", ({}, "0.95"))
    table = {"name": "daily", "limit": "1 USD", "period": "day"}
    store = opened(table)
    guard = Guard(parse_tables([table]), store, Bounds(bundled), clock=lambda: NOW)
    assert isinstance(guard.check(budget_request("1")), Grant)
    guard.settle(ended("1", CENT))
    assert isinstance(guard.check(budget_request("2", 4 * CENT)), Grant)
    denial = guard.check(budget_request("3"))
    assert isinstance(denial, Denial)
    assert "$0.0400 of $1.00 is left" in denial.message
    assert store.states([today(limit=DOLLAR)], NOW) == (CounterState(96 * CENT, 4 * CENT, DOLLAR),)
    assert guard.observed.overshoot == {}


def test_warning_of_what_others_have_spent(api: PrometheusApi, opened: Callable[..., PrometheusStore]) -> None:
    """A share that others' spending has passed is warned of with this process's next call, once."""
    table = {"name": "daily", "limit": "1 USD", "period": "day", "warn_at": [0.5]}
    api.spent("tollspan_spend_total", ({}, "0.6"))
    guard = Guard(parse_tables([table]), opened(table), Bounds(bundled), clock=lambda: NOW)
    for attempt in ("1", "2"):
        assert isinstance(guard.check(budget_request(attempt)), Grant)
        guard.settle(ended(attempt, CENT))
    (warned,) = guard.thresholds.recent
    assert (warned.share, warned.spent) == (Decimal("0.5"), 61 * CENT)


def test_command(api: PrometheusApi, tmp_path: Path) -> None:
    """`tollspan budget status` shows what the fleet has spent, and how late the figures are; nothing can be set."""
    api.newest = time.time() - 40
    api.spent("tollspan_spend_total", ({}, "1.25"))
    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(tmp_path),
        "TOLLSPAN_BUDGET": "5 USD/day",
        "TOLLSPAN_BUDGET_STORE": f"prometheus:{api.url}",
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tollspan", "budget", *words]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603 - ours

    shown = run("status").stdout
    assert re.search(r"^5 USD/day .*\$1\.2500 +\$5\.00 +25%\nas of \d+ s ago$", shown, re.MULTILINE), shown
    (row,) = json.loads(run("status", "--json").stdout)
    assert row["as_of"] == f"{datetime.fromtimestamp(api.newest, UTC):%Y-%m-%dT%H:%M:%SZ}"
    refused = run("set", "5 USD/day", "9 USD")
    assert refused.returncode == 1
    assert "read only: change the limit" in refused.stderr
    assert "read only" in run("reset", "5 USD/day").stderr
    api.status = 502
    assert "answered 502" in run("status").stderr
    environment["TOLLSPAN_BUDGET"] = "5 USD"
    assert "its period is run" in run("status").stderr
