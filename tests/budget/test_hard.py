"""A hard budget is never overspent: by threads, processes, processes that are killed. The provider's books judge."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from tests.budget.strain import Strain, strain

if TYPE_CHECKING:
    from pathlib import Path

    from examples.fake_provider import FakeProvider


def test_processes_threads_and_kills(fake: FakeProvider, tmp_path: Path) -> None:
    """Four processes of eight threads on one SQLite file, two of them killed: no more is billed than the limit."""
    limit = Decimal("0.25")  # two killed processes may leave sixteen calls unsettled, at what was reserved for them
    outcome = strain(
        fake,
        Strain(
            store=f"sqlite:{tmp_path / 'b.sqlite'}",
            limit=f"{limit} USD",
            processes=4,
            threads=8,
            calls=12,
            kills=2,
            seed=1,
        ),
    )
    assert outcome.attempts > 40
    assert outcome.billed <= outcome.spent <= limit
    assert outcome.reserved_after_leases == 0
    assert outcome.uncertain <= outcome.spent


def test_without_trouble_the_counter_is_the_bill(fake: FakeProvider, tmp_path: Path) -> None:
    """Where the limit is not reached and nothing is killed, nothing stays reserved, and no call is missed."""
    store = f"sqlite:{tmp_path / 'b.sqlite'}"
    outcome = strain(fake, Strain(store=store, limit="100 USD", processes=2, threads=4, calls=6, seed=2))
    assert outcome.reserved_at_once == 0
    assert outcome.billed <= outcome.spent
    assert outcome.attempts == 48
