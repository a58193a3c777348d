"""A call survives the ledger whole."""

from __future__ import annotations

from contextlib import closing
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ledger.call_factory import EVERYTHING, FAILED, UNPRICED, made
from tollspan.ledger import rows
from tollspan.ledger.conditions import Where
from tollspan.ledger.queries import Ledger
from tollspan.ledger.resets import reset_session
from tollspan.ledger.schema import connect
from tollspan.ledger.writer import Writer
from tollspan.model.errors import LedgerError
from tollspan.model.records import Call, Cost, Usage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path


def through(db: sqlite3.Connection, calls: Sequence[Call]) -> list[Call]:
    """Write calls, and read them again."""
    rows.insert(db, [rows.row_of(call) for call in calls])
    cursor = db.execute(f"{rows.SELECT} ORDER BY n")
    names = [column[0] for column in cursor.description]
    return [rows.call_of(dict(zip(names, row, strict=True))) for row in cursor]


@pytest.mark.parametrize("call", [made(), made(**FAILED), made(**UNPRICED), EVERYTHING], ids=lambda call: call.outcome)
def test_a_call_comes_back_as_it_was(call: Call, tmp_path: Path) -> None:
    """What is read from a row is the call that was written, in every field."""
    with closing(connect(tmp_path / "ledger.db")) as db:
        assert through(db, [call]) == [call]


def test_the_made_call_has_everything() -> None:
    """The call that the tests send through the ledger leaves no field at its default."""
    plain = made(7)
    for item in fields(Call):
        if item.name not in {"billable", "response_id", "id", "provider", "operation", "duration", "started_at"}:
            assert getattr(EVERYTHING, item.name) != item.default, item.name
    assert EVERYTHING.usage is not None
    assert all(getattr(EVERYTHING.usage, item.name) for item in fields(Usage))
    assert plain != EVERYTHING


@given(
    st.lists(
        st.tuples(
            st.integers(-(10**23), 10**23) | st.none(),
            st.integers(0, 10**15) | st.none(),
            st.integers(-(10**20), 10**20),
            st.dictionaries(st.text(min_size=1, max_size=5), st.integers(-(10**25), 10**25), max_size=3),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_amounts_are_exact(figures: list[tuple[int | None, int | None, int, dict[str, int]]]) -> None:
    """Whatever the amounts and counts, they come back to the last unit, and SQL adds them up as Python does."""
    calls = [
        made(
            place,
            usage=Usage(input=count),
            cost=Cost(amount=amount, savings=savings, breakdown=breakdown),
        )
        for place, (amount, count, savings, breakdown) in enumerate(figures)
    ]
    with closing(connect_in_memory()) as db:
        # Rows with the same columns are written together, so the order is not that of the calls.
        assert sorted(through(db, calls), key=lambda call: call.id) == calls
        nano, rest = db.execute("SELECT coalesce(sum(cost_nano), 0), coalesce(sum(cost_rest), 0) FROM calls").fetchone()
    assert rows.amount_of(nano, rest) == sum(amount for amount, *_ in figures if amount is not None)


def connect_in_memory() -> sqlite3.Connection:
    """Return a ledger that is no file."""
    import sqlite3

    from tollspan.ledger.schema import MIGRATIONS, statements

    db = sqlite3.connect(":memory:", isolation_level=None)
    for migration in MIGRATIONS:
        for statement in statements(migration):
            db.execute(statement)
    return db


@pytest.mark.parametrize(
    "call",
    [
        made(usage=Usage(input=10**30)),
        made(usage=Usage(output=-(10**16))),
        made(cost=Cost(amount=10**40)),
        made(cost=Cost(amount=1, savings=-(10**40))),
    ],
    ids=["input", "output", "amount", "savings"],
)
def test_numbers_that_cannot_be_true_are_refused(call: Call) -> None:
    """A count or an amount that would break the sums of everything else is not kept, and that is said."""
    with pytest.raises(LedgerError, match="implausible value"):
        rows.row_of(call)


HALF = "half of a pair: \ud83d"


def test_half_a_pair_can_be_written_and_asked_for(tmp_path: Path) -> None:
    """A text that is no Unicode is written with a question mark, and found by the same text, wherever it stands."""
    path = tmp_path / "ledger.db"
    writer = Writer(path, print)
    writer.add(made(1, attribution={"session": HALF, "tag.x": HALF, f"tag.{HALF}": "1"}, response_id=HALF))
    assert writer.close()
    with Ledger(path) as ledger:
        for where in (Where(session=HALF), Where(tags={"x": HALF}), Where(tags={HALF: "1"})):
            assert ledger.figures(where).calls == 1
            for by in (["session"], ["tag.x"], [f"tag.{HALF}"]):
                assert [group.figures.calls for group in ledger.groups(by, where)] == [1]
            assert [kept.call.attribution["session"] for kept in ledger.calls(where)] == ["half of a pair: ?"]
        assert len(ledger.call(HALF)) == 1
        assert ledger.summary(Where(session=HALF)).calls == 1
        reset_session(path, HALF)
        assert ledger.summary(Where(session=HALF)).calls == 0


def test_session_and_run_have_defaults() -> None:
    """A call that names no session or run gets those of its process; one that does keeps its own."""
    defaults = {"session": "default", "run": "r0"}
    place = {name: rows.COLUMNS.index(name) for name in ("session", "run")}
    plain = rows.row_of(made(), defaults)
    own = rows.row_of(replace(made(), attribution={"session": "own"}), defaults)
    assert (plain[place["session"]], plain[place["run"]]) == ("default", "r0")
    assert (own[place["session"]], own[place["run"]]) == ("own", "r0")
