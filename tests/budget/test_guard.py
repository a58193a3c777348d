"""The guard by itself, with a clock and a store that the test controls."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.forked_children import child_finds, forks
from tollspan.budget.bounds import Bounds, RequestShape
from tollspan.budget.denials.denial import Denial
from tollspan.budget.guard import Guard
from tollspan.budget.policy.budget import Budget, parse_tables, parse_text
from tollspan.budget.request import BudgetRequest, Grant
from tollspan.budget.stores import ReservationResult, StoreError
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.model.records import Billable, Call, Cost, Facts, Usage
from tollspan.prices import bundled, price

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

DOLLAR = 10**18
NOON = 1_795_348_800.0  # 2026-11-22 12:00 UTC
CENT = DOLLAR // 100


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        """Start at noon."""
        self.now = NOON

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


def guard_of(budgets: tuple[Budget, ...], clock: Clock, store: Any = None, **more: Any) -> Guard:
    """Return a guard of these budgets."""
    return Guard(budgets, store or MemoryStore(), Bounds(bundled), clock=clock, run="r", **more)


def budget_request(attempt: str, amount: int = CENT, **traits: str) -> BudgetRequest:
    """Return a call whose cost is known beforehand, so that the test is about the guard."""
    traits = {"provider": "openai", "model": "gpt-5.5", "operation": "chat", **traits}
    shape = RequestShape(facts=Facts(), prices=(), body={}, content=None, size=0, stated=amount)
    return BudgetRequest(attempt=attempt, traits=traits, shape=shape)


def ended(attempt: str, amount: int | None = CENT, **more: Any) -> Call:
    """Return the record of a call."""
    values: dict[str, Any] = {
        "outcome": "ok",
        "http_status": 200,
        "cost": Cost() if amount is None else Cost(amount=amount, quality="measured"),
        "usage": Usage(input=1, output=1),
        **more,
    }
    return Call(
        id=attempt, operation_id=attempt, provider="openai", operation="chat", started_at=0, duration=1.0, **values
    )


def pending(attempt: str) -> Call:
    """Return the record of a call that the provider works on in the background."""
    return ended(attempt, None, billable=False, pending=True, usage=None)


def spent(guard: Guard) -> list[int]:
    """Return what is spent on each counter."""
    return [counter.spent for counter in guard.store.counters(guard.clock())]


def reserved(guard: Guard) -> int:
    """Return what is reserved on all counters."""
    return sum(counter.reserved for counter in guard.store.counters(guard.clock()))


def test_settled_in_the_period_it_was_reserved_in(clock: Clock) -> None:
    """A call that is under way at midnight counts for the day it began in, and the new day begins at zero."""
    guard = guard_of(parse_text("0.02 USD/day"), clock)
    clock.now = NOON + 12 * 3600 - 1
    assert isinstance(guard.check(budget_request("late")), Grant)
    clock.now += 2
    assert isinstance(guard.check(budget_request("early", 2 * CENT)), Grant)
    guard.settle(ended("late"))
    guard.settle(ended("early", 2 * CENT))
    assert [(c.key, c.spent) for c in guard.store.counters(clock.now)] == [
        ("0.02 USD%2Fday/2026-11-22", CENT),
        ("0.02 USD%2Fday/2026-11-23", 2 * CENT),
    ]
    assert isinstance(guard.check(budget_request("more", 1)), Denial)


def test_a_run_that_lasts_for_months_keeps_its_budget(clock: Clock) -> None:
    """A counter that no clock ends is kept for as long as it is used, however long ago its program began."""
    guard = guard_of(parse_text("1 USD/run"), clock)
    for day in range(100):
        guard.check(budget_request(str(day)))
        guard.settle(ended(str(day)))
        clock.now += 86_400
    assert isinstance(guard.check(budget_request("more")), Denial)
    assert spent(guard) == [100 * CENT]


def test_clock_that_jumps(clock: Clock) -> None:
    """A clock that is put back finds its old period as it was left, spent and all."""
    guard = guard_of(parse_text("0.02 USD/day"), clock)
    guard.check(budget_request("1", 2 * CENT))
    guard.settle(ended("1", 2 * CENT))
    clock.now += 86_400
    assert isinstance(guard.check(budget_request("2", 2 * CENT)), Grant)
    clock.now -= 86_400
    assert isinstance(guard.check(budget_request("3", 1)), Denial)
    guard.settle(ended("2", 2 * CENT))
    assert spent(guard) == [2 * CENT, 2 * CENT]


def test_lease_that_ends_before_its_call(clock: Clock) -> None:
    """A call longer than its lease holds its money all the time, and is charged its real cost when it ends."""
    guard = guard_of(parse_text("0.02 USD/day"), clock, lease=10.0)
    guard.check(budget_request("1", 2 * CENT))
    clock.now += 60
    assert isinstance(guard.check(budget_request("2", 1)), Denial)
    guard.settle(ended("1"))
    assert isinstance(guard.check(budget_request("3")), Grant)


def test_released_call(clock: Clock) -> None:
    """A call that is released frees all that it held, and settling it later changes nothing."""
    guard = guard_of(parse_text("0.02 USD/day, 5 calls"), clock)
    guard.check(budget_request("1"))
    guard.release("1")
    assert (reserved(guard), spent(guard)) == (0, [0, 0])


def test_error_status_is_free(clock: Clock) -> None:
    """A call that the provider refused costs nothing, but counts as a call."""
    guard = guard_of(parse_text("0.02 USD/day, 5 calls"), clock)
    guard.check(budget_request("1"))
    guard.settle(ended("1", 0, outcome="error", http_status=429, billable=False, usage=None))
    assert spent(guard) == [0, 1]


@pytest.mark.parametrize(("quality", "hard"), [("estimated", True), ("floor", True), ("estimated", False)])
def test_cost_that_is_not_sure(clock: Clock, quality: Any, hard: bool) -> None:
    """A hard budget charges the reservation for a cost that may be too low; one that expects takes it as it is."""
    (budget,) = parse_tables([{"limit": "1 USD", "hard": hard}])
    guard = guard_of((budget,), clock)
    guard.check(budget_request("1", 5 * CENT))
    guard.settle(ended("1", cost=Cost(amount=CENT, quality=quality), outcome="aborted"))
    (counter,) = guard.store.counters(clock.now)
    assert (counter.spent, counter.uncertain) == ((5 * CENT, 4 * CENT) if hard else (CENT, 0))


def test_call_that_was_not_checked_is_counted(clock: Clock) -> None:
    """A call that did not pass httpx is known by its record alone: it counts, also past the limit."""
    guard = guard_of(parse_text("0.02 USD/day"), clock)
    guard.settle(ended("1", 3 * CENT))
    assert spent(guard) == [3 * CENT]
    assert isinstance(guard.check(budget_request("2", 1)), Denial)
    assert guard.observed.overshoot == {"0.02 USD/day": CENT}


def test_budgets_are_matched(clock: Clock) -> None:
    """A call counts towards the budgets that it matches, by any of their patterns, and towards no other."""
    tables: list[dict[str, Any]] = [
        {"name": "all", "limit": "9 calls"},
        {"name": "gpt", "limit": "9 calls", "match": {"model": ["gpt-5*", "o3"]}},
        {"name": "alice", "limit": "9 calls", "match": {"user": "alice", "provider": "openai"}},
        {"name": "tier", "limit": "9 calls", "match": {"tag.tier": "*"}},
        {"name": "nobody", "limit": "9 calls", "match": {"provider": "anthropic"}},
    ]
    guard = guard_of(parse_tables(tables), clock)
    guard.check(budget_request("1", user="alice"))
    guard.check(budget_request("2", model="o3-mini"))
    assert {c.name: c.reserved for c in guard.store.counters(clock.now)} == {"all": 2, "gpt": 1, "alice": 1, "tier": 2}


def test_a_thousand_budgets_cost_what_matches(clock: Clock) -> None:
    """Of a thousand budgets only those that match are looked at, and only they reserve."""
    tables = [{"name": f"b{n}", "limit": "9 calls", "match": {"user": f"u{n}"}} for n in range(1000)]
    guard = guard_of(parse_tables(tables), clock)
    grant = guard.check(budget_request("1", user="u500"))
    assert isinstance(grant, Grant)
    assert [budget.name for budget, _ in grant.held] == ["b500"]
    assert guard.check(budget_request("2", user="stranger")) is None
    assert len(guard.store.counters(clock.now)) == 1


class Gone:
    """A store that does not answer."""

    remote = False

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return an operation that fails."""

        def fail(*_: Any) -> ReservationResult:
            raise StoreError("the store is gone")

        return fail


def test_store_is_gone(clock: Clock) -> None:
    """Where the store does not answer, each budget's policy holds, and it is counted."""
    closed = guard_of(parse_text("1 USD"), clock, Gone())
    denial = closed.check(budget_request("1"))
    assert isinstance(denial, Denial)
    assert "the store is gone" in denial.message
    assert closed.observed.denied == {("1 USD", "store"): 1}
    (budget,) = parse_tables([{"limit": "1 USD", "store_failure": "open"}])
    opened = guard_of((budget,), clock, Gone())
    assert isinstance(opened.check(budget_request("1")), Grant)
    opened.settle(ended("1"))
    assert opened.observed.store_errors == {"StoreError": 2}  # registering, and reserving


def test_a_store_that_does_not_answer_is_tried_once(clock: Clock) -> None:
    """However much a check has to read, it waits for one deadline: nothing is read after the first failure."""
    asks: list[str] = []

    class Counted(Gone):
        def __getattr__(self, name: str) -> Callable[..., Any]:
            asks.append(name)
            return super().__getattr__(name)

    rule = {"limit": "1 USD", "on_exceed": "downgrade", "downgrade": {"gpt-5.5": "gpt-4o-mini"}}
    guard = guard_of(parse_tables([rule]), clock, Counted())
    del asks[:]
    assert isinstance(guard.check(budget_request("1")), Denial)
    assert [name for name in asks if name != "settle"] == ["states"]  # and what it may have reserved is freed behind


def test_sqlite_is_locked(clock: Clock, tmp_path: Path) -> None:
    """A lock that another process holds is waited for no longer than the deadline, and then the policy holds."""
    import sqlite3

    store = SqliteStore(tmp_path / "b.sqlite", deadline=0.05)
    guard = guard_of(parse_text("1 USD"), clock, store)
    other = sqlite3.connect(tmp_path / "b.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    denial = guard.check(budget_request("1"))
    assert isinstance(denial, Denial)
    assert denial.reason == "store"
    other.execute("ROLLBACK")
    other.close()
    assert isinstance(guard.check(budget_request("2")), Grant)
    guard.close()


def test_sqlite_disk_is_full(clock: Clock, tmp_path: Path) -> None:
    """Where the file cannot grow, calls are refused; when it can again, they pass."""
    store = SqliteStore(tmp_path / "b.sqlite")
    guard = guard_of(parse_text("1000 calls"), clock, store)
    assert store._file.connection is not None
    pages = store._file.connection.execute("PRAGMA page_count").fetchone()[0]
    store._file.connection.execute(f"PRAGMA max_page_count = {pages}")
    verdicts = [guard.check(budget_request(f"{n}", model="m" * 50)) for n in range(300)]
    refused = [verdict for verdict in verdicts if isinstance(verdict, Denial)]
    assert refused
    assert all(denial.reason == "store" for denial in refused)
    guard.close()
    assert isinstance(guard.check(budget_request("again")), Grant)
    guard.close()


def test_warnings_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Each share is warned of once, by the guard that sees it first, and again in the next period."""
    (budget,) = parse_tables([{"name": "b", "limit": "0.10 USD", "period": "day", "warn_at": [0.5, 1.0]}])
    store = MemoryStore()
    guards = [guard_of((budget,), clock, store) for _ in range(2)]
    seen: list[str] = []
    for guard in guards:
        guard.thresholds.callbacks.append(lambda warned: seen.append(f"{warned.share:.0%}"))
    with caplog.at_level(logging.WARNING, "tollspan.budget"):
        for number in range(10):
            guard = guards[number % 2]
            guard.check(budget_request(str(number)))
            guard.settle(ended(str(number)))
    assert seen == ["50%", "100%"]
    assert 'Budget "b" passed 50%: $0.0500 of $0.10 spent' in caplog.text
    clock.now += 86_400
    guards[0].check(budget_request("next", 10 * CENT))
    guards[0].settle(ended("next", 10 * CENT))
    assert seen == ["50%", "100%", "50%", "100%"]


def test_warning_of_what_no_call_has_passed(clock: Clock) -> None:
    """A share that is passed by a lease that ended, or a limit that was lowered, is warned of with the next call."""
    (budget,) = parse_tables([{"name": "b", "limit": "1 USD", "warn_at": [0.25, 0.5]}])
    guard = guard_of((budget,), clock)
    seen: list[str] = []
    guard.thresholds.callbacks.append(lambda warned: seen.append(f"{warned.share:.0%}"))
    guard.check(budget_request("killed", 30 * CENT))
    clock.now += 1000
    guard.check(budget_request("1"))
    guard.settle(ended("1"))
    assert seen == ["25%"]
    guard.store.set_limit("b", 40 * CENT)
    guard.check(budget_request("2"))
    guard.settle(ended("2"))
    assert seen == ["25%", "50%"]
    guard.store.reset([counter.key for counter in guard.store.counters(clock.now)])
    for number in range(3, 6):
        guard.check(budget_request(str(number), 10 * CENT))
        guard.settle(ended(str(number), 10 * CENT))
    assert seen == ["25%", "50%", "25%", "50%"]


def test_rolling_budgets_warn_once_a_length(clock: Clock) -> None:
    """A rolling hour, which never renews, warns of a share once in each hour."""
    (budget,) = parse_tables([{"name": "b", "limit": "0.10 USD", "period": "rolling 1h", "warn_at": [0.5]}])
    guard = guard_of((budget,), clock)
    for number in range(10):
        guard.check(budget_request(str(number), 3 * CENT))
        guard.settle(ended(str(number), 3 * CENT))
        clock.now += 1000
    assert len(guard.thresholds.recent) == 3


def test_warning_budget_lets_all_through(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A budget that only warns refuses nothing, and says once that its limit is passed."""
    (budget,) = parse_tables([{"limit": "0.02 USD", "on_exceed": "warn"}])
    guard = guard_of((budget,), clock)
    for number in range(4):
        assert isinstance(guard.check(budget_request(str(number))), Grant)
        guard.settle(ended(str(number)))
    assert caplog.text.count("passed 100%") == 1


def chat_request(attempt: str, max_output: int | None = None, *, stream: bool = False) -> BudgetRequest:
    """Return a call of gpt-5.5 with 400 bytes."""
    facts = Facts()
    facts.request_model, facts.operation, facts.max_output = "gpt-5.5", "chat", max_output
    shape = RequestShape(facts=facts, prices=("openai",), body={}, content=b"x" * 400, size=400)
    traits = {"provider": "openai", "model": "gpt-5.5", "operation": "chat"}
    return BudgetRequest(attempt=attempt, traits=traits, shape=shape, stream=stream)


def learned(guard: Guard, outputs: Iterable[int]) -> None:
    """Have a guard learn from calls of gpt-5.5 with these output tokens, at its own price."""
    table = bundled()
    for number, output in enumerate(outputs):
        attempt, usage = f"learned {number}", Usage(input=100, output=output)
        assert isinstance(guard.check(chat_request(attempt)), Grant)
        billable = Billable(usage=usage, price_providers=("openai",), model="gpt-5.5", request_model="gpt-5.5")
        cost = price(billable, table, datetime.fromtimestamp(guard.clock(), UTC))
        guard.settle(ended(attempt, cost=cost, request_model="gpt-5.5", usage=usage))


def reserved_for(guard: Guard, call: BudgetRequest) -> tuple[int, int]:
    """Return the tokens that a call reserves in the last budget, and the least that it would have."""
    grant = guard.check(call)
    assert isinstance(grant, Grant)
    _, update = grant.held[-1]
    guard.release(call.attempt)
    return update.amount, update.least


def test_reserves_what_such_calls_usually_use(clock: Clock) -> None:
    """Without experience 4,096 output tokens, or the request's own limit; then what nine of ten do not pass."""
    guard = guard_of(parse_text("100 USD, 10_000_000 tokens"), clock)
    estimate = 400 // 4
    assert reserved_for(guard, chat_request("1")) == (estimate + 4096, estimate + 4096)
    assert reserved_for(guard, chat_request("2", 300)) == (estimate + 300, estimate + 300)
    learned(guard, [*range(10, 1010, 10)])
    high, usual = reserved_for(guard, chat_request("3"))
    assert 1000 <= high <= 1200
    assert 600 <= usual <= 1000  # recent calls weigh more: half of them by weight are of the last 35
    assert reserved_for(guard, chat_request("4", 300)) == (400, 400)
    learned(guard, [20] * 200)
    high, usual = reserved_for(guard, chat_request("5"))
    assert 120 <= usual <= high <= 125


def test_dollars_are_expected_as_tokens_are(clock: Clock) -> None:
    """What a call reserves in dollars is what such calls have cost, at their own prices, a little rounded up."""
    guard = guard_of(parse_text("100 USD"), clock)
    learned(guard, [50] * 30)
    (counter,) = guard.store.counters(clock.now)
    amount, least = reserved_for(guard, chat_request("1"))
    assert counter.spent / 30 <= least <= amount <= 1.1 * counter.spent / 30


def test_only_complete_calls_teach(clock: Clock) -> None:
    """A call that was left or failed says nothing about what such calls usually write."""
    guard = guard_of(parse_text("100 USD, 10_000_000 tokens"), clock)
    for outcome, quality in (("aborted", "measured"), ("error", "measured"), ("ok", "estimated")):
        guard.check(chat_request("1"))
        usage = Usage(input=100, output=5)
        guard.settle(ended("1", outcome=outcome, usage_quality=quality, request_model="gpt-5.5", usage=usage))
    assert reserved_for(guard, chat_request("2")) == (4196, 4196)


def test_the_last_cents_are_used(clock: Clock) -> None:
    """Near the end a call reserves what is left, if what such calls usually use fits; else it waits for the others."""
    guard = guard_of(parse_text("2000 tokens"), clock)
    learned(guard, [20, 20, 20, 20, 200] * 2)
    (counter,) = guard.store.counters(clock.now)
    left = 2000 - counter.spent
    assert reserved_for(guard, chat_request("1")) >= (300, 120)
    sent = [guard.check(chat_request(str(number))) for number in range(20)]
    granted = [grant for grant in sent if isinstance(grant, Grant)]
    assert granted == sent[: len(granted)]
    amounts = [grant.held[0][1].amount for grant in granted]
    assert sum(amounts) in range(left - 120, left + 1)  # what is left is no less than such a call usually uses
    assert amounts[-1] < amounts[0]


@pytest.mark.parametrize("text", ["0.0000001 USD/day", "1 token/day"])
def test_whatever_a_call_may_cost_it_is_sent_while_nothing_is_spent(clock: Clock, text: str) -> None:
    """While nothing is under way and less than the limit is spent, a call is sent; with `hard` it is not."""
    guard = guard_of(parse_text(text), clock)
    assert isinstance(guard.check(chat_request("1", 100_000)), Grant)
    assert isinstance(guard.check(chat_request("2", 100_000)), Denial)  # the first one holds what is left
    guard.settle(ended("1", request_model="gpt-5.5", usage=Usage(input=100, output=50)))
    assert isinstance(guard.check(chat_request("3", 100_000)), Denial)
    assert isinstance(guard_of(parse_text(text, hard=True), clock).check(chat_request("1", 100_000)), Denial)


def test_expected_cut_has_a_ceiling(clock: Clock) -> None:
    """A stream that reserved what is expected is cut at what the budget has left, if it could use more than that."""
    for limit, ceilings in (("0.02 USD", [2 * CENT]), ("900 USD", [])):
        guard = guard_of(parse_tables([{"limit": limit, "on_exceed": "cut"}]), clock)
        grant = guard.check(chat_request("1", 100_000, stream=True))
        assert isinstance(grant, Grant)
        assert [ceiling.amount for ceiling in grant.ceilings] == ceilings


def test_denials_say_what_is_true(clock: Clock) -> None:
    """A used-up budget is called exhausted; one with something left says how much."""
    guard = guard_of(parse_text("5 USD/day, 10 calls/rolling 1h"), clock)
    guard.settle(ended("0", 5 * DOLLAR + DOLLAR * 123 // 10_000))
    denial = guard.check(budget_request("1", 1))
    assert isinstance(denial, Denial)
    assert denial.message == (
        'Budget "5 USD/day" refused this call: it is exhausted, with $5.0123 of $5.00 spent. Raise the limit where it '
        "is configured, and restart the program; it renews at 2026-11-23 00:00 UTC."
    )
    assert (denial.reason, denial.retry_after) == ("exhausted", 12 * 3600)
    guard = guard_of(parse_text("5 USD/day"), clock)
    guard.check(budget_request("0", DOLLAR))
    guard.settle(ended("00", 3 * DOLLAR))
    denial = guard.check(budget_request("1", DOLLAR + 1))
    assert isinstance(denial, Denial)
    assert denial.message.startswith(
        'Budget "5 USD/day" refused this call: $2.0000 of $5.00 is left, $1.0000 of it reserved for 1 call under way, '
        "and the call is expected to cost up to $1.0001. The call did not wait: $1.0000 is held by calls that are "
        "still open in its own task. Raise the limit where"
    )
    assert denial.reason == "insufficient"
    assert guard.observed.denied == {("5 USD/day", "insufficient"): 1}


def test_session_and_run_of_the_settings(clock: Clock) -> None:
    """Calls that name no session or run have those of the settings, wherever a budget asks for them."""
    tables: list[dict[str, Any]] = [
        {"name": "matched", "limit": "9 calls", "match": {"session": "own", "run": "r"}},
        {"name": "per", "limit": "9 calls", "period": "total", "per": ["session", "run"], "unset": "skip"},
    ]
    guard = guard_of(parse_tables(tables), clock, session="own")
    guard.check(budget_request("1"))
    guard.check(budget_request("2", session="other"))
    counters = {counter.key: counter.reserved for counter in guard.store.counters(clock.now)}
    assert counters == {
        "matched/run/run=r": 1,
        "per/total/session=own/run=r": 1,
        "per/total/session=other/run=r": 1,
    }


def test_call_that_fits_when_those_before_are_settled(clock: Clock) -> None:
    """Where settling is behind, a call that does not fit waits for it: calls one after the other never meet."""
    guard = guard_of(parse_text("0.02 USD"), clock, Gate(MemoryStore()))
    for number in range(20):
        assert isinstance(guard.check(budget_request(str(number), 2 * CENT)), Grant)
        guard.settle(ended(str(number), 0))
    guard.settler.flush(5.0)
    assert (spent(guard), reserved(guard)) == ([0], 0)


def test_a_used_up_budget_does_not_wait(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing that is settled could make room, a call is refused at once, whatever is still to be settled."""
    guard = guard_of(parse_text("0.02 USD"), clock, Gate(MemoryStore()))
    guard.settle(ended("0", 2 * CENT))
    settled = threading.Event()
    waited: list[float] = []
    guard.settler.later(settled.wait)
    monkeypatch.setattr(guard.settler, "flush", waited.append)
    assert isinstance(guard.check(budget_request("1")), Denial)
    assert not waited
    settled.set()


class Gate:
    """A store across a network: it is settled with off the call path."""

    remote = True

    def __init__(self, inner: MemoryStore) -> None:
        """Pass everything on to `inner`."""
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        """Do as `inner` does."""
        return getattr(self.inner, name)


@forks
def test_a_forked_child_counts_from_zero(clock: Clock) -> None:
    """A child reports neither what its parent has counted and observed, nor its calls under way."""
    guard = guard_of(parse_text("0.02 USD"), clock)
    guard.settle(ended("1", 3 * CENT))
    guard.check(budget_request("2", 3 * CENT))
    assert (guard.observed.denied, guard.observed.overshoot, len(guard.observed.states)) != ({}, {}, 0)

    def is_fresh() -> bool:
        seen = guard.observed
        fresh = not (seen.denied or seen.overshoot or seen.store_errors or seen.states or guard.settler.waiting)
        return fresh and isinstance(guard.check(budget_request("3", 2 * CENT)), Grant)

    assert child_finds(is_fresh)
    assert guard.observed.denied


def test_guards_are_freed(clock: Clock) -> None:
    """A guard that is no longer used goes, with its store and its settler: what a fork renews holds none of them."""
    guard = guard_of(parse_text("1 USD"), clock)
    known = [weakref.ref(part) for part in (guard, guard.settler, guard.store)]
    del guard
    gc.collect()
    assert [part() for part in known] == [None] * 3


def test_background_keeps_its_reservation(clock: Clock) -> None:
    """A response in the background stays reserved until the fetch that finds it done: a hard budget holds for it."""
    guard = guard_of(parse_text("0.02 USD/day"), clock)
    for attempt in ("a", "b"):
        assert isinstance(guard.check(budget_request(attempt)), Grant)
        guard.settle(pending(attempt))
    assert isinstance(guard.check(budget_request("c")), Denial)
    assert (spent(guard), reserved(guard)) == ([0], 2 * CENT)
    guard.settle(ended("fetch", CENT // 2, settles="a"))
    assert (spent(guard), reserved(guard)) == ([CENT // 2], CENT)
    guard.unbilled(pending("b"))
    guard.unbilled(pending("b"))
    assert (spent(guard), reserved(guard)) == ([CENT // 2], 0)


def test_background_that_is_never_fetched_is_charged(clock: Clock) -> None:
    """A pending call is charged its reservation when its lease expires; a later request corrects that."""
    guard = guard_of(parse_text("1 USD/month"), clock)
    guard.check(budget_request("a"))
    guard.settle(pending("a"))
    clock.now += 1000
    assert (spent(guard), reserved(guard)) == ([CENT], 0)
    guard.settle(ended("fetch", CENT // 4, settles="a"))
    assert spent(guard) == [CENT // 4]


def test_background_calls_that_wait_are_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many responses in the background the oldest are left to their leases, and charged when they end."""
    monkeypatch.setattr("tollspan.budget.settlements.MAX_PENDING", 2)
    guard = guard_of(parse_text("1 USD/month"), clock)
    for attempt in ("a", "b", "c"):
        guard.check(budget_request(attempt))
        guard.settle(pending(attempt))
    guard.unbilled(pending("a"))
    assert reserved(guard) == 3 * CENT
    guard.unbilled(pending("c"))
    assert reserved(guard) == 2 * CENT
    clock.now += 1000
    assert spent(guard) == [2 * CENT]
