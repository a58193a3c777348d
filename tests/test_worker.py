"""The background worker under the ledger's writer, the settler, the webhook and the reader of batch results."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.forked_children import child_finds, forks
from tollspan.runtime import worker
from tollspan.runtime.worker import BackgroundWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAME = "tollspan-test"


class Bench:
    """A worker, what it has done, and what has failed."""

    def __init__(self, **options: Any) -> None:
        self.done: list[Any] = []
        self.failures: list[str] = []
        self.worker = BackgroundWorker(NAME, "test", self._failed, **options)
        self._held: list[threading.Event] = []

    def _failed(self, kind: str, error: Exception) -> None:
        self.failures.append(f"{kind} {error}")

    def note(self, what: Any) -> Callable[[], None]:
        """Return a job that notes `what`, and whether the worker's own thread does it."""
        return lambda: self.done.append((what, self.worker.is_current()))

    def hold(self) -> threading.Event:
        """Put a job that waits for the event that is returned."""
        held = threading.Event()
        self._held.append(held)
        self.worker.put(held.wait)
        return held

    def end(self) -> None:
        """Let all jobs go on, and end the thread."""
        for held in self._held:
            held.set()
        self.worker.close(30)


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a worker without limits."""
    bench = Bench()
    yield bench
    bench.end()


def threads() -> list[threading.Thread]:
    """Return the running threads of workers of these tests."""
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def test_the_thread_starts_with_the_first_job(bench: Bench) -> None:
    """A worker without jobs has no thread; one thread does all jobs, and it does not keep a process from ending."""
    assert bench.worker.flush(0)
    assert (bench.worker.started, threads()) == (False, [])
    for number in range(3):
        bench.worker.put(bench.note(number))
    assert bench.worker.flush(30)
    assert bench.done == [(0, True), (1, True), (2, True)]
    (thread,) = threads()
    assert thread.daemon
    assert bench.worker.started
    assert not bench.worker.is_current()


def test_jobs_are_done_in_order_and_one_failure_keeps_nothing_back(bench: Bench) -> None:
    """Jobs are done one after the other; an exception is reported, and the rest is done."""
    held = bench.hold()

    def fail() -> None:
        raise ValueError("made")

    for number in range(50):
        bench.worker.put(fail if number == 20 else bench.note(number))
    assert not bench.worker.flush(0)
    assert bench.worker.waiting == 51
    held.set()
    assert bench.worker.flush(30)
    assert [number for number, _ in bench.done] == [number for number in range(50) if number != 20]
    assert bench.failures == ["test made"]
    assert bench.worker.waiting == 0


def test_closing_ends_the_thread(bench: Bench) -> None:
    """`close` waits for all jobs and ends the thread; a later job starts another."""
    bench.worker.put(bench.note("first"))
    (thread,) = threads()
    assert bench.worker.close(30)
    assert bench.done == [("first", True)]
    assert not thread.is_alive()
    bench.worker.put(bench.note("second"))
    assert bench.worker.close(30)
    assert bench.done[1:] == [("second", True)]
    assert threads() == []


def test_closing_does_not_wait_longer_than_it_may(bench: Bench) -> None:
    """A job that does not end keeps `close` waiting for its time-out only; the thread ends after the job."""
    held = bench.hold()
    (thread,) = threads()
    assert not bench.worker.close(0.01)
    held.set()
    thread.join(30)
    assert not thread.is_alive()


def test_what_is_done_at_once_keeps_its_place(bench: Bench) -> None:
    """The thread that puts a job does it at once unless another one waits: then the job comes after that."""
    bench.worker.put(bench.note("first"), at_once=True)
    assert bench.done == [("first", False)]
    held = bench.hold()
    bench.worker.put(bench.note("second"), at_once=True)
    assert len(bench.done) == 1
    held.set()
    assert bench.worker.flush(30)
    assert bench.done[1:] == [("second", True)]
    bench.worker.put(lambda: bench.worker.put(bench.note("by a job"), worker.MAX_BYTES + 1), at_once=True)
    assert bench.worker.flush(30)
    assert bench.done[2][0] == "by a job"


def test_memory_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If waiting jobs hold too much memory, the thread that brings more does some of them, in order."""
    monkeypatch.setattr(worker, "MAX_BYTES", 100)
    held, doing = threading.Event(), threading.Event()

    def wait() -> None:
        doing.set()
        held.wait(30)

    bench.worker.put(wait)
    assert doing.wait(30)
    bench.worker.put(bench.note("small"), 60)
    helper = threading.Thread(target=lambda: bench.worker.put(bench.note("large"), 60))
    helper.start()
    helper.join(0.05)
    assert helper.is_alive()  # it waits for its turn
    assert bench.done == []
    held.set()
    helper.join(30)
    assert bench.worker.flush(30)
    assert [what for what, _ in bench.done] == ["small", "large"]


def test_a_worker_refuses_more_jobs_than_may_wait() -> None:
    """With `most`, a job more is refused and not done; once there is room, jobs are taken again."""
    bench = Bench(most=2)
    held = bench.hold()
    assert bench.worker.put(bench.note("taken"))
    assert not bench.worker.put(bench.note("refused"))
    held.set()
    assert bench.worker.flush(30)
    assert bench.worker.put(bench.note("again"))
    bench.end()
    assert [what for what, _ in bench.done] == ["taken", "again"]


def test_a_flush_waits_for_the_jobs_so_far_only(bench: Bench) -> None:
    """Jobs that are put while a thread waits do not keep it waiting: a worker that is never idle can be flushed."""
    waiting = threading.Event()

    class Watched(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            waiting.set()
            return super().wait(timeout)

    bench.worker._idle = Watched(threading.RLock())
    first = bench.hold()
    flushed: list[bool] = []
    flush = threading.Thread(target=lambda: flushed.append(bench.worker.flush(30)))
    flush.start()
    assert waiting.wait(30)
    second = bench.hold()
    first.set()
    flush.join(30)
    assert flushed == [True]
    assert bench.worker.waiting == 1
    second.set()


def test_a_job_does_not_wait_for_itself(bench: Bench) -> None:
    """A job that flushes its own worker gets False at once."""
    answers: list[bool] = []
    bench.worker.put(lambda: answers.append(bench.worker.flush(30)))
    assert bench.worker.flush(30)
    assert answers == [False]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the interpreter ignores it, too
def test_a_job_that_ends_the_thread(bench: Bench) -> None:
    """After a job that raises SystemExit the others are done all the same, by another thread."""
    held = bench.hold()
    bench.worker.put(sys.exit)
    bench.worker.put(bench.note("after"))
    (thread,) = threads()
    held.set()
    thread.join(30)
    assert bench.worker.flush(30)
    assert bench.done == [("after", True)]
    assert bench.failures == []


def test_no_thread_can_be_started(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the interpreter jobs are done by the thread that puts them, which is not the worker's."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as ending:
        ending.setattr(threading.Thread, "start", fail)
        bench.worker.put(bench.note("here"))
        assert bench.done == [("here", False)]
        bench.worker.put(lambda: bench.worker.put(bench.note("inside")))
        assert bench.done[1:] == [("inside", False)]
    bench.worker.put(bench.note("there"))
    assert bench.worker.flush(30)
    assert bench.done[2:] == [("there", True)]


def test_a_job_is_put_while_the_thread_starts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler that puts a job in the middle of the start waits for nothing, and there is one thread."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        bench.worker.put(bench.note("handler"))
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    bench.worker.put(bench.note("first"))
    assert bench.worker.flush(30)
    assert [what for what, _ in bench.done] == ["first", "handler"]
    assert len(threads()) == 1


@forks
def test_a_child_starts_without_jobs(bench: Bench) -> None:
    """In a forked child nothing waits, though the parent's thread holds the worker's locks; the parent goes on."""
    held = bench.hold()
    bench.worker.put(bench.note("parent"))

    def does_its_own() -> bool:
        is_empty = bench.worker.waiting == 0 and not bench.worker.started
        bench.worker.put(bench.note("child"))
        return is_empty and bench.worker.flush(30) and bench.done == [("child", True)]

    assert child_finds(does_its_own)
    held.set()
    assert bench.worker.flush(30)
    assert bench.done == [("parent", True)]


@pytest.mark.parametrize("finish", [True, False])
def test_the_end_of_the_process(finish: bool) -> None:
    """With `finish` the process waits for its jobs, else it ends without them."""
    code = f"""
        import threading, time
        from tollspan.runtime.worker import BackgroundWorker
        def job():
            begun.set()
            time.sleep(0.2)
            print("done", flush=True)
        begun = threading.Event()
        BackgroundWorker("w", "test", print, finish={finish}).put(job)
        begun.wait()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603 - our own
    assert (ended.stdout, ended.stderr) == ("done\n" if finish else "", "")


def child(path: Path) -> None:
    """Put a job in a process of multiprocessing, and end."""
    begun = threading.Event()

    def job() -> None:
        begun.wait(30)
        path.write_text("done")

    BackgroundWorker(NAME, "test", lambda *_: None, finish=True).put(job)
    begun.set()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_end_of_a_child_of_multiprocessing(method: str, tmp_path: Path) -> None:
    """Children of multiprocessing end without what `atexit` has; with `finish` they wait all the same."""
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=child, args=(tmp_path / "done",))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert (tmp_path / "done").read_text() == "done"
