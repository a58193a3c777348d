"""The keys of a call's attribution, as the ledger and the summaries distinguish them."""

from __future__ import annotations

from typing import Final

ATTRIBUTED: Final = ("session", "user", "run", "step", "agent")
"""Attributions that have a column; all others are tags."""

TAG: Final = "tag."
"""What the key of a tag starts with in `Call.attribution`."""
