"""Threads, loops, processes and ends of every kind: the ledger keeps what the provider bills, to the last unit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.concurrency.programs import PROGRAMS
from tollspan.ledger.queries import Ledger
from tollspan.model.money import usd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from examples.fake_provider import FakeProvider
    from tollspan.model.records import Call

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 120
"""Seconds after which a program that hangs is given up."""

BROKEN: Final = {"forks": 1, "asyncio_tasks": 4, "trio_tasks": 1, "exit_in_flight": 4, "loop_closed_in_flight": 1,
                 "terminated": 1, "interrupted": 1, "own_handler": 1}  # fmt: skip
"""Streams that each program leaves, or is ended in."""

LONG: Final = frozenset({"anyio_tasks", "loops", "multiprocessing_forkserver", "process_pool"})
"""Programs that only `make soak` runs: each is much like another one."""

NAMES: Final = tuple(name for name in PROGRAMS if os.environ.get("SOAK") or name not in LONG)

SIGNALS: Final = {
    "terminated": (signal.SIGTERM, -signal.SIGTERM),
    "own_handler": (signal.SIGTERM, 0),
    "interrupted": (signal.SIGINT, 0),
}
"""What ends a program that waits, and with what status."""


def surroundings(fake: FakeProvider, ledger: Path) -> Mapping[str, str]:
    """Return the environment in which a program is metered."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("TOLLSPAN_", "OTEL_"))}
    return {
        **plain,
        "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))),
        "PYTHONWARNINGS": "error,ignore::DeprecationWarning",
        "TOLLSPAN_HOSTS": f"{fake.netloc}/openai=openai",
        "TOLLSPAN_LEDGER": str(ledger),
    }


def run(name: str, fake: FakeProvider, ledger: Path) -> tuple[int, str]:
    """Run a program to its end, or send a signal where it waits; give its status and what it complained of."""
    process = subprocess.Popen(  # noqa: S603 - our own programs
        [sys.executable, "-m", "tests.concurrency.programs", name, fake.url],
        cwd=ROOT,
        env=surroundings(fake, ledger),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        if name in SIGNALS:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(SIGNALS[name][0])
        try:
            _, said = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            raise
    return process.returncode, said


@pytest.mark.parametrize("name", NAMES)
def test_ledger_is_what_the_provider_bills(name: str, fake: FakeProvider, tmp_path: Path) -> None:
    """Every call is kept once, with the provider's tokens and cost, what was left as such; nothing complains."""
    ledger = tmp_path / "ledger.db"
    status, said = run(name, fake, ledger)
    assert said == "", said
    assert status == SIGNALS.get(name, (None, 0))[1]
    check(fake.tally(), ledger, BROKEN.get(name, 0))


def check(tally: dict[str, Any], ledger: Path, broken: int) -> None:
    """Compare the ledger with the provider's books."""
    with Ledger(ledger) as kept:
        calls: list[Call] = [one.call for one in kept.each()]
    whole = [call for call in calls if call.outcome == "ok"]
    (row,) = tally["by"]
    assert len(whole) == row["calls"] == tally["calls"]
    assert len(calls) - len(whole) == broken
    assert len({call.id for call in calls}) == len(calls)
    for name in ("input", "output", "cache_read"):
        assert sum(getattr(call.usage, name) or 0 for call in whole) == row[name]
    assert usd(sum(call.cost.amount or 0 for call in whole)) == Decimal(row["cost_usd"]) > 0
    assert all(call.usage is not None and call.cost.amount for call in calls), "a stream that was left has a floor"
