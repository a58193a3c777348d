"""A store that is gone in the middle: locked, out of room, replaced. The policy holds, and nobody waits for ever."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.budget.contract import DOLLAR, NOW, UNTIL, update
from tollspan.budget.bounds import Bounds, RequestShape
from tollspan.budget.denials.denial import Denial
from tollspan.budget.guard import Guard
from tollspan.budget.policy.budget import parse_tables
from tollspan.budget.request import BudgetRequest, Grant
from tollspan.budget.stores import Charge, StoreError
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.model.records import Call, Cost, Facts
from tollspan.prices import bundled

CENT = 10**16
HANG = 20
"""Seconds that no deadline comes near to: a wait that is longer is one that does not end."""


def guard_of(path: Path, deadline: float, policy: str = "closed") -> Guard:
    """Return a guard of one dollar, counted in a file."""
    budgets = parse_tables([{"name": "b", "limit": "1 USD", "period": "total", "store_failure": policy}])
    return Guard(budgets, SqliteStore(path, deadline), Bounds(bundled), clock=lambda: NOW)


def budget_request(attempt: str) -> BudgetRequest:
    """Return a call of one cent."""
    shape = RequestShape(facts=Facts(), prices=(), body={}, content=None, size=0, stated=CENT)
    return BudgetRequest(attempt=attempt, traits={"provider": "openai", "model": "m"}, shape=shape)


def ended(attempt: str) -> Call:
    """Return the record of a call of one cent."""
    values: dict[str, Any] = {"http_status": 200, "cost": Cost(amount=CENT, quality="measured")}
    return Call(
        id=attempt, operation_id=attempt, provider="openai", operation="chat", started_at=0, duration=1, **values
    )


@pytest.mark.parametrize("policy", ["closed", "open"])
def test_sqlite_is_locked_in_the_middle(tmp_path: Path, policy: str) -> None:
    """A lock that another process takes while calls are under way: none hangs, and all is settled after it."""
    path = tmp_path / "b.sqlite"
    guard = guard_of(path, 0.05, policy)
    assert isinstance(guard.check(budget_request("1")), Grant)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    guard.settle(ended("1"))  # kept until the lock is gone
    verdicts: list[object] = []
    callers = [
        threading.Thread(target=lambda: verdicts.append(guard.check(budget_request("2"))), daemon=True)
        for _ in range(8)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(HANG)
    assert len(verdicts) == 8
    assert all(isinstance(verdict, Grant if policy == "open" else Denial) for verdict in verdicts)
    other.execute("ROLLBACK")
    other.close()
    assert guard.settler.flush(HANG)
    (counter,) = guard.store.counters(NOW)
    assert (counter.spent, counter.reserved) == (CENT, 0)
    guard.close()


def test_one_deadline_for_threads_and_processes(tmp_path: Path) -> None:
    """Another process is waited for no longer than is left of the deadline, which waiting for threads may have used."""
    path = tmp_path / "b.sqlite"
    store = SqliteStore(path, deadline=HANG)
    store.reserve("1", [update(1)], NOW, UNTIL)
    store._file.deadline = 0.05  # as much as is left
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    failed = threading.Event()

    def reserve() -> None:
        with pytest.raises(StoreError):
            store.reserve("2", [update(1)], NOW, UNTIL)
        failed.set()

    threading.Thread(target=reserve, daemon=True).start()
    assert failed.wait(HANG / 2)
    other.close()
    store.close()


def test_file_is_replaced(tmp_path: Path) -> None:
    """A file that is broken is an error, and one that is whole again is used again."""
    path = tmp_path / "b.sqlite"
    store = SqliteStore(path)
    store.reserve("1", [update(DOLLAR)], NOW, UNTIL)
    store.close()
    whole = path.read_bytes()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        store.reserve("2", [update(1)], NOW, UNTIL)
    path.write_bytes(whole)
    assert store.reserve("2", [update(1)], NOW, UNTIL).refused == 0
    settled = store.settle("1", [Charge("a", 0, 5)], NOW)
    assert settled is not None
    store.close()


NO_ROOM = """
import json, resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from tests.budget.test_store_gone import asked, ended, guard_of
from tollspan.budget.denials.denial import Denial

path = Path(sys.argv[1])
guard = guard_of(path, 1.0)
guard.check(budget_request("before"))
most = max(file.stat().st_size for file in path.parent.iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
answers = [guard.check(budget_request(str(number))) for number in range(60)]
refused = [answer.reason for answer in answers if isinstance(answer, Denial)]
guard.settle(ended("before"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
after = type(guard.check(budget_request("after"))).__name__
settled = guard.settler.flush(20)
(counter,) = guard.store.counters(guard.clock())
granted = len(answers) - len(refused) + 1
print(json.dumps([sorted(set(refused)), after, settled, counter.spent, counter.reserved == granted * 10**16]))
"""
"""What a process does whose files may not grow: writing fails as on a full disk."""


def test_no_room_on_the_disk(tmp_path: Path) -> None:
    """Where nothing can be written, calls are refused; when it can, they pass, and what ended meanwhile is settled."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-c", NO_ROOM, str(tmp_path / "b.sqlite"), str(root), str(root / "src")],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["store"], "Grant", True, CENT, True]
