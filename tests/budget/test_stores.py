"""The stores of one process and of one machine keep the contract."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.budget.contract import NOW, UNTIL, StoreContract, amounts, update
from tests.forked_children import child_finds, forks
from tollspan.budget.stores import Charge
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tollspan.budget.stores import Store


class TestMemory(StoreContract):
    """Memory keeps the contract."""

    shares_habits = False

    @pytest.fixture
    def store(self) -> Store:
        """Return an empty store."""
        return MemoryStore()


class TestSqlite(StoreContract):
    """SQLite keeps the contract."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        """Return an empty store."""
        store = SqliteStore(tmp_path / "budgets.sqlite", deadline=30.0)
        yield store
        store.close()

    @forks
    def test_forks_while_threads_count(self, store: Store) -> None:
        """Whenever a child is forked, it can count, and nothing is counted twice or lost."""
        end, done = threading.Event(), [0, 0]

        def spend(name: str) -> bool:
            reserved = store.reserve(name, [update(7)], NOW, UNTIL)
            return reserved.refused is None and store.settle(name, [Charge("a", 0, 3)], NOW) is not None

        def work(place: int) -> None:
            while not end.is_set():
                spend(f"{place}-{done[place]}")
                done[place] += 1
                end.wait(0.0005)

        threads = [threading.Thread(target=work, args=(place,)) for place in (0, 1)]
        for thread in threads:
            thread.start()
        counted = [child_finds(partial(spend, f"child-{number}")) for number in range(40)]
        end.set()
        for thread in threads:
            thread.join()
        assert counted == [True] * 40
        assert amounts(store) == (3 * (40 + sum(done)), 0)
