"""Ledgers for the tests of what reads them: made calls, written as a program writes its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tollspan.ledger.writer import Writer

if TYPE_CHECKING:
    from pathlib import Path

    from tollspan.model.records import Call


def write(path: Path, *calls: Call) -> None:
    """Write calls into a ledger, create it if it is missing, and wait until they are written."""
    failures: list[str] = []
    writer = Writer(path, failures.append)
    for call in calls:
        writer.add(call)
    assert writer.close()
    assert failures == []
