"""Two hosts that share one budget through one Redis, over links that are slow, break off and go down."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from tests.stack import two_hosts

if TYPE_CHECKING:
    from pathlib import Path


def test_two_hosts_never_overspend(tmp_path: Path) -> None:
    """64 threads on two hosts, four of eight processes killed, one host cut off again and again: overshoot is zero.

    The provider's own books judge; after all leases nothing stays reserved.
    """
    limit = Decimal(2)
    report = two_hosts.run(tmp_path, f"{limit} USD")
    outcome = report.outcome
    assert int(outcome["attempts"]) > 100
    assert Decimal(outcome["billed"]) <= Decimal(outcome["spent"]) <= limit
    assert Decimal(outcome["reserved_after_leases"]) == 0
    assert Decimal(outcome["spent"]) > limit * Decimal("0.9")  # the limit was reached, not only never neared
    assert report.outages > 0
    assert report.broken > 0
    assert int(outcome["killed"]) > 0
