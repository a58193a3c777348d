"""A fork finds SQLite at rest, and a child that begins anew."""

from __future__ import annotations

import importlib
import sys
import threading
from typing import TYPE_CHECKING

from tests.forked_children import child_finds, forks
from tollspan.runtime import forking
from tollspan.runtime.forking import close_before_fork, in_sqlite, renew_in_child

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class File:
    """Stands for what keeps a connection."""

    def __init__(self) -> None:
        self.open = True
        self.renewed = False
        close_before_fork(self, File.close)
        renew_in_child(self, File.renew)

    def close(self) -> None:
        """Note that it was closed."""
        self.open = False

    def renew(self) -> None:
        """Note that it begins anew."""
        self.renewed = True


@forks
def test_what_is_open_is_closed_before_a_fork() -> None:
    """The child inherits no connection; the parent goes on with a new one, and only the child is renewed."""
    file = File()
    assert child_finds(lambda: not file.open and file.renewed)
    assert not file.open
    assert not file.renewed


@forks
def test_one_that_fails_keeps_no_other_from_its_turn(caplog: pytest.LogCaptureFixture) -> None:
    """Where one of many cannot be closed, or renewed, the others are, and it is told."""

    class Broken(File):
        def close(self) -> None:
            raise OSError

        def renew(self) -> None:
            raise RuntimeError

    first, broken, last = File(), Broken(), File()
    close_before_fork(broken, Broken.close)
    renew_in_child(broken, Broken.renew)
    assert child_finds(lambda: first.renewed and last.renewed and not first.open and not last.open)
    assert "could not prepare Broken for a fork" in caplog.text


@forks
def test_a_fork_waits_for_threads_in_sqlite() -> None:
    """The child is forked when the last thread has come out."""
    file, entered, leave = File(), threading.Event(), threading.Event()
    done: list[bool] = []

    def work() -> None:
        with in_sqlite:
            with in_sqlite:  # as a finalizer may
                entered.set()
                leave.wait(30)
            done.append(file.open)  # still ours: nobody has closed it

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(30)
    timer = threading.Timer(0.1, leave.set)
    timer.start()
    assert child_finds(lambda: done == [True] and not file.open)
    thread.join()
    timer.join()


@forks
def test_a_thread_waits_for_a_fork() -> None:
    """Nobody begins while a fork is about to happen; when it has, everybody goes on."""
    entered = threading.Event()

    def work() -> None:
        with in_sqlite:
            entered.set()

    thread = threading.Thread(target=work)
    during: list[bool] = []

    class Slow:
        def close(self) -> None:
            thread.start()
            during.append(entered.wait(0.1))

    slow = Slow()
    close_before_fork(slow, Slow.close)
    assert child_finds(lambda: not entered.is_set())
    assert during == [False]
    assert entered.wait(30)
    thread.join()


@forks
def test_a_fork_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a disk hangs, the fork happens all the same, what is in use is left as it is, and that is told."""
    monkeypatch.setattr(forking, "PATIENCE", 0.01)
    file, entered, leave = File(), threading.Event(), threading.Event()

    def work() -> None:
        with in_sqlite:
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(30)
    assert child_finds(lambda: file.open and file.renewed)
    assert "while a thread writes to SQLite" in caplog.text
    leave.set()
    thread.join()


@forks
def test_one_that_forks_in_sqlite(caplog: pytest.LogCaptureFixture) -> None:
    """A signal's handler may fork in the middle: it does not wait for itself, and what is in use is left as it is."""
    file = File()
    with in_sqlite:
        assert child_finds(lambda: file.open)
    assert "while a thread writes to SQLite" in caplog.text
    caplog.clear()
    assert child_finds(lambda: not file.open)
    assert not caplog.text


@forks
def test_a_block_that_was_left_uncounted(caplog: pytest.LogCaptureFixture) -> None:
    """A signal's handler that raises where a block ends leaves it counted; that is so for one fork, and not for all."""
    file = File()
    in_sqlite.__enter__()
    assert child_finds(lambda: file.open)
    caplog.clear()
    assert child_finds(lambda: not file.open)
    assert not caplog.text


@forks
def test_a_fork_waits_for_our_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thread imports with the first call, the child has: the interpreter would keep it from it for ever."""
    package = importlib.import_module("tollspan.wire.dialects")
    entered, leave = threading.Event(), threading.Event()
    monkeypatch.setattr(package, "entered", entered, raising=False)
    monkeypatch.setattr(package, "leave", leave, raising=False)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    (tmp_path / "slow.py").write_text(
        "from tollspan.wire.dialects import entered, leave\nentered.set()\nassert leave.wait(30)\nvalue = 7\n"
    )
    thread = threading.Thread(target=importlib.import_module, args=("tollspan.wire.dialects.slow",))
    thread.start()
    assert entered.wait(30)
    timer = threading.Timer(0.1, leave.set)
    timer.start()
    assert child_finds(lambda: importlib.import_module("tollspan.wire.dialects.slow").value == 7)
    thread.join()
    timer.join()
    del sys.modules["tollspan.wire.dialects.slow"]
