"""A session that is reset, here or from another process, has its whole budget, and an empty status line."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import openai
import pytest
from click.testing import CliRunner

import tollspan
from tests.budget.test_calls import chat
from tollspan.budget.bounds import Bounds
from tollspan.budget.guard import Guard
from tollspan.budget.policy.budget import parse_tables
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.cli.main import main
from tollspan.ledger.resets import reset_session
from tollspan.model.records import Call, Cost, Usage
from tollspan.prices import bundled
from tollspan.setup.guards import LOOK_EVERY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from examples.fake_provider import FakeProvider
    from tests.conftest import Metered

CENT = 10**16
TABLES: list[dict[str, Any]] = [
    {"name": "session", "limit": "1 USD", "period": "session"},
    {"name": "per", "limit": "1 USD", "period": "day", "per": ["session", "user"]},
    {"name": "all", "limit": "1 USD", "period": "total"},
]


@pytest.fixture
def gpt(fake: FakeProvider) -> openai.OpenAI:
    """Return OpenAI's client, which talks to the fake provider."""
    return openai.OpenAI(base_url=fake.base_url("openai"), api_key="any")


def spend(guard: Guard, number: int, **attribution: str) -> None:
    """Have a call charged."""
    guard.settle(
        Call(
            id=str(number),
            operation_id=str(number),
            provider="openai",
            operation="chat",
            started_at=0,
            duration=1.0,
            usage=Usage(input=1, output=1),
            cost=Cost(amount=CENT, quality="measured"),
            attribution=attribution,
        )
    )


def spent(guard: Guard) -> dict[str, int]:
    """Return the cents that are spent on each counter that has any."""
    counters = guard.store.counters(guard.clock())
    return {counter.key.split("/", 2)[-1]: counter.spent // CENT for counter in counters if counter.spent}


@pytest.mark.parametrize("shared", [False, True])
def test_only_what_is_kept_for_the_session_is_forgotten(tmp_path: Path, shared: bool) -> None:
    """A reset empties counters kept by the session's name, whatever is in it, and neither others' nor everybody's."""
    store = SqliteStore(tmp_path / "b.sqlite") if shared else MemoryStore()
    guard = Guard(parse_tables(TABLES), store, Bounds(bundled), session="own", clock=lambda: 1_790_000_000.0)
    for number, session in enumerate(("a/b=c", "a", "")):
        spend(guard, number, user="u", **({"session": session} if session else {}))
    guard.reset_sessions(("a/b=c",))
    assert spent(guard) == {
        "session=a": 1,
        "session=own": 1,
        "session=a/user=u": 1,
        "session=own/user=u": 1,
        "total": 3,
    }
    guard.reset_sessions(("own", "unknown"))
    assert spent(guard) == {"session=a": 1, "session=a/user=u": 1, "total": 3}
    guard.reset_sessions(None)
    assert spent(guard) == {"total": 3}
    guard.close()


@pytest.mark.parametrize("place", ["memory", "sqlite"])
def test_reset_in_the_program(
    instrumented: Callable[..., Metered], hosts: str, gpt: openai.OpenAI, tmp_path: Path, place: str
) -> None:
    """`tollspan.reset(session)` lets a session whose budget was used up go on, and clears its status line."""
    store = "memory" if place == "memory" else f"sqlite:{tmp_path}/b.sqlite"
    instrumented(hosts=hosts, budget="1 call/session", budget_store=store)
    for session in ("a", "b"):
        with tollspan.attribution(session=session):
            chat(gpt)
            with pytest.raises(openai.APIStatusError):
                chat(gpt)
            assert tollspan.budget.line() == "[Cost: $0.00 | 1 call]"
    tollspan.reset("a")
    with tollspan.attribution(session="a"):
        assert tollspan.budget.line() == "[Cost: —]"
        chat(gpt)
    with tollspan.attribution(session="b"), pytest.raises(openai.APIStatusError):
        chat(gpt)
    tollspan.reset()
    assert tollspan.budget.line() == "[Cost: —]"
    for session in ("a", "b"):  # each session of this process, as README and reference say
        with tollspan.attribution(session=session):
            chat(gpt)


def test_a_reset_leaves_sessions_of_other_processes(
    instrumented: Callable[..., Metered], hosts: str, gpt: openai.OpenAI, tmp_path: Path
) -> None:
    """`tollspan.reset()` resets the sessions in which this process has made calls, and no others in the same store."""
    path = tmp_path / "b.sqlite"
    instrumented(hosts=hosts, budget="1 call/session", budget_store=f"sqlite:{path}", session="mine")
    chat(gpt)
    other = Guard(parse_tables(TABLES), SqliteStore(path), Bounds(bundled), session="other")
    spend(other, 1)
    tollspan.reset()
    assert {counter.split("=")[-1]: status.spent for status in tollspan.budget.status() if (counter := status.counter)}
    assert spent(other)["session=other"] == 1
    chat(gpt)
    other.close()


@pytest.mark.parametrize("name", ["x" * 1500, "chat\t17", "chat\ud800"])
def test_names_are_the_same_for_function_and_command(
    instrumented: Callable[..., Metered],
    hosts: str,
    gpt: openai.OpenAI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """A session is reset by the name that the program gave it, however long, and whatever characters it has."""
    ledger, store = f"{tmp_path}/l.db", f"sqlite:{tmp_path}/b.sqlite"
    instrumented(hosts=hosts, budget="1 call/session", budget_store=store, ledger=ledger)
    for reset in (run_reset, tollspan.reset):
        with tollspan.attribution(session=name):
            chat(gpt)
            assert tollspan.flush()
            monkeypatch.setenv("TOLLSPAN_LEDGER", ledger)
            monkeypatch.setenv("TOLLSPAN_BUDGET_STORE", store)
            reset(name)
            assert tollspan.summary(name).calls == 0
    with tollspan.attribution(session=name):
        chat(gpt)


def run_reset(name: str) -> None:
    """Run `tollspan reset NAME`."""
    done = CliRunner().invoke(main, ["reset", "--", name])
    assert done.exit_code == 0, done.output


def test_a_store_that_is_locked_is_no_reason_to_wait(
    instrumented: Callable[..., Metered], hosts: str, gpt: openai.OpenAI, tmp_path: Path
) -> None:
    """A reset ends within two seconds though another process has locked both files."""
    ledger, store = f"{tmp_path}/l.db", f"sqlite:{tmp_path}/b.db"
    instrumented(hosts=hosts, budget="1 call/session", budget_store=store, ledger=ledger)
    with tollspan.attribution(session="a"):
        chat(gpt)
    assert tollspan.flush()
    with closing(sqlite3.connect(tmp_path / "b.db")) as one, closing(sqlite3.connect(tmp_path / "l.db")) as two:
        one.execute("BEGIN IMMEDIATE")
        two.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        tollspan.reset("a")
        assert time.monotonic() - began < 2
    assert tollspan.summary("a").calls == 0


def test_reset_by_another_process(
    instrumented: Callable[..., Metered], hosts: str, gpt: openai.OpenAI, tmp_path: Path
) -> None:
    """Who shares the ledger resets a session whose budget is in this process's memory: soon a call passes again."""
    path = tmp_path / "ledger.db"
    metered = instrumented(hosts=hosts, budget="1 call/session, 9 calls", session="a", ledger=str(path))
    chat(gpt)
    with pytest.raises(openai.APIStatusError):
        chat(gpt)
    assert tollspan.flush()
    reset_session(path, "b")
    with pytest.raises(openai.APIStatusError):
        chat(gpt)
    reset_session(path, "a")
    assert tollspan.budget.line() == "[Cost: —]"
    time.sleep(LOOK_EVERY)
    assert metered.recorder.guard is not None
    assert metered.recorder.guard.poll_resets is not None
    metered.recorder.guard.poll_resets()  # as a call does, which does not wait for what that finds
    assert metered.recorder.background.flush(10)
    chat(gpt)
    with pytest.raises(openai.APIStatusError):
        chat(gpt)
    calls = {item.budget: item.spent for item in tollspan.budget.status()}
    assert calls == {"1 call/session": 1, "9 calls": 2}
    assert not metered.errors()
