"""Calls get into the ledger whatever happens, and the application never notices."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.forked_children import child_finds, forks
from tests.ledger.call_factory import made
from tollspan.ledger import writer as writing
from tollspan.ledger.conditions import Where
from tollspan.ledger.queries import Ledger
from tollspan.ledger.schema import VERSION, connect
from tollspan.ledger.writer import Writer
from tollspan.model.records import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Books:
    """A writer, and what it said."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.counted: list[str] = []
        self.writer = Writer(path, self.counted.append, **options)

    def rows(self) -> int:
        """Return how many calls the ledger has."""
        with closing(sqlite3.connect(self.path)) as db:
            (count,) = db.execute("SELECT count(*) FROM calls").fetchone()
        return int(count)

    def sums_agree(self) -> bool:
        """Return whether every kept total is that of the rows."""
        with Ledger(self.path) as ledger:
            rows = ledger._over_rows((), Where(), None)
            return all(ledger._over_totals(kind, (), Where()) == rows for kind in ("all", "session", "run", "user"))


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    """Return a writer to a ledger that is not there yet."""
    books = Books(tmp_path / "state" / "ledger.db", defaults={"run": "r"})
    yield books
    books.writer.close(1.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have failures tried again at once."""
    monkeypatch.setattr(writing, "RETRIES", (0.01,))
    monkeypatch.setattr(writing, "PATIENCE", 0.05)


def test_calls_are_written(books: Books) -> None:
    """What was added is in the file after a flush, with sums that agree."""
    for number in range(100):
        books.writer.add(made(number))
    assert books.writer.flush()
    assert books.rows() == books.writer.written == 100
    assert books.sums_agree()


def test_nothing_is_made_before_the_first_call(books: Books) -> None:
    """A process without calls makes no file and no thread."""
    assert books.writer.flush()
    assert not books.path.parent.exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "tollspan-ledger"]


def test_calls_are_written_without_a_flush(books: Books) -> None:
    """The thread writes on its own."""
    written = threading.Event()
    finish = books.writer._kept.write

    def write() -> None:
        finish()
        written.set()

    books.writer._kept.write = write  # type: ignore[method-assign]
    books.writer.add(made())
    assert written.wait(30)
    assert books.rows() == 1


def test_a_call_is_kept_once(books: Books) -> None:
    """A call that is in the ledger already is not added again, nor to any sum."""
    for call in (made(1), made(1), made(2)):
        books.writer.add(call)
    assert books.writer.flush()
    books.writer.add(made(2))
    books.writer.add(made(3))
    assert books.writer.flush()
    assert books.rows() == 3
    assert books.sums_agree()


def test_every_call_is_on_disk_when_durable(tmp_path: Path) -> None:
    """With durability `call`, a call is in the file when `add` returns."""
    books = Books(tmp_path / "ledger.db", durability="call")
    for number in range(5):
        books.writer.add(made(number))
        assert books.rows() == number + 1
    books.writer.close()


def test_many_threads(books: Books) -> None:
    """Calls that end in many threads at once are all written."""

    def work(first: int) -> None:
        for number in range(first, first + 200):
            books.writer.add(made(number))

    threads = [threading.Thread(target=work, args=(1000 * place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert books.writer.flush(60)
    assert books.rows() == 1600
    assert books.sums_agree()


def test_late_calls_are_written_at_once(books: Books) -> None:
    """A call that ends after the close, while the process is ending, is written where it ends."""
    books.writer.add(made(1))
    assert books.writer.close()
    books.writer.add(made(2))
    assert books.rows() == 2


def test_odd_texts_and_numbers_do_not_stop_the_others(books: Books, caplog: pytest.LogCaptureFixture) -> None:
    """A call that cannot be kept is counted and told; half a surrogate is replaced; the others are written."""
    books.writer.add(made(1))
    books.writer.add(made(2, response_model="half \ud800 of a pair"))
    books.writer.add(made(3, usage=Usage(input=10**20)))
    books.writer.add(made(4, http_status=2**70))
    books.writer.add(made(5))
    assert books.writer.flush()
    assert books.rows() == 3
    assert books.writer.lost == 1
    assert books.counted == ["ledger:lost"]
    assert [record.getMessage() for record in caplog.records if "implausible value" in record.getMessage()]


# What is in the way


def test_a_locked_file_is_waited_for(books: Books) -> None:
    """While another program holds the lock, calls wait; then they are written, and nobody was told of anything."""
    connect(books.path).close()
    with closing(sqlite3.connect(books.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        books.writer.add(made())
        assert not books.writer.flush(0.3)
        other.execute("COMMIT")
    assert books.writer.flush(30)
    assert books.rows() == 1
    assert not books.counted


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("obstacle", ["file for a folder", "folder for a file", "no database", "newer", "locked"])
def test_obstacles_are_told_once_and_overcome(obstacle: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be written is told in one line and kept; without the obstacle it is written, and that is told."""
    folder = tmp_path / "folder"
    path = folder / "ledger.db"
    other = None
    if obstacle == "file for a folder":
        folder.write_text("in the way")
    else:
        folder.mkdir()
    if obstacle == "folder for a file":
        path.mkdir()
    elif obstacle == "no database":
        path.write_text("a letter, not a database; " * 50)
    elif obstacle in {"newer", "locked"}:
        connect(path).close()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute(f"PRAGMA user_version = {VERSION + 1}" if obstacle == "newer" else "BEGIN IMMEDIATE")
    before = path.read_bytes() if path.is_file() else b""
    books = Books(path)
    with caplog.at_level(logging.WARNING, "tollspan"):
        for number in range(3):
            books.writer.add(made(number))
            assert not books.writer.flush(30)
    assert len(caplog.records) == 1
    assert str(path) in caplog.records[0].getMessage()
    assert caplog.records[0].exc_info is None
    assert books.writer.waiting == 3
    assert len(books.counted) >= 3
    assert not path.is_file() or path.read_bytes() == before

    if other is not None:
        other.execute(f"PRAGMA user_version = {VERSION}" if obstacle == "newer" else "COMMIT")
        other.close()
    elif path.is_dir():
        path.rmdir()
    else:
        (folder if folder.is_file() else path).unlink()
    with caplog.at_level(logging.WARNING, "tollspan"):
        assert books.writer.flush(30)
    assert books.rows() == 3
    assert "writing recovered" in caplog.records[-1].getMessage()
    books.writer.close()


@pytest.mark.usefixtures("quick")
def test_a_full_disk_is_told_and_overcome(
    books: Books, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk is full, nothing half-written stays; calls are kept and written when there is room again."""
    pages = 60

    def small(path: Path, **how: Any) -> sqlite3.Connection:
        db = connect(path, **how)
        db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then fails as it does where a disk is full
        return db

    monkeypatch.setattr(writing, "connect", small)
    for number in range(1000):
        books.writer.add(made(number))
    assert not books.writer.flush(30)
    assert "the disk is full" in caplog.text
    assert books.rows() + books.writer.waiting == 1000
    assert books.sums_agree()
    pages = 10_000
    assert books.writer.flush(30)
    assert books.rows() == 1000
    assert books.sums_agree()


@pytest.mark.usefixtures("quick")
def test_what_waits_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Past a limit calls are counted as lost, so that a ledger that cannot be written fills no memory."""
    monkeypatch.setattr(writing, "LIMIT", 50)
    (tmp_path / "file").write_text("in the way")
    books = Books(tmp_path / "file" / "ledger.db")
    for number in range(200):
        books.writer.add(made(number))
    assert books.writer.waiting + books.writer.lost == 200
    assert books.writer.waiting <= 51  # one may be on its way out of the queue
    assert not books.writer.close(5)
    assert f"{books.writer.waiting} calls could not be written and are lost" in caplog.text


# Processes


def run(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start a program that has `books` and `made`."""
    head = (
        "import os, sys\nfrom pathlib import Path\nfrom tests.ledger.call_factory import made\n"
        "from tests.ledger.test_writer import Books\n"
    )
    return subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def status_of(code: str, *arguments: object) -> int:
    """Run a program; give its exit status."""
    with run(code, *arguments) as program:
        return program.wait(60)


def test_many_processes_share_a_file(tmp_path: Path) -> None:
    """Processes that write to one file at once lose nothing, and the sums are those of all of them."""
    code = """
        books = Books(Path(sys.argv[1]))
        first = int(sys.argv[2])
        for number in range(first, first + 500):
            books.writer.add(made(number))
            if number % 50 == 0:
                assert books.writer.flush(60)
        assert books.writer.close(60)
        assert not books.counted, books.counted
    """
    path = tmp_path / "ledger.db"
    with ExitStack() as stack:
        programs = [stack.enter_context(run(code, path, 1000 * place)) for place in range(6)]
        assert [program.wait(120) for program in programs] == [0] * 6
    books = Books(path)
    assert books.rows() == 3000
    assert books.sums_agree()


def test_a_killed_process_leaves_what_was_durable(tmp_path: Path) -> None:
    """Killed in the middle (kill -9), a process with durability `call` loses no call that was answered."""
    code = """
        books = Books(Path(sys.argv[1]), durability="call")
        for number in range(10**6):
            books.writer.add(made(number))
            print(number, flush=True)
    """
    path = tmp_path / "ledger.db"
    with run(code, path) as program:
        assert program.stdout is not None
        lines = [program.stdout.readline() for _ in range(30)]
        program.kill()
        lines += program.stdout.read().split("\n")[:-1]
    last = max(int(line) for line in lines)
    books = Books(path)
    assert books.rows() >= last + 1
    assert books.sums_agree()


def test_a_killed_process_loses_little_of_a_batch(tmp_path: Path) -> None:
    """Killed in the middle (kill -9), a process loses the calls of the last 200 milliseconds at most."""
    code = """
        import time
        books = Books(Path(sys.argv[1]))
        for number in range(10**6):
            books.writer.add(made(number))
            print(number, time.monotonic_ns(), flush=True)
            time.sleep(0.002)
    """
    losses = []
    for attempt in range(3):  # the best of three: a busy machine may keep any thread waiting
        path = tmp_path / f"ledger{attempt}.db"
        with run(code, path) as program:
            assert program.stdout is not None
            lines = [program.stdout.readline() for _ in range(300)]
            program.kill()
            lines += program.stdout.read().split("\n")[:-1]
        books = Books(path)
        assert books.sums_agree()
        at = [int(line.split()[1]) for line in lines]
        kept = books.rows()
        losses.append((at[-1] - at[kept]) / 1e6 if kept < len(at) else 0.0)
    assert min(losses) <= 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_process_writes_first(number: signal.Signals, tmp_path: Path) -> None:
    """On SIGTERM and SIGHUP everything is written, and the process ends by that very signal."""
    code = """
        import tollspan
        from tollspan.setup.instrument import current
        from tollspan.ledger import writer
        writer.INTERVAL = 60
        tollspan.instrument(ledger=sys.argv[1])
        current().views[-1][1](made())
        print("added", flush=True)
        import time
        while True:
            time.sleep(60)
    """
    with run(code, tmp_path / "ledger.db") as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "added\n"
        program.send_signal(number)
        assert program.wait(60) == -number
    assert Books(tmp_path / "ledger.db").rows() == 1


def test_the_normal_end_writes_first(tmp_path: Path) -> None:
    """A script that just ends, also by an exception, has its calls in the ledger."""
    code = """
        import tollspan
        from tollspan.setup.instrument import current
        from tollspan.ledger import writer
        writer.INTERVAL = 60
        tollspan.instrument(ledger=sys.argv[1])
        current().views[-1][1](made())
        raise SystemExit(3)
    """
    assert status_of(code, tmp_path / "ledger.db") == 3
    assert Books(tmp_path / "ledger.db").rows() == 1


def test_a_handler_of_the_applications_is_left_alone(tmp_path: Path) -> None:
    """Where the application handles a signal, before or after, its handler is what runs."""
    code = """
        import signal, tollspan
        if sys.argv[2] == "before":
            signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
        tollspan.instrument(ledger=sys.argv[1])
        if sys.argv[2] == "after":
            signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
        os.kill(os.getpid(), signal.SIGTERM)
    """
    assert status_of(code, tmp_path / "ledger.db", "before") == 9
    assert status_of(code, tmp_path / "ledger.db", "after") == 9


@forks
def test_a_forked_child_begins_anew(books: Books) -> None:
    """A child writes its own calls, with a thread and a connection of its own; its parent's are written once."""
    books.writer.add(made(1))
    children = []
    for place in range(4):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                books.writer.add(made(10 + place))
                status = 0 if books.writer.flush(30) and books.writer.written == 1 else 2
            finally:
                os._exit(status)
        children.append(pid)
        books.writer.add(made(100 + place))
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    assert books.writer.flush(30)
    assert books.rows() == 9
    assert books.sums_agree()


@forks
def test_a_child_that_outlives_its_parent(books: Books) -> None:
    """When the parent closes the ledger, as the last one that it knows of, what its child writes then is kept too."""
    books.writer.add(made(1))
    assert books.writer.flush()
    (closed, close), (wrote, write) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            books.writer.add(made(2))
            good = books.writer.flush()
            os.write(write, b".")
            os.read(closed, 1)
            books.writer.add(made(3))
            status = 0 if books.writer.flush() and good else 2
        finally:
            os._exit(status)
    os.read(wrote, 1)
    assert books.writer.close()
    os.write(close, b".")
    assert os.waitpid(child, 0)[1] == 0
    for end in (closed, close, wrote, write):
        os.close(end)
    assert books.rows() == 3
    assert books.sums_agree()


@forks
def test_forks_while_calls_are_written(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a child is forked, its calls are written, and its parent's once."""
    monkeypatch.setattr(writing, "INTERVAL", 0.0)
    end, numbers = threading.Event(), iter(range(1_000, 100_000))

    def work() -> None:
        while not end.is_set():
            books.writer.add(made(next(numbers)))
            end.wait(0.0005)

    thread = threading.Thread(target=work)
    thread.start()

    def written(number: int) -> bool:
        books.writer.add(made(number))
        return books.writer.flush(60)

    kept = [child_finds(partial(written, number)) for number in range(40)]
    end.set()
    thread.join()
    assert kept == [True] * 40
    assert books.writer.flush(60)
    assert books.rows() == 40 + next(numbers) - 1_000
    assert books.sums_agree()


def child(path: Path, number: int) -> None:
    """Add a call in a process of multiprocessing, and end."""
    writing.INTERVAL = 60  # type: ignore[misc]
    Books(path).writer.add(made(number))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_multiprocessing_write_before_they_end(method: str, tmp_path: Path) -> None:
    """Children of multiprocessing end without the interpreter's own end; their calls are in the ledger all the same."""
    context: Any = multiprocessing.get_context(method)
    processes = [context.Process(target=child, args=(tmp_path / "ledger.db", number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert Books(tmp_path / "ledger.db").rows() == 3


def test_two_versions_on_one_file(books: Books, caplog: pytest.LogCaptureFixture) -> None:
    """When a newer tollspan has taken the file over in the meantime, this one leaves it as it is and says so."""
    books.writer.add(made(1))
    assert books.writer.flush()
    with closing(sqlite3.connect(books.path, isolation_level=None)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    books.writer.add(replace(made(2)))
    assert not books.writer.flush()
    assert "newer tollspan" in caplog.text
    assert books.rows() == 1
    assert books.writer.waiting == 1


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_file_that_is_taken_away_is_noticed(books: Books, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is written later is in the file that everybody sees, and the log says what happened, once."""
    books.writer.add(made(1))
    assert books.writer.flush()
    files = [books.path, *books.path.parent.glob(f"{books.path.name}-*")]
    for file in files:
        file.rename(file.with_name(f"old-{file.name}")) if how == "moved" else file.unlink()
    if how == "replaced":
        connect(books.path).close()
    for number in (2, 3):
        books.writer.add(made(number))
        assert books.writer.flush()
    assert books.rows() == 2
    assert books.sums_agree()
    assert caplog.text.count("was deleted or replaced") == 1
    assert books.counted == ["ledger:replaced"]


def test_what_is_entered_is_given_to_one(tmp_path: Path) -> None:
    """Of several that enter the same calls at once, each call is given to one, and the ledger has each once."""
    path = tmp_path / "ledger.db"
    calls = [made(number) for number in range(400)]
    given: list[list[str]] = []

    def enter() -> None:
        writer = Books(path).writer
        given.extend([call.id for call in writer.enter(calls[at : at + 50])] for at in range(0, len(calls), 50))

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(id_ for some in given for id_ in some) == sorted(call.id for call in calls)
    assert Books(path).rows() == 400
    assert Books(path).sums_agree()


def test_a_number_that_cannot_be_true_is_not_entered(books: Books) -> None:
    """A call that would break the sums is counted as lost, and the others are entered."""
    found = books.writer.enter([made(1, usage=Usage(input=10**30)), made(2)])
    assert [call.id for call in found] == [made(2).id]
    assert books.counted == ["ledger:lost"]
    assert books.writer.has(made(2).id)
    assert not books.writer.has(made(1).id)


def test_a_full_transaction_does_not_wait(books: Books) -> None:
    """Calls are waited for where few have come; where there are enough for a transaction, it is written at once."""
    kept = books.writer._kept
    assert kept.pause(0) == kept.pause(writing.BATCH - 1) == writing.INTERVAL
    assert kept.pause(writing.BATCH) == 0
