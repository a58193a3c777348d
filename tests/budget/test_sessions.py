"""A session that is reset, here or from another process, has its whole budget, and an empty status line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest

import tollspan
from tests.budget.test_calls import chat
from tollspan.budget.bounds import Bounds
from tollspan.budget.guard import Guard
from tollspan.budget.policy.budget import parse_tables
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.ledger.resets import reset_session
from tollspan.model.records import Call, Cost, Usage
from tollspan.prices import bundled

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
    guard.reset_session("a/b=c")
    assert spent(guard) == {
        "session=a": 1,
        "session=own": 1,
        "session=a/user=u": 1,
        "session=own/user=u": 1,
        "total": 3,
    }
    guard.reset_session()
    left = {"session=a": 1, "session=a/user=u": 1} if shared else {}  # what others count too is not all forgotten
    assert spent(guard) == {**left, "total": 3}
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


def test_reset_by_another_process(
    instrumented: Callable[..., Metered], hosts: str, gpt: openai.OpenAI, tmp_path: Path
) -> None:
    """Who shares the ledger resets a session whose budget is in this process's memory: its next call passes."""
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
    chat(gpt)
    with pytest.raises(openai.APIStatusError):
        chat(gpt)
    calls = {item.budget: item.spent for item in tollspan.budget.status()}
    assert calls == {"1 call/session": 1, "9 calls": 2}
    assert not metered.errors()
