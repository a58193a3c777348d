"""The strict guarantee for as long as anybody cares to wait: 64 threads, 8 processes, two of them killed, again and again.

Not part of the tests: run it with `make soak`, or `SOAK_CALLS=100000 python -m pytest tests/soak`.
"""

from __future__ import annotations

import os
from decimal import Decimal
from typing import TYPE_CHECKING

from examples.fake_provider import FakeProvider
from tests.budget.strain import Strain, strain

if TYPE_CHECKING:
    from pathlib import Path

CALLS = int(os.environ.get("SOAK_CALLS", "100000"))
PROCESSES, THREADS = 8, 8
ROUND = 5_000
"""Calls per round: each has a budget of its own, most of which is spent."""


def test_strict_on_sqlite(tmp_path: Path) -> None:
    """Over all rounds, the provider billed no more than the limits, and after all leases nothing stays reserved."""
    attempts = number = 0
    with FakeProvider() as fake:
        while attempts < CALLS:
            number += 1
            fake.reset()
            limit = Decimal(4)
            outcome = strain(
                fake,
                Strain(
                    store=f"sqlite:{tmp_path / f'{number}.sqlite'}",
                    limit=f"{limit} USD",
                    processes=PROCESSES,
                    threads=THREADS,
                    calls=ROUND // (PROCESSES * THREADS),
                    kills=2,
                    seed=number,
                ),
            )
            assert outcome.billed <= outcome.spent <= limit, (number, outcome)
            assert outcome.reserved_after_leases == 0, (number, outcome)
            attempts += outcome.attempts
