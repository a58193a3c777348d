"""What is known of a refused call: why, how much was missing, and what to do that works where the budget is counted."""

from __future__ import annotations

import json
import logging
import sqlite3
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import tollspan
from tests.ledger.call_factory import EVERYTHING
from tollspan.budget.denials.explanation import explained, refused_line
from tollspan.budget.stores.opening import store_of
from tollspan.ledger.conditions import Where
from tollspan.ledger.queries import Ledger
from tollspan.model.refusal import Refusal, RefusedCalls, RefusedTally
from tollspan.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Metered

URL = "https://api.openai.com/v1/chat/completions"
GPT = "gpt-4o-mini"
ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": GPT,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000},
}


def ask(**more: Any) -> httpx.Response:
    """Make one call, which is answered without a network."""
    body = {"model": GPT, "messages": [{"role": "user", "content": "hi"}], **more}
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=ANSWER))) as client:
        return client.post(URL, json=body)


def wall(limit: str, **more: str) -> dict[str, Any]:
    """Return a budget that is never passed: a call that may cost too much is refused, whatever such calls cost."""
    return {"limit": limit, "hard": True, **more}


def message() -> str:
    """Return the text of the refusal of one call."""
    response = ask()
    assert response.status_code == 402
    return str(response.json()["error"]["message"])


def test_a_refusal_is_kept_with_its_call(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """Record, ledger and span have budget, counter, reason, amounts and remedy, and the amounts are exact."""
    path = tmp_path / "ledger.db"
    metered = instrumented(budget=[wall("0.01 USD", name="small", period="day")], ledger=str(path))
    ask(max_tokens=1000)
    (spent,) = [call.cost.amount for call in metered.calls]
    assert spent
    ask(max_tokens=10**6)
    denied = metered.calls[1]
    refusal = denied.refusal
    assert refusal is not None
    assert (denied.outcome, denied.counted, denied.model) == ("denied", "denied", GPT)
    assert (refusal.budget, refusal.reason, refusal.unit) == ("small", "insufficient", "usd")
    assert refusal.counter is not None
    assert refusal.counter.startswith("small/20")
    assert (refusal.limit, refusal.left, refusal.held) == (10**16, 10**16 - spent, 0)
    assert refusal.requested is not None
    assert refusal.requested > 10**16 - spent
    attributes = dict(metered.spans[1].attributes or {})
    assert attributes[names.BUDGET_COUNTER] == refusal.counter
    assert attributes[names.BUDGET_LIMIT] == 0.01
    assert attributes[names.BUDGET_REQUESTED] == pytest.approx(refusal.requested / 10**18)
    assert attributes[names.BUDGET_REMEDY] == refusal.remedy
    assert tollspan.flush()
    with Ledger(path) as ledger:
        (kept,) = ledger.calls(Where(outcome="denied"))
        figures = ledger.figures()
        assert kept.call.refusal == refusal
        assert [calls.largest for calls in ledger.refused()] == [refusal]
    assert (figures.calls, figures.failed, figures.denied) == (1, 0, 1)
    with sqlite3.connect(path) as db:
        (limit,) = db.execute("SELECT json_extract(refusal, '$.limit') FROM calls WHERE outcome = 'denied'").fetchone()
    db.close()
    assert limit == "0.01"


def test_calls_under_way_are_counted(instrumented: Callable[..., Metered]) -> None:
    """Where this process alone counts, the refusal says how many calls hold what is reserved."""
    metered = instrumented(budget="2 calls")
    body = {"model": GPT, "messages": [], "stream": True}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=iter([b"data: {}\n\n"])))
    with (
        httpx.Client(transport=transport) as client,
        client.stream("POST", URL, json=body),
        client.stream("POST", URL, json=body),
    ):
        assert "2 of it reserved for 2 calls under way" in message()
    (refusal,) = [call.refusal for call in metered.calls if call.refusal is not None]
    assert (refusal.held, refusal.holders, refusal.unit) == (2, 2, "calls")


@pytest.mark.parametrize("store", ["memory", "prometheus"])
def test_no_command_is_named_that_cannot_work(
    instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """A budget in memory, or read from Prometheus, is changed where it is configured, and by no command."""
    if store == "prometheus":
        from tollspan.budget.stores.prometheus import PrometheusStore

        monkeypatch.setattr(PrometheusStore, "_others", lambda _self, updates, _now: [0] * len(updates))
        store = "prometheus:http://127.0.0.1:9"
    instrumented(budget="0 USD/day", budget_store=store)
    text = message()
    assert "tollspan budget" not in text
    assert "Raise the limit where it is configured, and restart the program; it renews at" in text


def test_the_command_that_is_named_works(
    instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The command in the text names the store if it would not find it by itself."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    instrumented(budget="0 calls/day", budget_store="sqlite")
    assert "tollspan budget set '0 calls/day' LIMIT;" in message()
    tollspan.uninstrument()
    path = tmp_path / "my budgets.sqlite"
    instrumented(budget="0 calls/day", budget_store=f"sqlite:{path}")
    assert f"tollspan budget set '0 calls/day' LIMIT --store 'sqlite:{path}';" in message()


@pytest.mark.parametrize(
    ("setting", "address"),
    [
        ("redis://127.0.0.1:6399/2", "redis://127.0.0.1:6399/2"),
        ("redis://me:secret@127.0.0.1:6399/0?deadline=2", "redis://USER:PASSWORD@127.0.0.1:6399/0"),
        ("valkey://127.0.0.1:1?namespace=shop", "redis://127.0.0.1:1?namespace=shop"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
    ],
)
def test_the_address_of_a_server_has_no_password(setting: str, address: str) -> None:
    """The address for `--store` leads to the same server and namespace; a password is for its user to fill in."""
    pytest.importorskip("redis")
    store = store_of(setting)
    assert store.address == address
    store.close()


def test_a_block_is_raised_where_it_is(instrumented: Callable[..., Metered]) -> None:
    """A budget of a `with` block has no command either: the block is in the program."""
    instrumented()
    with tollspan.budget("0 USD"):
        assert message().endswith("Raise the limit of the tollspan.budget block around it.")


def test_a_limit_on_output_is_recommended_where_it_helps(instrumented: Callable[..., Metered]) -> None:
    """A call that already limits its output is not told to; neither is one whose budget has nothing left."""
    instrumented(budget=[wall("0.0001 USD")])
    assert "such as max_tokens" in ask().json()["error"]["message"]
    assert "max_tokens" not in ask(max_tokens=10**5).json()["error"]["message"]
    tollspan.uninstrument()
    instrumented(budget="0 USD")
    assert "max_tokens" not in message()
    tollspan.uninstrument()
    instrumented(budget="1 identical call")
    ask()
    assert "end the loop that repeats it. Raise the limit" in message()


def test_a_call_that_was_never_sent_took_no_time(
    instrumented: Callable[..., Metered], caplog: pytest.LogCaptureFixture
) -> None:
    """A denied call is in no histogram of durations, and its log line has neither tokens nor seconds."""
    caplog.set_level(logging.INFO, "tollspan.calls")
    metered = instrumented(budget="0 USD/day", log_calls=True)
    ask()
    assert metered.points(names.OPERATION_DURATION) == []
    (point,) = metered.points(names.CALLS)
    assert (point.value, point.attributes[names.OUTCOME]) == (1, "denied")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "tollspan.calls"]
    assert line.startswith(f"openai {GPT}: not sent, refused by 0 USD/day (exhausted) |")


def test_a_store_that_fails_is_one_line(
    instrumented: Callable[..., Metered], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The log says what is wrong with the store and that calls are refused for it, once, without a traceback."""
    path = tmp_path / "budgets.sqlite"
    path.write_bytes(b"no database" * 1000)
    metered = instrumented(budget="1 USD/day", budget_store=f"sqlite:{path}")
    caplog.clear()
    for _ in range(3):
        assert "the budget cannot be checked" in message()
    (line,) = [record.getMessage() for record in caplog.records if "calls are refused" in record.getMessage()]
    assert line == (
        f'budget store: {path}: file is not a database; calls are refused, because budget "1 USD/day" has '
        'store_failure = "closed"'
    )
    assert "not affected" not in caplog.text
    assert "Traceback" not in caplog.text
    refusals = [call.refusal for call in metered.calls if call.refusal is not None]
    assert {(each.reason, each.limit, each.left) for each in refusals} == {("store", 10**18, None)}
    assert all(each.requested and each.counter and each.counter.startswith("1 USD%2Fday/") for each in refusals)
    assert metered.errors()["budget store:StoreError"] >= 3


def test_a_store_that_fails_open_says_so(
    instrumented: Callable[..., Metered], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Where calls are let through unchecked, the log says that instead."""
    path = tmp_path / "budgets.sqlite"
    path.write_bytes(b"no database" * 1000)
    budget = {"name": "b", "limit": "1 USD", "store_failure": "open"}
    instrumented(budget=[budget], budget_store=f"sqlite:{path}")
    assert ask().status_code == 200
    assert "calls are sent without a check" in caplog.text
    assert "calls are refused" not in caplog.text


def test_a_check_that_fails_is_no_trifle(
    instrumented: Callable[..., Metered], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure of tollspan's own check refuses the call, and the log does not say that the call was not affected."""
    metered = instrumented(budget="1 USD/day")

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(metered.recorder.guard, "check", fail)
    assert "its own check failed (ZeroDivisionError)" in message()
    assert "the call was refused, because a call that cannot be checked is not sent" in caplog.text
    assert "not affected" not in caplog.text


def test_a_tools_refusal_is_counted(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """A paid tool that a budget refuses is a refused call like any other."""
    file = tmp_path / "refused"
    metered = instrumented(budget="0 USD/day", refusals=str(file))

    @tollspan.tool(price="0.01 USD")
    def search() -> None:
        """Cost a cent."""

    with pytest.raises(tollspan.BudgetExceeded):
        search()
    (call,) = metered.calls
    assert call.refusal is not None
    assert (call.refusal.reason, call.refusal.requested) == ("exhausted", 10**16)
    assert json.loads(file.read_text().split("\t")[4])["budget"] == "0 USD/day"
    assert [refused.count for refused in metered.recorder.refusals.calls] == [1]


def refusal(requested: int | None = 3 * 10**18, **changes: Any) -> Refusal:
    """Return a refusal of a budget in dollars."""
    facts = {"budget": "b", "reason": "insufficient", "unit": "usd", "limit": 5 * 10**18, "remedy": "Do this."}
    return Refusal(**{**facts, "requested": requested, **changes})


def test_written_and_read_back() -> None:
    """A refusal survives JSON without loss; what a newer tollspan adds is left out, and nonsense is an error."""
    assert EVERYTHING.refusal is not None
    for each in (EVERYTHING.refusal, refusal(10**24 + 1), refusal(None), refusal(7, unit="tokens", waited=0.5)):
        data = json.loads(json.dumps(each.as_data()))
        assert Refusal.of({**data, "added_later": 1}) == each
    with pytest.raises(TypeError):
        Refusal.of({"reason": "store"})


@pytest.mark.parametrize(
    ("calls", "line"),
    [
        ([refusal()], "b refused 1 call: it may cost $3.0000. Do this."),
        ([refusal()] * 3, "b refused 3 calls: each may cost $3.0000. Do this."),
        ([refusal(), refusal(2), refusal(1)], "b refused 3 calls: they may cost up to $3.0000 each. Do this."),
        ([refusal(2500, unit="tokens")], "b refused 1 call: it may use 2,500 tokens. Do this."),
        ([refusal(1, unit="calls")], "b refused 1 call: less is left than a call needs. Do this."),
        ([refusal(reason="exhausted", remedy=None)] * 2, "b refused 2 calls: its limit is spent."),
        (
            [refusal(None, budget="", reason="settings")],
            "tollspan refused 1 call: the budgets could not be set up. Do this.",
        ),
        ([refusal(reason="from the future")], "b refused 1 call: from the future. Do this."),
    ],
)
def test_several_in_one_line(calls: list[Refusal], line: str) -> None:
    """Calls that a budget refused for one reason are one line: how many, why, and what to do."""
    tally = RefusedTally()
    for each in calls:
        tally.add(RefusedCalls.one(each))
    (refused,) = tally.calls
    assert refused_line(refused) == line


def test_explained() -> None:
    """What calls under way held is told with how many they were and how long the call waited for them."""
    rows = dict(explained(refusal(left=2 * 10**18, held=10**18, holders=3, waited=30.0)))
    assert rows["left"] == "$2.0000 of $5.00, $1.0000 of it held by 3 calls under way (waited 30.0 s for them)"
    assert rows["do"] == "Do this."
    assert "counter" not in rows
