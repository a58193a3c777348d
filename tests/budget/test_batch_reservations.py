"""What is in a batch, what its models reserve where, and stores that fail while its results are settled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tollspan.budget import batch_contents
from tollspan.budget.batch_contents import BatchContents, Pricing
from tollspan.budget.batch_orders import BatchOrder
from tollspan.budget.bounds import Bounds
from tollspan.budget.denials.denial import Denial
from tollspan.budget.guard import Guard
from tollspan.budget.habits import Habits
from tollspan.budget.policy.budget import parse_tables
from tollspan.budget.request import Grant
from tollspan.budget.stores import StoreError
from tollspan.budget.stores.memory import MemoryStore
from tollspan.model.call_record import call_record
from tollspan.model.records import Call, Cost, Facts, Usage
from tollspan.prices import bundled
from tollspan.wire.batch_requests import BatchedRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tollspan.budget.batch_contents import ModelTotals
    from tollspan.budget.stores import Charge, CounterState

NOW = 1_790_000_000.0
CENT = 10**16
BOUNDS = Bounds(bundled)


def contents(sizes: Sequence[int], model: str | None = "gpt-4o-mini", **more: Any) -> BatchContents:
    """Return requests with messages of these sizes."""
    result, pricing = BatchContents(), Pricing(BOUNDS, Habits(), "openai", ("openai",), NOW)
    for size in sizes:
        body = {"messages": [{"role": "user", "content": "word " * size}], **more}
        request = BatchedRequest("openai_chat", model, body)
        result.add(request, json.dumps(body).encode(), pricing)
    return result


def totals(of: BatchContents, model: str | None = None) -> tuple[ModelTotals, ...]:
    """Return what is in a batch by model."""
    return of.totals(model, Pricing(BOUNDS, Habits(), "openai", ("openai",), NOW))


def order(*groups: ModelTotals, attempt: str = "a", known: bool = True) -> BatchOrder:
    """Return a batch with these requests."""
    traits = {"provider": "openai", "host": "api.openai.com"}
    return BatchOrder(
        attempt=attempt, traits=traits, groups=groups if known else None, window=60.0, content=b"{}", source="file f"
    )


def result(cost: int, model: str = "gpt-4o-mini-2024-07-18", batch: str = "b") -> Call:
    """Return the record of one result."""
    facts = Facts()
    facts.response_model = model
    return call_record(
        facts,
        call_id=f"{cost} {model}",
        operation_id=batch,
        provider="openai",
        started_at=0,
        duration=0.0,
        attribution={},
        http_status=200,
        usage=Usage(input=10, output=10),
        cost=Cost(amount=cost, quality="measured"),
        settles=batch,
    )


def guard(*tables: dict[str, Any], store: MemoryStore | None = None) -> Guard:
    """Return a guard of these budgets."""
    return Guard(parse_tables(tables), store or MemoryStore(), BOUNDS, clock=lambda: NOW)


def amounts(of: Guard) -> list[tuple[str, int, int]]:
    """Return what is spent and reserved, by budget."""
    assert of.settler.flush(10)
    return [(counter.name, counter.spent, counter.reserved) for counter in of.store.counters(NOW)]


def test_contents_can_be_kept() -> None:
    """What is noted of a file is the same after it was read again, with a model or without."""
    for model in ("gpt-4o-mini", None):
        whole = contents([1, 1, 500], model, max_tokens=100, n=2)
        again = BatchContents.of(whole.text)
        assert (again.requests, whole.requests) == (3, 3)
        assert totals(again, "gpt-4o-mini") == totals(whole, "gpt-4o-mini")
        assert totals(again, "gpt-4o-mini")[0].most.output == 600


def test_a_model_that_is_named_later_makes_little_difference() -> None:
    """Lines without a model are rounded up by no more than 256 tokens each."""
    (named,), (later,) = (
        totals(contents([5, 90, 900], max_tokens=50)),
        totals(contents([5, 90, 900], None, max_tokens=50), "gpt-4o-mini"),
    )
    assert named.most.input <= later.most.input <= named.most.input + 3 * 256
    assert named.most.cost is not None
    assert later.most.cost is not None
    assert named.most.cost <= later.most.cost


def test_expectations_follow_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large batch most requests are not estimated one by one, and the sum is about the same; bounds are exact."""
    sizes = [1 + number * 7 % 300 for number in range(1500)]
    (sampled,) = totals(contents(sizes))
    monkeypatch.setattr(batch_contents, "_SAMPLE", 10**6)
    (estimated,) = totals(contents(sizes))
    assert sampled.most == estimated.most
    assert sampled.high.input == pytest.approx(estimated.high.input, rel=0.02)
    assert sampled.high.output == estimated.high.output


def test_prices_are_those_of_batches() -> None:
    """gpt-4o-mini costs 0.30 USD per million output tokens in a batch, half of its price alone."""
    (one,) = totals(contents([1], max_tokens=10**6))
    assert one.most.cost is not None
    assert 30 * CENT < one.most.cost < 31 * CENT


def test_each_model_counts_where_it_matches() -> None:
    """A budget that matches one model reserves for its requests only, and is charged for its results only."""
    watched = guard(
        {"name": "all", "limit": "9 USD", "period": "total", "hard": True},
        {"name": "mini", "limit": "9 USD", "period": "total", "hard": True, "match": {"model": "gpt-4o-mini"}},
    )
    mini, large = totals(contents([1, 1], max_tokens=1000)), totals(contents([1], "gpt-4o", max_tokens=1000))
    assert isinstance(watched.check_batch(order(*mini, *large)), Grant)
    watched.batches.created("a", "b", "batch_1")
    most = [group.most.cost or 0 for group in (*mini, *large)]
    assert amounts(watched) == [("all", 0, sum(most)), ("mini", 0, most[0])]
    assert watched.batches.settle([result(5), result(7, "gpt-4o-2024-08-06")]) == []
    assert amounts(watched) == [("all", 12, sum(most) - 12), ("mini", 5, most[0] - 5)]
    watched.batches.finish("b")
    assert amounts(watched) == [("all", 12, 0), ("mini", 5, 0)]


def test_a_batch_has_to_fit_whole() -> None:
    """Also in a budget that is not hard: one that lets a call pass while anything is left."""
    watched = guard({"limit": "0.001 USD", "period": "total"})
    assert isinstance(watched.check_batch(order(*totals(contents([1], max_tokens=1000)))), Grant)
    denial = watched.check_batch(order(*totals(contents([1] * 9, max_tokens=1000)), attempt="2"))
    assert isinstance(denial, Denial)
    assert denial.reason == "insufficient"


def test_unknown_requests_reserve_the_least() -> None:
    """They pass while anything is left, and not a moment longer."""
    watched = guard({"limit": "1 USD", "period": "total"})
    assert isinstance(watched.check_batch(order(known=False)), Grant)
    watched.batches.created("a", "b", "batch_1")
    watched.batches.settle([result(100 * CENT - 1)])
    assert amounts(watched)[0][1] == 100 * CENT - 1
    assert isinstance(watched.check_batch(order(known=False, attempt="2")), Grant)
    watched.batches.settle([result(1)])
    denial = watched.check_batch(order(known=False, attempt="3"))
    assert isinstance(denial, Denial)
    assert denial.reason == "exhausted"


def test_results_of_other_batches_are_returned() -> None:
    """They are settled as calls without a reservation."""
    watched = guard({"limit": "1 USD", "period": "total"})
    other = result(3, batch="other")
    assert watched.batches.settle([other]) == [other]
    watched.settle(other)
    assert amounts(watched)[0][1] == 3


class _Failing(MemoryStore):
    """A store that fails some times, before or after it has done what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.before = self.after = 0

    def noted(self, kind: str, name: str, now: float) -> str | None:
        """Fail before, if that is due."""
        if self.before:
            self.before -= 1
            raise StoreError("gone")
        return super().noted(kind, name, now)

    def settle_part(
        self, attempt: str, part: str, charges: Sequence[Charge], released: Sequence[int], now: float
    ) -> tuple[CounterState, ...] | None:
        """Fail after, if that is due."""
        states = super().settle_part(attempt, part, charges, released, now)
        if self.after:
            self.after -= 1
            raise StoreError("no answer")
        return states


@pytest.mark.parametrize(("before", "after"), [(1, 0), (0, 1), (2, 1)])
def test_a_store_that_fails(before: int, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are settled once it answers, and once."""
    monkeypatch.setattr("tollspan.budget.settler.PAUSE", 0.01)
    store = _Failing()
    watched = guard({"name": "all", "limit": "9 USD", "period": "total", "hard": True}, store=store)
    (group,) = totals(contents([1, 1], max_tokens=1000))
    assert isinstance(watched.check_batch(order(group)), Grant)
    watched.batches.created("a", "b", "batch_1")
    store.before, store.after = before, after
    assert watched.batches.settle([result(5)]) == []
    assert amounts(watched) == [("all", 5, (group.most.cost or 0) - 5)]
    store.before = before
    watched.batches.finish("b")
    assert amounts(watched) == [("all", 5, 0)]


def test_a_lease_that_the_store_has_lost() -> None:
    """Results are charged although nothing is reserved any more (a server may evict keys)."""
    store = MemoryStore()
    watched = guard({"name": "all", "limit": "9 USD", "period": "total"}, store=store)
    assert isinstance(watched.check_batch(order(*totals(contents([1])))), Grant)
    watched.batches.created("a", "b", "batch_1")
    store.settle("a", [], NOW)
    assert watched.batches.settle([result(5)]) == []
    assert amounts(watched) == [("all", 5, 0)]
