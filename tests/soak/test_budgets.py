"""The strict guarantee over many calls: 64 threads in 8 processes, two of which are killed, again and again.

`make soak` makes 100,000 calls; the tests make one short round.
"""

from __future__ import annotations

import os
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from examples.fake_provider import FakeProvider
from tests.budget.strain import Strain, strain

if TYPE_CHECKING:
    from pathlib import Path

LONG: Final = bool(os.environ.get("SOAK"))
CALLS: Final = 100_000 if LONG else 1
PROCESSES: Final = 8 if LONG else 3
THREADS: Final = 8
ROUND: Final = 5_000 if LONG else 400
LIMIT: Final = Decimal(4) if LONG else Decimal("0.4")
"""Calls per round: each has a budget of its own, most of which is spent."""


def test_strict_on_sqlite(tmp_path: Path) -> None:
    """Over all rounds, the provider billed no more than the limits, and after all leases nothing stays reserved."""
    attempts = number = 0
    with FakeProvider() as fake:
        while attempts < CALLS:
            number += 1
            fake.reset()
            outcome = strain(
                fake,
                Strain(
                    store=f"sqlite:{tmp_path / f'{number}.sqlite'}",
                    limit=f"{LIMIT} USD",
                    processes=PROCESSES,
                    threads=THREADS,
                    calls=ROUND // (PROCESSES * THREADS),
                    kills=2,
                    seed=number,
                ),
            )
            assert outcome.billed <= outcome.spent <= LIMIT, (number, outcome)
            assert outcome.attempts > ROUND // 20
            assert outcome.reserved_after_leases == 0, (number, outcome)
            attempts += outcome.attempts
