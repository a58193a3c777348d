"""What calls usually use is known to new processes, and to the other processes that count on the same budgets."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import tollspan
from tests.budget.test_guard import NOON, Clock, chat_request, guard_of, learned, reserved_for
from tollspan.budget.habits import HabitKey, Habits, Sample, experience_of, key_of, kind_of, merged
from tollspan.budget.policy.budget import parse_text
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.model.records import Facts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Metered

BUDGET = parse_text("100 USD/day, 10_000_000 tokens/day")
COLD = (4196, 4196)
"""What `chat_request` reserves without experience: 100 tokens of input and 4,096 of output."""
KEY = HabitKey("openai", "gpt-5.5", "chat", "")


def experienced(path: Path, outputs: list[int]) -> None:
    """Leave a file of counters behind in which calls with these outputs were counted."""
    guard = guard_of(BUDGET, Clock(), SqliteStore(path))
    learned(guard, outputs)
    guard.close()


def test_a_new_process_knows_what_the_last_one_learned(tmp_path: Path) -> None:
    """What was learned is kept in the file with the counters: the first call of a process reserves what is usual."""
    path = tmp_path / "b.sqlite"
    experienced(path, [50] * 20)
    guard = guard_of(BUDGET, Clock(), SqliteStore(path))
    high, usual = reserved_for(guard, chat_request("1"))
    assert 150 <= usual <= high <= 155
    guard.close()


def test_processes_learn_from_each_other(tmp_path: Path) -> None:
    """Two processes that are at work know after a while what the other one has learned."""
    clock = Clock()
    one, two = (guard_of(BUDGET, clock, SqliteStore(tmp_path / "b.sqlite")) for _ in range(2))
    learned(one, [1000] * 30)
    one.finish(5)
    learned(two, [1000])
    two.finish(5)
    assert reserved_for(two, chat_request("1"))[0] < 1200
    (known,) = two.store.habits().values()
    assert known["calls"] == 31
    one.close()
    two.close()


def test_files_of_the_first_version_are_read(tmp_path: Path) -> None:
    """A file that was written before there was anything to learn keeps its counters, and gets its table."""
    path = tmp_path / "b.sqlite"
    experienced(path, [50])
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE habit")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    guard = guard_of(BUDGET, Clock(), SqliteStore(path))
    assert reserved_for(guard, chat_request("1")) == COLD
    assert guard.store.counters(NOON)[0].spent > 0
    learned(guard, [50])
    guard.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM habit").fetchone() == (1,)


@pytest.mark.parametrize("sums", ["not json", "[1]", '{"calls": "many"}', '{"o8": -1}', '{"o8": NaN}', '{"o8": 1e999}'])
def test_what_others_have_written_is_not_believed(tmp_path: Path, sums: str) -> None:
    """Sums that no tollspan has written teach nothing, and keep no call from being checked."""
    path = tmp_path / "b.sqlite"
    experienced(path, [50])
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE habit SET sums = ?", (sums,))
        db.execute("INSERT INTO habit VALUES ('no key', '{}', 0)")
        db.commit()
    guard = guard_of(BUDGET, Clock(), SqliteStore(path))
    assert reserved_for(guard, chat_request("1")) == COLD
    guard.close()


def test_a_new_process_knows_the_ledger(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """Where counters are new, or in memory, the newest calls of the ledger say what a model usually writes."""
    options: dict[str, Any] = {"ledger": str(tmp_path / "ledger.db"), "budget": "1_000_000 tokens"}
    instrumented(**options)
    for _ in range(5):
        chat()
    tollspan.uninstrument()
    metered = instrumented(**options)
    guard = metered.recorder.guard
    assert guard is not None
    seen: list[int] = []

    def answer(_: httpx.Request) -> httpx.Response:
        seen.extend(counter.reserved for counter in guard.store.counters(guard.clock()))
        return httpx.Response(200, json={})

    chat(answer)
    assert 40 < seen[0] < 100  # not 4,096


def chat(answer: Callable[[httpx.Request], httpx.Response] | None = None) -> None:
    """Make a call that writes 40 tokens, or is answered otherwise."""
    usage = {"prompt_tokens": 10, "completion_tokens": 40, "total_tokens": 50}
    body = {"object": "chat.completion", "model": "gpt-5.5", "choices": [], "usage": usage}
    transport = httpx.MockTransport(answer or (lambda _: httpx.Response(200, json=body)))
    request = {"model": "gpt-5.5", "messages": [{"role": "user", "content": "hello"}]}
    with httpx.Client(transport=transport) as client:
        client.post("https://api.openai.com/v1/chat/completions", json=request)


def test_kinds_are_apart() -> None:
    """Requests with tools, with reasoning, or with more than text are habits of their own."""
    facts, tools = Facts(), {"tools": [{"type": "function"}]}
    assert kind_of(facts, {}, is_text=True) == ""
    kinds = {kind_of(facts, tools, is_text=True), kind_of(facts, tools, is_text=False), ""}
    facts.reasoning_level = "high"
    kinds |= {kind_of(facts, {}, is_text=True), kind_of(facts, tools, is_text=True)}
    facts.reasoning_level = "low"
    kinds |= {kind_of(facts, {}, is_text=True)}
    assert len(kinds) == 6


def test_merging_is_the_same_as_learning_in_order() -> None:
    """What a store makes of the sums of two processes is what one process knows that saw the calls in that order."""
    samples = [Sample(number % 400, 10, 20, 3, 4) for number in range(300)]
    whole = experience_of(samples)
    in_parts: dict[str, float] = {}
    for start in range(0, 300, 7):
        in_parts = merged(in_parts, experience_of(samples[start : start + 7]))
    assert {name: amount for name, amount in whole.items() if amount > 1e-3} == pytest.approx(
        {name: amount for name, amount in in_parts.items() if amount > 1e-3}
    )
    one, other = Habits(), Habits()
    one.put({str(KEY): whole})
    other.put({str(KEY): in_parts})
    habits = [habits.of(KEY) for habits in (one, other)]
    assert habits[0] is not None
    assert habits[1] is not None
    assert habits[0].output_high == habits[1].output_high
    assert habits[0].input_share == pytest.approx(0.5)


def test_keys_are_read_back() -> None:
    """The text of a key says which it is; other texts say nothing."""
    assert key_of(str(KEY)) == KEY
    assert [key_of(text) for text in ("", "[]", '["a", 1, "b", "c"]', "{}", '"abcd"')] == [None] * 5
