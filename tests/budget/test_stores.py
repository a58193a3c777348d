"""The stores of one process and of one machine keep the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.budget.contract import StoreContract
from tollspan.budget.stores.memory import MemoryStore
from tollspan.budget.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tollspan.budget.stores import Store


class TestMemory(StoreContract):
    """Memory keeps the contract."""

    @pytest.fixture
    def store(self) -> Store:
        """Give an empty store."""
        return MemoryStore()


class TestSqlite(StoreContract):
    """SQLite keeps the contract."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        """Give an empty store."""
        store = SqliteStore(tmp_path / "budgets.sqlite", deadline=30.0)
        yield store
        store.close()
