"""The kept sums are those of the rows, and those of the counters, to the last unit."""

from __future__ import annotations

import random
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.ledger.call_factory import FAILED, START, UNPRICED, made
from tollspan.ledger import rows, totals
from tollspan.ledger.conditions import DAY, Where
from tollspan.ledger.keys import ATTRIBUTED
from tollspan.ledger.queries import Ledger
from tollspan.ledger.schema import connect
from tollspan.ledger.totals import KINDS, Figures
from tollspan.model.records import Cost
from tollspan.telemetry.counters import Accumulator

if TYPE_CHECKING:
    from pathlib import Path

    from tollspan.model.records import Call


def many(count: int, seed: int = 1) -> list[Call]:
    """Return calls of all kinds, over several days, with attributions or without."""
    chance = random.Random(seed)  # noqa: S311 - the same calls each time
    calls = []
    for number in range(count):
        kind = chance.choice([{}, {}, {}, FAILED, UNPRICED, {"outcome": "aborted"}, {"resend_count": 1}])
        attribution = {name: f"{name}{chance.randrange(3)}" for name in ATTRIBUTED if chance.random() < 0.7} | {
            "tag.tier": str(chance.randrange(3))
        }
        changes = {
            "started_at": START + chance.randrange(5 * DAY),
            "attribution": attribution,
            "provider": chance.choice(["openai", "anthropic"]),
            "cost": Cost(amount=chance.randrange(10**22), savings=chance.randrange(-(10**15), 10**15)),
        }
        if "cost" in kind:
            del changes["cost"]
        calls.append(made(number, **{**kind, **changes}))
    return calls


def write(path: Path, calls: list[Call], batches: int = 7) -> None:
    """Write calls in several transactions."""
    size = len(calls) // batches + 1
    with closing(connect(path)) as db:
        for start in range(0, len(calls), size):
            db.execute("BEGIN IMMEDIATE")
            (last,) = db.execute("SELECT coalesce(max(n), 0) FROM calls").fetchone()
            rows.insert(db, [rows.row_of(call) for call in calls[start : start + size]])
            totals.add_rows_after(db, last)
            db.execute("COMMIT")


def test_totals_are_those_of_the_counters(tmp_path: Path) -> None:
    """Added up by the ledger or by the process's counters, calls come to the same, to the last unit."""
    calls = many(500)
    accumulator = Accumulator()
    for call in calls:
        accumulator.add(call)
    write(tmp_path / "ledger.db", calls)
    with Ledger(tmp_path / "ledger.db") as ledger:
        figures = ledger.figures()
    assert figures.spend == accumulator.spend
    assert figures.calls + figures.failed == accumulator.calls == 500
    for name in ("unpriced", "input", "output", "cache_read", "cache_write", "reasoning", "savings", "failed"):
        assert getattr(figures, name) == sum(getattr(each, name) for _, each in accumulator.items()), name


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_adds_up_to_the_rows(kind: str, tmp_path: Path) -> None:
    """Each kind of total holds every call once: it comes to what the rows come to."""
    write(tmp_path / "ledger.db", many(300))
    with closing(connect(tmp_path / "ledger.db", write=False)) as db:
        kept = db.execute(f"SELECT {totals.OVER_TOTALS} FROM totals WHERE kind = ?", (kind,)).fetchone()  # noqa: S608
        over_rows = db.execute(f"SELECT {totals.OVER_CALLS} FROM calls").fetchone()  # noqa: S608
    assert Figures.of(kept) == Figures.of(over_rows)


@pytest.mark.parametrize(
    "by", [["day"], ["provider", "model"], ["session"], ["session", "user"], ["run", "step"], ["agent"]]
)
@pytest.mark.parametrize(
    "where",
    [
        Where(),
        Where(since=START + DAY // 3, until=START + 3 * DAY),
        Where(since=START + DAY // 3, until=START + DAY // 2),
        Where(provider="openai", since=START + 2 * DAY),
        Where(run="run1"),
        Where(session=""),
    ],
)
def test_totals_answer_as_the_rows_do(by: list[str], where: Where, tmp_path: Path) -> None:
    """Whether a question is answered from totals or by reading rows, the answer is the same."""
    calls = many(300)
    write(tmp_path / "ledger.db", calls)
    with Ledger(tmp_path / "ledger.db") as ledger:
        expected = {group.key: group.figures for group in ledger._over_rows(by, where, None)}
        assert {group.key: group.figures for group in ledger.groups(by, where)} == expected
        spend = sum(
            call.cost.amount or 0
            for call in calls
            if call.billable
            and (where.since or 0) <= call.started_at < (where.until or 2**63)
            and where.provider in {None, call.provider}
            and where.run in {None, call.attribution.get("run")}
            and (where.session is None or "session" not in call.attribution)
        )
        assert sum(group.figures.spend for group in ledger.groups(by, where)) == spend


def test_the_dearest_are_kept(tmp_path: Path) -> None:
    """The dearest calls of all are found without reading the rows, in order."""
    calls = many(400)
    write(tmp_path / "ledger.db", calls)
    billed = [call.cost.amount for call in calls if call.billable and call.cost.amount]
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert [kept.call.cost.amount for kept in ledger.calls(limit=5, most_expensive=True)] == sorted(billed)[:-6:-1]
        assert [kept.call.cost.amount for kept in ledger.calls(Where(until=2**62), 5, most_expensive=True)] == sorted(
            billed
        )[:-6:-1]


def test_tags_are_added_up_by_reading(tmp_path: Path) -> None:
    """A tag has no totals: its rows are read, and the reading tells how far it is."""
    calls = many(200)
    write(tmp_path / "ledger.db", calls)
    shares: list[float] = []
    with Ledger(tmp_path / "ledger.db") as ledger:
        groups = ledger.groups(["tag.tier"], progress=shares.append)
    assert {group.key[0]: group.figures.calls for group in groups} == {
        tier: sum(call.billable for call in calls if call.attribution["tag.tier"] == tier) for tier in "012"
    }
    assert shares[0] == 0
    assert shares[-1] == 1
