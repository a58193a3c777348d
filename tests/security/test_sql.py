"""SQL is put together of tollspan's own words only: values, however they read, go in as parameters."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from tollspan.budget.stores import Charge, CounterUpdate
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.ledger.conditions import Where
from tollspan.ledger.queries import Ledger
from tollspan.ledger.writer import Writer
from tollspan.model.records import Call, Cost, Usage
from tollspan.model.text import as_text

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE: Final = (
    "'; DROP TABLE calls; --",
    '" OR 1=1 --',
    "x') UNION SELECT sql FROM sqlite_master --",
    "%_[]*?",
    "null\x00byte",
    "\ud83d half a pair",
    "$.a' , '$.b",
    "]]>\\",
)
CALL: Final = Call(
    id="1",
    operation_id="1",
    provider="openai",
    operation="chat",
    started_at=1_790_000_000 * 10**9,
    duration=1.0,
    usage=Usage(input=3, output=4),
    cost=Cost(amount=10**15, quality="measured"),
)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Return a ledger with a call for every hostile word, which stands wherever a word may."""
    path = tmp_path / "ledger.db"
    writer = Writer(path, lambda _: None)
    for number, word in enumerate(HOSTILE):
        writer.add(
            replace(
                CALL,
                id=f"{number}{word}",
                operation_id=word,
                provider=word,
                operation=word,
                request_model=word,
                response_model=word,
                tier=word,
                region=word,
                error_type=word,
                attribution={
                    "session": word,
                    "user": word,
                    "run": word,
                    "step": word,
                    "agent": word,
                    f"tag.{word}": word,
                },
            )
        )
    writer.add(replace(CALL, id="plain"))
    assert writer.close()
    return path


def test_hostile_words_are_kept_as_they_are(ledger: Path) -> None:
    """Every call is there, and its words are those that were written; the tables are as they were."""
    with Ledger(ledger) as kept:
        calls = [one.call for one in kept.each()]
        assert kept.figures().calls == len(HOSTILE) + 1
    readable = [as_text(word) for word in HOSTILE]
    assert sorted(call.provider for call in calls) == sorted([*readable, "openai"])
    with closing(sqlite3.connect(ledger)) as db:
        assert db.execute("SELECT count(*) FROM calls").fetchone() == (len(HOSTILE) + 1,)


@pytest.mark.parametrize("word", HOSTILE)
@pytest.mark.parametrize("field", ["provider", "model", "session", "user", "run", "agent"])
def test_hostile_words_find_their_own_call(ledger: Path, field: str, word: str) -> None:
    """A filter by a hostile word finds the one call that has it, and no other."""
    word = word.encode("utf-8", "replace").decode()
    with Ledger(ledger) as kept:
        found = kept.calls(Where(**dict[str, Any]({field: word})))
        assert len(found) == 1
        assert kept.figures(Where(**dict[str, Any]({field: word}))).calls == 1


@pytest.mark.parametrize("word", [word for word in HOSTILE if word.isascii() and word.isprintable()])
def test_hostile_dimensions_are_refused_or_harmless(ledger: Path, word: str) -> None:
    """A dimension that is none is refused; the name of a tag may be anything."""
    with Ledger(ledger) as kept:
        with pytest.raises((LookupError, ValueError)):
            kept.groups([word])
        assert sum(group.figures.calls for group in kept.groups([f"tag.{word}"])) == len(HOSTILE) + 1
        assert kept.figures().calls == len(HOSTILE) + 1


@pytest.mark.parametrize("word", [word for word in HOSTILE if word.isascii()])
def test_hostile_counters_are_kept_apart(tmp_path: Path, word: str) -> None:
    """A budget's counter may have any name: it counts for itself, and nothing else is touched."""
    plain, hostile = CounterUpdate("plain", "plain", 5, 100), CounterUpdate(word, word, 7, 100)
    with closing(SqliteStore(tmp_path / "budgets.db")) as store:
        for attempt, line in (("1", plain), (word, hostile)):
            assert store.reserve(attempt, [line], 0.0, 100.0).refused is None
            store.settle(attempt, [Charge(line.key, 0, line.amount)], 1.0)
        assert [level.spent for level in store.states([plain, hostile], 2.0)] == [5, 7]
