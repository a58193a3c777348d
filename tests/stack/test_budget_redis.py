"""Budgets in a real Redis: the contract of all stores, processes that are killed, a server that is gone."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import os
import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from examples.fake_provider import FakeProvider
from tests.budget.contract import NOW, UNTIL, StoreContract, amounts, update
from tests.budget.strain import Strain, strain
from tests.stack import servers
from tollspan.budget.bounds import Bounds, RequestShape
from tollspan.budget.denials.denial import Denial
from tollspan.budget.guard import LEASE, Guard, check_aside
from tollspan.budget.policy.budget import parse_tables, parse_text
from tollspan.budget.request import BudgetRequest, Grant
from tollspan.budget.stores import Charge, StoreError
from tollspan.budget.stores.redis import CONNECTIONS, RedisStore
from tollspan.cli.doctor.environment import Environment
from tollspan.cli.doctor.settings_checks import budgets
from tollspan.model.records import Call, Cost, Facts
from tollspan.prices import bundled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.stack.processes import Server
    from tests.stack.servers import RunningRedis
    from tollspan.budget.stores import Store

_numbers = itertools.count()
CENT = 10**16
HANG = 30
"""Seconds that no deadline comes near to: a wait that is longer is one that does not end."""


@pytest.fixture
def url(redis: RunningRedis) -> str:
    """Return the address of a separate namespace."""
    return f"{redis.url}?namespace=t{next(_numbers)}&deadline=30"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Return an empty store."""
    store = RedisStore(url)
    yield store
    store.close()


class TestRedis(StoreContract):
    """Redis keeps the contract."""


def evict(redis: RunningRedis, pattern: str) -> None:
    """Delete keys, as a server does that evicts when its memory is full."""
    import redis as client

    with client.Redis.from_url(redis.url) as other:
        for key in other.scan_iter(pattern):
            other.delete(key)


def namespace_of(url: str) -> str:
    """Return the namespace in an address."""
    return url.partition("namespace=")[2].partition("&")[0]


@pytest.mark.parametrize("lost", ["lease:*", "leases", "lease*", "counter:*", "limits"])
def test_what_the_server_lost_is_charged(redis: RunningRedis, url: str, store: Store, lost: str) -> None:
    """A call whose lease, or whose whole counter, was evicted is charged once when it ends, and nothing stays."""
    store.reserve("1", [update(600)], NOW, UNTIL)
    evict(redis, f"{{{namespace_of(url)}}}:budget:{lost}")
    settled = store.settle("1", [Charge("a", 0, 250)], NOW)
    assert settled is not None
    assert settled[0][:2] == (250, 0)
    assert store.settle("1", [Charge("a", 0, 250)], NOW) is None
    (counter,) = store.counters(NOW)
    assert (counter.name, counter.spent, counter.uncertain, counter.reserved) == ("A", 250, 0, 0)


@pytest.mark.parametrize("lost", ["lease:*", "leases", "lease*"])
def test_a_lost_lease_is_not_reserved_for_ever(redis: RunningRedis, url: str, store: Store, lost: str) -> None:
    """What a lost lease had reserved is charged after its end, also if the counter is busy; a late end corrects it."""
    store.reserve("1", [update(600)], NOW, UNTIL)
    evict(redis, f"{{{namespace_of(url)}}}:budget:{lost}")
    store.reserve("2", [update(50)], NOW + 400, UNTIL + 400)
    assert amounts(store, UNTIL + 301) == (600, 50)
    settled = store.settle("1", [Charge("a", 0, 250)], UNTIL + 302)
    assert settled is not None
    assert settled[0][:2] == (250, 50)
    (counter,) = store.counters(UNTIL + 302)
    assert counter.uncertain == 0


def test_forgotten_counters_do_not_begin_again(redis: RunningRedis, url: str, store: Store) -> None:
    """A counter that was deleted on purpose stays deleted, although a lost lease of it ends."""
    store.reserve("1", [update(600)], NOW, UNTIL)
    store.forget(["a"])
    evict(redis, f"{{{namespace_of(url)}}}:budget:lease*")
    store.settle("1", [Charge("a", 0, 250)], NOW)
    assert store.counters(NOW) == []


@pytest.mark.parametrize("days", [-3, 3])
def test_a_clock_that_is_days_off(url: str, days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock is days off counts in the server's day and window, and deletes nothing of others."""
    budgets = parse_tables(
        [
            {"name": "day", "limit": "0.02 USD", "period": "day"},
            {"name": "rolling", "limit": "0.02 USD", "period": "rolling 1h"},
        ]
    )
    right = Guard(budgets, RedisStore(url), Bounds(bundled))
    assert isinstance(right.check(budget_request("right")), Grant)
    right.settle(ended("right"))
    assert right.settler.flush(HANG)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + days * 86_400)
    wrong = Guard(budgets, RedisStore(url), Bounds(bundled), clock=time.time)
    assert isinstance(wrong.check(budget_request("wrong")), Grant)
    wrong.settle(ended("wrong"))
    assert wrong.settler.flush(HANG)
    assert isinstance(wrong.check(budget_request("too much")), Denial)
    monkeypatch.undo()
    assert isinstance(right.check(budget_request("too much, too")), Denial)
    assert {counter.name: counter.spent for counter in right.store.counters(now())} == {
        "day": 2 * CENT,
        "rolling": 2 * CENT,
    }
    right.close()
    wrong.close()


def test_threads_share_round_trips(redis: RunningRedis, url: str) -> None:
    """64 threads at once: none is refused, with the deadline that a round trip has by default, on a few connections."""
    import redis as client

    store, failures = RedisStore(url.replace("deadline=30", "deadline=0.25")), []
    ready = threading.Barrier(64)

    def work(thread: int) -> None:
        ready.wait()
        try:
            for number in range(10):
                store.reserve(f"{thread}.{number}", [update(7)], NOW, UNTIL)
                store.settle(f"{thread}.{number}", [Charge("a", 0, 3)], NOW)
        except StoreError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with client.Redis.from_url(redis.url) as other:
        assert int(other.info("clients")["connected_clients"]) <= CONNECTIONS + 5
    assert not failures
    assert amounts(store) == (3 * 64 * 10, 0)
    store.close()


def test_the_script_is_loaded_again(redis: RunningRedis, url: str) -> None:
    """A server that was restarted, or that forgot the script, gets it again, in the middle of anything."""
    import redis as client

    store = RedisStore(url)
    store.reserve("1", [update(7)], NOW, UNTIL)
    with client.Redis.from_url(redis.url) as other:
        other.script_flush()
    assert store.settle("1", [Charge("a", 0, 3)], NOW) is not None
    assert amounts(store) == (3, 0)
    store.close()


def test_doctor_warns_of_eviction(redis: RunningRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that evicts keys when its memory is full may lift limits: `tollspan doctor` says so."""
    import redis as client

    monkeypatch.setenv("TOLLSPAN_BUDGET_STORE", redis.url)
    with client.Redis.from_url(redis.url) as other:
        assert not [
            finding for finding in budgets(Environment(os.environ, None)) if finding.code == "budget_store_evicts"
        ]
        other.config_set("maxmemory-policy", "allkeys-lru")
        try:
            (finding,) = budgets(Environment(os.environ, None))
        finally:
            other.config_set("maxmemory-policy", "noeviction")
    assert "allkeys-lru" in finding.what


def test_strict_under_kills(url: str) -> None:
    """Processes on one Redis, two of them killed: the provider billed no more than the limit, by its own books."""
    limit = Decimal("0.15")
    with FakeProvider() as fake:
        outcome = strain(
            fake, Strain(store=url, limit=f"{limit} USD", processes=4, threads=8, calls=12, kills=2, seed=3)
        )
    assert outcome.attempts > 40
    assert outcome.billed <= outcome.spent <= limit
    assert outcome.reserved_after_leases == 0


def test_one_round_trip(redis: RunningRedis, url: str) -> None:
    """A reservation is one command to the server, and so is a settlement."""
    import redis as client

    store = RedisStore(url)
    store.reserve("warm", [update(1)], NOW, UNTIL)  # connected, and the script is loaded
    with client.Redis.from_url(redis.url) as other:

        def commands() -> int:
            return int(other.info("stats")["total_commands_processed"])

        alone = -commands() + commands()  # what asking costs
        before = commands()
        store.reserve("1", [update(10), update(10, key="b", name="B")], NOW, UNTIL)
        store.settle("1", [Charge("a", 0, 5), Charge("b", 0, 5)], NOW)
        stats = other.info("commandstats")
        assert commands() - before >= 2 * alone
        assert stats["cmdstat_evalsha"]["calls"] >= 3
        assert stats.get("cmdstat_eval", {}).get("calls", 0) == 0
    store.close()


def test_keys_share_a_slot(redis: RunningRedis, url: str) -> None:
    """All keys of a namespace have one hash tag, so that a cluster keeps them on one node."""
    import redis as client

    store = RedisStore(url)
    store.reserve("1", [update(10)], NOW, UNTIL)
    store.register({"A": "1 USD/day"})
    store.set_limit("A", 5)
    store.mark("a", "0.5")
    namespace = url.partition("namespace=")[2].partition("&")[0]
    with client.Redis.from_url(redis.url, decode_responses=True) as other:
        tagged = [key for key in other.scan_iter("*") if f"{{{namespace}}}" in key]
    assert len(tagged) >= 5
    store.close()


def budget_request(attempt: str, amount: int = CENT) -> BudgetRequest:
    """Return a call whose cost is known beforehand."""
    shape = RequestShape(facts=Facts(), prices=(), body={}, content=None, size=0, stated=amount)
    return BudgetRequest(attempt=attempt, traits={"provider": "openai", "model": "m"}, shape=shape)


def ended(attempt: str) -> Call:
    """Return the record of a call of one cent."""
    values: dict[str, Any] = {"http_status": 200, "cost": Cost(amount=CENT, quality="measured")}
    return Call(
        id=attempt, operation_id=attempt, provider="openai", operation="chat", started_at=0, duration=1, **values
    )


def test_server_is_gone_in_the_middle(folder: Path, launch: Callable[[Server], None]) -> None:
    """A Redis that is killed: the policy holds at once, and nobody waits past the deadline."""
    running = servers.redis(folder)
    launch(running.server)
    guard = Guard(parse_text("1 USD/day"), RedisStore(f"{running.url}?deadline=0.2"), Bounds(bundled))
    assert isinstance(guard.check(budget_request("1")), Grant)
    running.server.stop()
    began = time.monotonic()
    denial = guard.check(budget_request("2"))
    assert time.monotonic() - began < 5  # the deadline is 0.2 s: this is no measure, but would catch a hang
    assert isinstance(denial, Denial)
    assert denial.reason == "store"
    guard.settle(ended("1"))  # off the call path: it does not raise, and does not wait
    assert not guard.settler.flush(0.1)
    opened = Guard(
        parse_tables([{"limit": "1 USD", "store_failure": "open"}]),
        RedisStore(f"{running.url}?deadline=0.2"),
        Bounds(bundled),
    )
    assert isinstance(opened.check(budget_request("3")), Grant)
    assert opened.observed.store_errors
    with pytest.raises(StoreError):
        guard.store.counters(time.time())


def test_settling_is_off_the_call_path(url: str) -> None:
    """A settlement is done by a thread of its own, and flushed when the guard closes."""
    guard = Guard(parse_text("1 USD/day"), RedisStore(url), Bounds(bundled))
    for number in range(20):
        assert isinstance(guard.check(budget_request(str(number))), Grant)
        guard.settle(ended(str(number)))
    assert guard.settler.flush(30)
    (counter,) = guard.store.counters(time.time())
    assert (counter.spent, counter.reserved) == (20 * CENT, 0)
    guard.close()


@pytest.mark.parametrize("policy", ["closed", "open"])
def test_server_that_stops_answering(folder: Path, launch: Callable[[Server], None], policy: str) -> None:
    """A Redis that keeps connections and says nothing: each call ends by its policy, and all is settled after it."""
    running = servers.redis(folder)
    launch(running.server)
    budgets = parse_tables([{"limit": "1 USD", "period": "total", "store_failure": policy}])
    guard = Guard(budgets, RedisStore(f"{running.url}?deadline=0.2"), Bounds(bundled))
    assert isinstance(guard.check(budget_request("1")), Grant)
    running.server.pause()
    guard.settle(ended("1"))
    verdicts: list[object] = []
    callers = [
        threading.Thread(
            target=lambda name: verdicts.append(guard.check(budget_request(name))), args=(f"x{number}",), daemon=True
        )
        for number in range(16)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(HANG)
    running.server.go_on()
    assert len(verdicts) == len(callers)
    assert all(isinstance(verdict, Grant if policy == "open" else Denial) for verdict in verdicts)
    assert guard.settler.flush(HANG)
    # What the server took in while nobody waited any more is freed again, or charged when its lease ends.
    (counter,) = guard.store.counters(time.time() + LEASE + 1)
    assert counter.reserved == 0
    assert counter.spent - counter.uncertain == CENT
    guard.close()


@pytest.mark.parametrize("on_loop", [False, True])
def test_settlement_elsewhere_wakes_a_call(url: str, *, on_loop: bool) -> None:
    """A call that waits for one of another process is woken by its settlement, and one connection is enough for all."""
    budgets = parse_tables([{"name": "b", "limit": "1 USD", "period": "day", "hard": True}])
    first, second = (Guard(budgets, RedisStore(url), Bounds(bundled)) for _ in range(2))
    assert isinstance(contextvars.Context().run(first.check, budget_request("held", 100 * CENT)), Grant)
    timer = threading.Timer(0.5, first.release, ["held"])

    def check() -> float:
        began = time.monotonic()
        decision = second.check(budget_request("thread"))
        assert isinstance(decision, Grant)
        assert decision.waited is not None
        return time.monotonic() - began

    async def check_many() -> float:
        began = time.monotonic()
        decisions = await asyncio.gather(
            *(check_aside(second, budget_request(f"{number}", CENT)) for number in range(50))
        )
        assert all(isinstance(decision, Grant) for decision in decisions)
        return time.monotonic() - began

    timer.start()
    waited = asyncio.run(check_many()) if on_loop else check()
    assert 0.3 < waited < HANG / 2  # and not until the end of `wait`
    timer.join()
    assert [thread.name for thread in threading.enumerate()].count("tollspan-wait") <= 1
    for guard in (first, second):
        guard.close()


def test_a_raised_limit_wakes_a_call(url: str) -> None:
    """A call that waits is checked again when another process raises the limit."""
    budgets = parse_tables([{"name": "b", "limit": "1 USD", "period": "day", "hard": True}])
    first, second = (Guard(budgets, RedisStore(url), Bounds(bundled)) for _ in range(2))
    assert isinstance(contextvars.Context().run(first.check, budget_request("held", 100 * CENT)), Grant)
    timer = threading.Timer(0.3, first.store.set_limit, ["b", 300 * CENT])
    timer.start()
    began = time.monotonic()
    assert isinstance(second.check(budget_request("waits", 100 * CENT)), Grant)
    assert time.monotonic() - began < HANG / 2
    timer.join()
    for guard in (first, second):
        guard.close()
