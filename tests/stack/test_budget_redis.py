"""Budgets in a real Redis: the contract of all stores, a server that is gone, one round trip."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.budget.contract import StoreContract
from tollspan.budget.stores.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack.servers import RunningRedis
    from tollspan.budget.stores import Store

_numbers = itertools.count()


@pytest.fixture
def store(redis: RunningRedis) -> Iterator[Store]:
    """Give a store in a namespace of its own."""
    store = RedisStore(f"{redis.url}?namespace=t{next(_numbers)}&deadline=30")
    yield store
    store.close()


class TestRedis(StoreContract):
    """Redis keeps the contract."""
