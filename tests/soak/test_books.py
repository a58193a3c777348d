"""After much traffic of every kind all books agree: the provider's, counters, spans, budgets and ledger."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import tollspan
from examples.fake_provider import FakeProvider
from tests.soak.books import check_attempts, check_money, check_sums, prices, refreshing
from tests.soak.traffic import ALLOWED, PROVIDERS, REFUSED, drive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from tests.conftest import Metered

CALLS: Final = 50_000 if os.environ.get("SOAK") else 600


def test_all_books_agree(instrumented: Callable[..., Metered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls, tokens and money agree to the last unit, whatever failed, broke off, was left, refused or sent again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with FakeProvider() as fake, prices() as prices_url:
        metered = instrumented(
            hosts=[f"{fake.netloc}/{provider}={provider}" for provider in PROVIDERS],
            ledger=str(tmp_path / "ledger.db"),
            pricing_url=prices_url,
            budget=[
                {"name": "all", "limit": "100000 USD", "period": "month"},
                {"name": "few", "limit": f"{ALLOWED} calls", "period": "month", "match": {"model": REFUSED}},
            ],
        )
        with refreshing(metered):
            drive(fake, CALLS)
        tally = fake.tally()
    assert metered.errors() == {}
    assert not metered.recorder.open
    assert tollspan.flush()
    check_attempts(metered, tally)
    check_sums(metered, tally, tmp_path / "ledger.db")
    check_money(metered, tmp_path / "ledger.db")
