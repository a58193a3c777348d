"""Operations that wait together run together: in order, each with its own result, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.forked_children import child_finds, forks
from tollspan.budget.stores.operation_queue import LARGEST_BATCH, Interrupting, OperationQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tollspan.budget.stores.operation_queue import Waiting

HANG = 30
"""Seconds that nothing here takes: a wait that is longer is one that does not end."""


class Batches:
    """A queue of numbers, whose batches wait until the test lets them end, and what they had."""

    def __init__(self, leaders: int = 1) -> None:
        self.queue: OperationQueue[int] = OperationQueue(self._run, leaders)
        self.seen: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.fail: Callable[[], object] = bool

    def _run(self, batch: Sequence[Waiting[int]]) -> None:
        self.seen.append([each.operation for each in batch])
        self.begun.release()
        assert self.let.acquire(timeout=HANG)
        self.fail()
        for each in batch:
            each.result = each.operation + 1

    def start(self, *numbers: int) -> list[threading.Thread]:
        """Run operations in threads of their own, each in line before the next."""
        threads = []
        for number in numbers:
            threads.append(threading.Thread(target=self._check, args=(number,), daemon=True))
            waiting = len(self.queue._line) + 1
            threads[-1].start()
            while len(self.queue._line) < waiting and not self.begun.acquire(timeout=0.001):
                pass
        return threads

    def _check(self, number: int) -> None:
        assert self.queue.run(number) == number + 1


def ended(threads: list[threading.Thread]) -> bool:
    """Return whether all threads end."""
    for thread in threads:
        thread.join(HANG)
    return not any(thread.is_alive() for thread in threads)


def test_what_waits_together_runs_together_in_order() -> None:
    """While one batch runs, others line up; the next batch has all of them, first come first served."""
    batches = Batches()
    threads = batches.start(0, *range(1, LARGEST_BATCH + 3))
    batches.let.release(3)
    assert ended(threads)
    assert batches.seen == [[0], [*range(1, LARGEST_BATCH + 1)], [LARGEST_BATCH + 1, LARGEST_BATCH + 2]]


def test_several_batches_at_once() -> None:
    """With two leaders, two batches run at once, and what comes meanwhile waits for one of them to end."""
    batches = Batches(leaders=2)
    threads = batches.start(0, 1, 2, 3)
    assert sorted(batches.seen) == [[0], [1]]
    batches.let.release(3)
    assert ended(threads)
    assert batches.seen[2] == [2, 3]


def test_a_failure_is_everybodys() -> None:
    """What a batch raises is raised in each thread that waited for it, and the next batch runs."""
    batches, failures = Batches(), []

    def fail() -> None:
        raise OSError("gone")

    def run(number: int) -> None:
        with pytest.raises(OSError, match="gone"):
            batches.queue.run(number)
        failures.append(number)

    batches.fail = fail
    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(5)]
    for thread in threads:
        thread.start()
    batches.let.release(5)
    assert ended(threads)
    assert sorted(failures) == [*range(5)]
    batches.fail = bool
    batches.let.release()
    assert batches.queue.run(7) == 8


def test_an_interrupted_leader_leaves_the_others_to_the_next() -> None:
    """A leader that is interrupted in its batch raises; the operations of the others run all the same."""
    batches = Batches()
    first = batches.start(0)
    others = batches.start(1, 2, 3)

    def interrupt() -> None:
        batches.fail = bool
        raise KeyboardInterrupt

    caught: list[BaseException] = []

    def lead() -> None:
        try:
            batches.queue.run(9)
        except KeyboardInterrupt as error:
            caught.append(error)

    batches.let.release()
    assert ended(first)
    assert batches.begun.acquire(timeout=HANG)  # 1, 2 and 3 are under way, led by one of them
    batches.let.release()
    assert ended(others)
    batches.fail = interrupt
    leader = threading.Thread(target=lead, daemon=True)
    leader.start()
    assert batches.begun.acquire(timeout=HANG)
    behind = threading.Thread(target=batches._check, args=(10,), daemon=True)
    behind.start()
    while not batches.queue._line:
        time.sleep(0.001)
    batches.let.release(2)
    assert ended([leader, behind])
    assert len(caught) == 1
    assert batches.seen[-1] == [10]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="signals")
@pytest.mark.parametrize(("others", "expected"), [(0, "told"), (3, "done")])
def test_signal_handlers_never_hang(others: int, expected: str) -> None:
    """A handler that interrupts its own thread's batch is told so; one that interrupts its waiting gets its result."""
    queue: OperationQueue[int] = OperationQueue(_sleep_a_moment, 1)
    answers = {"done": 0, "told": 0}
    end = threading.Event()

    def handle(*_: object) -> None:
        try:
            answers["done"] += queue.run(1)
        except Interrupting:
            answers["told"] += 1
        if not end.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0.0005)  # only now: handlers interrupt each other, too

    def work() -> None:
        while not end.is_set():
            queue.run(1)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(others)]
    before = signal.signal(signal.SIGALRM, handle)
    try:
        for thread in threads:
            thread.start()
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
        deadline = time.monotonic() + HANG
        while answers[expected] < 20 and time.monotonic() < deadline:
            assert queue.run(1) == 1
    finally:
        end.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ended(threads)
    assert answers[expected] >= 20


def _sleep_a_moment(batch: Sequence[Waiting[int]]) -> None:
    time.sleep(0.0002)
    for each in batch:
        each.result = 1


@forks
def test_a_child_starts_with_an_empty_queue() -> None:
    """A child that is forked while others wait can run its own operations."""
    batches = Batches()
    threads = batches.start(0, 1)

    def run_in_child() -> bool:
        batches.let = threading.Semaphore(1)
        return bool(batches.queue.run(5) == 6) and os.getpid() != parent

    parent = os.getpid()
    assert child_finds(run_in_child)
    batches.let.release(2)
    assert ended(threads)
