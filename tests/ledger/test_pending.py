"""What is pending, failed and answered is counted alike by the counters, the summary in memory and the ledger."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.ledger.call_factory import DENIED, FAILED, START, made
from tests.ledger.test_totals import write
from tollspan.ledger import schema
from tollspan.ledger.conditions import DAY, Where
from tollspan.ledger.process_totals import ProcessTotals
from tollspan.ledger.queries import Ledger
from tollspan.ledger.schema import connect, statements
from tollspan.telemetry.counters import Accumulator

if TYPE_CHECKING:
    from pathlib import Path

    from tollspan.model.records import Call

STANDINGS = list(itertools.product([True, False], [True, False], ["ok", "error", "aborted", "denied"]))
ASKED: dict[str, Any] = {"billable": False, "pending": True, "response_model": None, "usage": None}
QUALITIES = ("measured", "provider", "estimated", "floor", "unpriced")


def standing() -> list[Call]:
    """Return a call of every standing and quality, and pending ones of which some are settled, once or twice."""
    calls = [
        made(number, billable=billable, pending=pending, outcome=outcome)
        for number, (billable, pending, outcome) in enumerate(STANDINGS)
    ]
    for number, quality in enumerate(QUALITIES, 50):
        plain = made(number)
        calls.append(made(number, cost=plain.cost.__class__(amount=5, quality=quality)))  # type: ignore[arg-type]
    asked = [made(number, **ASKED) for number in range(100, 105)]
    done = [made(200 + place, settles=call.id) for place, call in enumerate(asked[:3])]
    return [*calls, *asked, *done, made(300, settles=asked[0].id), made(301, settles="nobody asked for this here")]


def test_one_definition(tmp_path: Path) -> None:
    """Each record is an answered call, a failed one, a denied one or pending, wherever it is counted."""
    calls = standing()
    accumulator, live = Accumulator(), ProcessTotals()
    for call in calls:
        accumulator.add(call)
        live.add(call)
    write(tmp_path / "ledger.db", calls)
    with Ledger(tmp_path / "ledger.db") as ledger:
        kept, read = ledger.figures(), sum(group.figures.pending for group in ledger._over_rows([], Where(), None))
    summed = [totals for _, totals in accumulator.items()]
    counted = {name: sum(call.counted == name for call in calls) for name in ("calls", "failed", "denied", "pending")}
    counted["pending"] -= 3
    for name in ("failed", "denied", "pending", "unpriced", "uncertain"):
        assert getattr(kept, name) == sum(getattr(totals, name) for totals in summed), name
        assert getattr(kept, name) == getattr(live.summary().figures, name), name
    assert {name: getattr(kept, name) for name in counted} == counted
    assert kept.calls == live.summary().calls == sum(totals.calls - totals.failed for totals in summed)
    assert accumulator.calls == kept.calls + kept.failed
    assert read == kept.pending == live.summary().pending


def test_what_is_settled_leaves_where_it_was(tmp_path: Path) -> None:
    """A response that is asked for under one name, on one day, and served under another is pending under the first."""
    path = tmp_path / "ledger.db"
    asked, other = made(1, **ASKED, attribution={"session": "s"}), made(2, **ASKED, attribution={"session": "s"})
    done = made(3, started_at=START + 3 * DAY, settles=asked.id, attribution={"session": "s"})
    write(path, [asked, other, done], batches=3)
    live = ProcessTotals()
    for call in (asked, other, done):
        live.add(call)
    with Ledger(path) as ledger:
        by_model = {group.key[0]: group.figures.pending for group in ledger.groups(["model"])}
        by_day = [group.figures.pending for group in ledger.groups(["day"])]
        assert by_model == {"gpt-4o-mini": 1, "gpt-4o-mini-2024-07-18": 0}
        assert sorted(by_day) == [0, 1]
        assert ledger.figures(Where(session="s")).pending == 1
        assert [(kept.call.pending, kept.settled) for kept in ledger.each()] == [
            (True, True),
            (True, False),
            (False, False),
        ]
    assert {name: figures.pending for name, figures in live.summary("s").by_model.items()} == by_model


def test_an_older_ledger_is_counted_anew(tmp_path: Path) -> None:
    """In a ledger of version 1, where settling counted as -1 under another model, what is pending is put right."""
    path = tmp_path / "ledger.db"
    write(path, [made(1, **ASKED), made(2, **ASKED), made(3, settles=made(1).id)])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE calls SET pending = 1 WHERE pending = 0")
        db.execute("UPDATE totals SET pending = 2 WHERE model = 'gpt-4o-mini'")
        db.execute("UPDATE totals SET pending = -1 WHERE model <> 'gpt-4o-mini'")
        db.execute("DROP INDEX calls_denied")
        for column in ("search_context", "price_labels", "refusal"):
            db.execute(f"ALTER TABLE calls DROP COLUMN {column}")
        db.execute("PRAGMA user_version = 1")
    connect(path).close()
    with Ledger(path) as ledger:
        assert {group.key[0]: group.figures.pending for group in ledger.groups(["model"])} == {
            "gpt-4o-mini": 1,
            "gpt-4o-mini-2024-07-18": 0,
        }
        for kind in ("session", "run", "user"):
            assert ledger.groups([kind])[0].figures.pending == 1


@pytest.mark.parametrize("version", range(schema.VERSION))
def test_every_version_can_be_brought_up_to_date(version: int, tmp_path: Path) -> None:
    """A file of each earlier version becomes one of this version, with the same tables as a new one."""
    path, new = tmp_path / "ledger.db", tmp_path / "new.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for migration in schema.MIGRATIONS[:version]:
            for statement in statements(migration):
                db.execute(statement)
        if version:
            db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {version}")
    found = []
    for file in (path, new):
        with closing(connect(file)) as db:
            found.append([row[1] for row in db.execute("PRAGMA table_xinfo(calls)")])
    assert found[0] == found[1]


def test_an_older_ledger_tells_denied_from_failed(tmp_path: Path) -> None:
    """Until version 3 a denied call was counted as a failed one too; what was refused then has no facts."""
    path = tmp_path / "ledger.db"
    denied = made(1, **DENIED | {"refusal": None}, attribution={"session": "s"})
    write(path, [denied, made(2, **FAILED), made(3)])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE totals SET failed = failed + denied")
        db.execute("DROP INDEX calls_denied")
        db.execute("ALTER TABLE calls DROP COLUMN refusal")
        db.execute("PRAGMA user_version = 2")
    connect(path).close()
    with Ledger(path) as ledger:
        figures = ledger.figures()
        assert (figures.calls, figures.failed, figures.denied) == (1, 1, 1)
        assert ledger.figures(Where(session="s")).denied == 1
        assert [kept.call for kept in ledger.calls(Where(outcome="denied"))] == [denied]
        assert ledger.refused() == []


def test_denied_calls_are_looked_up(tmp_path: Path) -> None:
    """A ledger of many calls is not read through for the few that were denied."""
    path = tmp_path / "ledger.db"
    write(path, [made(1, **DENIED), made(2)])
    with Ledger(path) as ledger:
        asked: list[str] = []
        ledger.db.set_trace_callback(asked.append)
        assert [kept.n for kept in ledger.calls(Where(outcome="denied"))] == [1]
        assert [calls.count for calls in ledger.refused()] == [1]
        ledger.db.set_trace_callback(None)
        plans = [
            row[3] for sql in asked if " FROM calls " in sql for row in ledger.db.execute(f"EXPLAIN QUERY PLAN {sql}")
        ]
    assert len([plan for plan in plans if "calls_denied" in plan]) == 2, plans
