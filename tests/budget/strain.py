"""Threads in processes that spend from one hard budget, and of which some are killed; as a program, one of them.

The judge is the fake provider: what it billed, by its own books and prices, may not pass the limit.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

import tollspan
from tollspan.budget.guard import LEASE
from tollspan.budget.stores.opening import store_of

if TYPE_CHECKING:
    from examples.fake_provider import FakeProvider

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("gpt-4o-mini", "gpt-5.4-mini", "gpt-5.5")


@dataclass(frozen=True, kw_only=True)
class Strain:
    """How hard to try. `calls` are those of one thread.

    `kills` processes are killed while they are at it, each within `pause` seconds of the one before, and another is
    started in its place.
    """

    store: str
    limit: str
    processes: int
    threads: int
    calls: int
    kills: int = 0
    pause: float = 0.3
    seed: int = 0
    prefix: tuple[str, ...] = ()  # put in front of a process's command, such as `nsenter --net=FILE`
    provider: str | None = None  # HOST:PORT where the processes find the provider, if not where it listens


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it, in dollars; `billed` is what the provider's books say, `spent` the budget's counter."""

    billed: Decimal
    attempts: int
    killed: int
    spent: Decimal
    uncertain: Decimal
    reserved_at_once: Decimal
    reserved_after_leases: Decimal


def strain(fake: FakeProvider, *strains: Strain) -> Outcome:
    """Run the processes, kill some, wait for the rest; give what came of it. Each strain is a host's."""
    children = [[_start(fake, one, number) for number in range(one.processes)] for one in strains]
    ended = [child for one, started in zip(strains, children, strict=True) for child in _kill(fake, one, started)]
    for child in (child for started in children for child in started):
        child.communicate()
        ended.append(child)
    killed = sum(child.returncode == -signal.SIGKILL for child in ended)
    failed = [child.returncode for child in ended if child.returncode not in {0, -signal.SIGKILL}]
    assert not failed, failed
    return _outcome(fake, strains[0], killed)


def _kill(fake: FakeProvider, one: Strain, children: list[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    """Kill one process after the other, in whatever it is doing, and start another in its place; give the killed."""
    chance = random.Random(one.seed)  # noqa: S311 - moments, no secrets
    doomed = []
    for number in range(one.kills):
        child = children.pop(chance.randrange(len(children)))
        assert child.stdout is not None
        child.stdout.readline()  # it is at work now
        time.sleep(chance.random() * one.pause)  # a kill may come at any moment: none is waited for
        child.send_signal(signal.SIGKILL)
        child.communicate()
        doomed.append(child)
        children.append(_start(fake, one, one.processes + number))
    return doomed


def _start(fake: FakeProvider, one: Strain, number: int) -> subprocess.Popen[bytes]:
    provider = one.provider or fake.netloc
    work = {
        "url": fake.base_url("openai").replace(fake.netloc, provider),
        "threads": one.threads,
        "calls": one.calls,
        "seed": one.seed * 1000 + number,
    }
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        "TOLLSPAN_HOSTS": f"{provider}/openai=openai",
        "TOLLSPAN_BUDGET": f"{one.limit}/total",
        "TOLLSPAN_BUDGET_STORE": one.store,
        "TOLLSPAN_BUDGET_HARD": "true",
        # What a killed process has reserved is held for as long as its lease: no call is to wait for that.
        "TOLLSPAN_BUDGET_WAIT": "0.1",
        "STRAIN": json.dumps(work),
    }
    command = [*one.prefix, sys.executable, "-m", "tests.budget.strain"]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE)  # noqa: S603 - ours


def _outcome(fake: FakeProvider, one: Strain, killed: int) -> Outcome:
    tally = fake.tally()
    billed = sum((Decimal(tally[key]) for key in ("spend_usd", "unreported_usd", "partial_usd")), Decimal(0))
    store = store_of(one.store)
    (now,) = store.counters(time.time())
    (later,) = store.counters(time.time() + LEASE + 1)
    store.close()
    return Outcome(
        billed=billed,
        attempts=tally["attempts"],
        killed=killed,
        spent=tollspan.usd(later.spent),
        uncertain=tollspan.usd(later.uncertain),
        reserved_at_once=tollspan.usd(now.reserved),
        reserved_after_leases=tollspan.usd(later.reserved),
    )


def main() -> None:
    """Be one of the processes."""
    work = json.loads(os.environ["STRAIN"])
    tollspan.instrument()
    print("at work", flush=True)  # noqa: T201 - the parent waits for it
    threads = [threading.Thread(target=_spend, args=(work, number)) for number in range(work["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tollspan.uninstrument()


def _spend(work: dict[str, Any], number: int) -> None:
    """Make calls of random cost, some of which fail, time out or are left in the middle."""
    chance = random.Random(work["seed"] * 1000 + number)  # noqa: S311 - costs, no secrets
    with httpx.Client(base_url=work["url"], timeout=5) as client:
        for _ in range(work["calls"]):
            _call(client, chance)


def _call(client: httpx.Client, chance: random.Random) -> None:
    output = chance.randrange(1, 400)
    wishes = [f"output={output}", f"reasoning={chance.randrange(output)}"]
    if chance.random() < 0.1:
        wishes.append(chance.choice(["fault=500", "fault=429", "fault=reset", "fault=cut:3"]))
    stream = chance.random() < 0.4
    body = {
        "model": chance.choice(MODELS),
        "messages": [{"role": "user", "content": "x" * chance.randrange(2000)}],
        "max_completion_tokens": output + chance.randrange(50),
        "stream": stream,
        "stream_options": {"include_usage": chance.random() < 0.5} if stream else None,
    }
    headers = {"x-fake": ", ".join(wishes), "authorization": "Bearer any"}
    try:
        if not stream:
            client.post("chat/completions", json=body, headers=headers)
            return
        with client.stream("POST", "chat/completions", json=body, headers=headers) as response:
            for seen, _ in enumerate(response.iter_raw()):
                if seen > 2 and chance.random() < 0.02:
                    break
    except httpx.HTTPError:
        pass


if __name__ == "__main__":
    main()
