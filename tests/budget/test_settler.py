"""The settler: at once or in the background, tried again, never lost without being counted."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tollspan.budget import settler as settling
from tollspan.budget.settler import Settler
from tollspan.budget.stores import StoreError


class Books:
    """A settler whose store raises `failures` first, and what it has settled in which threads."""

    def __init__(self, failures: list[Exception] | None = None, *, remote: bool = True) -> None:
        self.failures = failures or []
        self.settled: list[tuple[str, bool]] = []
        self.failed: list[str] = []
        self.settler = Settler(self._work, lambda kind, error: self.failed.append(f"{kind} {error}"), remote=remote)

    def _work(self, attempt: str, *_: Any) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.settled.append((attempt, threading.current_thread().name == "tollspan-settle"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once, three times."""
    monkeypatch.setattr(settling, "PAUSE", 0.0)
    monkeypatch.setattr(settling, "TRIES", 3)


@pytest.mark.parametrize("remote", [False, True])
def test_where_it_settles(remote: bool) -> None:
    """A store of this machine is settled with at once, one across a network in the background."""
    books = Books(remote=remote)
    books.settler.settle("a", (), 0.0)
    assert books.settler.flush(30)
    assert books.settled == [("a", remote)]


@pytest.mark.parametrize(("failures", "settled", "lost"), [(2, 1, 0), (3, 0, 1)])
def test_a_store_that_fails_is_tried_again(failures: int, settled: int, lost: int) -> None:
    """After `TRIES` failures the settlement is lost, and counted."""
    books = Books([StoreError("gone") for _ in range(failures)])
    books.settler.settle("a", (), 0.0)
    assert books.settler.flush(30)
    assert (len(books.settled), books.settler.lost, books.failed) == (settled, lost, [])


def test_a_local_store_that_fails_is_tried_again_in_the_background() -> None:
    """The call does not wait for the second try."""
    books = Books([StoreError("busy")], remote=False)
    books.settler.settle("a", (), 0.0)
    assert books.settler.flush(30)
    assert books.settled == [("a", True)]


def test_a_failure_of_our_own_is_reported() -> None:
    """What is not the store's failure is reported and not tried again; the next settlement is done."""
    books = Books([ValueError("ours")])
    for attempt in ("a", "b"):
        books.settler.settle(attempt, (), 0.0)
    assert books.settler.flush(30)
    assert books.failed == ["budget ours"]
    assert books.settled == [("b", True)]


def test_too_many_settlements_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than `MOST` settlements that wait, the last are lost and counted."""
    monkeypatch.setattr(settling, "MOST", 2)
    books, held = Books(), threading.Event()
    books.settler.later(held.wait)
    for attempt in ("a", "b", "c"):
        books.settler.settle(attempt, (), 0.0)
    assert (books.settler.waiting, books.settler.lost) == (2, 2)
    held.set()
    assert books.settler.flush(30)
    assert books.settled == [("a", True)]


def test_the_end_of_the_interpreter_waits_for_no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no thread can be started any more, a settlement is tried once, here."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", fail)
    books = Books([StoreError("gone")])
    books.settler.settle("a", (), 0.0)
    assert (books.settled, books.settler.lost) == ([], 1)
    books.settler.settle("b", (), 0.0)
    assert books.settled == [("b", False)]


def test_a_flush_in_a_settlement_does_not_wait_for_itself() -> None:
    """A job that flushes gets False at once."""
    books = Books()
    answers: list[bool] = []
    books.settler.later(lambda: answers.append(books.settler.flush(30)))
    assert books.settler.flush(30)
    assert answers == [False]
