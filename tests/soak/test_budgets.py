"""The strict guarantee over many calls: 64 threads in 8 processes, of which six are killed in every round.

`make soak` makes 100,000 calls that reach the provider, with each store that processes share; the tests make one short
round with SQLite, `make test-stack` one with Redis.
"""

from __future__ import annotations

import os
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import pytest

from examples.fake_provider import FakeProvider
from tests.budget.strain import Strain, strain
from tests.stack import servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG: Final = bool(os.environ.get("SOAK"))
ATTEMPTS: Final = 100_000 if LONG else 1
PROCESSES: Final = 8 if LONG else 3
THREADS: Final = 8
CALLS: Final = 250 if LONG else 16
"""Calls of one thread in one round: more than the round's budget can pay."""
KILLS: Final = 6 if LONG else 2
PAUSE: Final = 0.8 if LONG else 0.3
LIMIT: Final = Decimal(20) if LONG else Decimal("0.4")
"""Dollars of one round: each has a budget of its own, which is used up."""


@pytest.fixture(params=("sqlite", "redis") if LONG else ("sqlite",))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return a store's address, with a place in it for the number of a round."""
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path}/{{}}.sqlite"
        return
    running = servers.redis(tmp_path)
    running.server.start()
    try:
        running.server.wait_ready()
        yield f"{running.url}?namespace=round{{}}&deadline=5"
    finally:
        running.server.stop()


def test_strict_budgets_are_never_overspent(place: str) -> None:
    """Over all rounds, the provider billed no more than the limits, and after all leases nothing stays reserved."""
    attempts = killed = number = 0
    with FakeProvider() as fake:
        while attempts < ATTEMPTS:
            number += 1
            fake.reset()
            outcome = strain(
                fake,
                Strain(
                    store=place.format(number),
                    limit=f"{LIMIT} USD",
                    processes=PROCESSES,
                    threads=THREADS,
                    calls=CALLS,
                    kills=KILLS,
                    pause=PAUSE,
                    seed=number,
                ),
            )
            assert outcome.billed <= outcome.spent <= LIMIT, (number, outcome)
            assert outcome.reserved_after_leases == 0, (number, outcome)
            assert outcome.spent > LIMIT / 2, (number, outcome)  # on a busy machine, deadlines refuse calls, too
            assert outcome.attempts > 0
            attempts += outcome.attempts
            killed += outcome.killed
            if LONG:
                sys.stderr.write(f"{number}: {attempts} calls, {killed} processes killed; {outcome}\n")
    assert killed > 0
