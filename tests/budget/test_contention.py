"""Many threads, tasks and processes on one file: nobody is refused because others wait, and the file's fate is told."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

import tollspan
from tests.budget.contract import NOW, UNTIL, amounts, update
from tests.budget.test_loops import BODY, URL, client
from tollspan.budget.stores import Charge, StoreError
from tollspan.budget.stores.opening import store_of
from tollspan.budget.stores.sqlite import SqliteStore
from tollspan.model.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from tests.conftest import Metered
    from tollspan.budget.stores import Store

THREADS, CALLS = 128, 8


def spend(store: Store, name: str) -> None:
    """Reserve and settle one call."""
    assert store.reserve(name, [update(7)], NOW, UNTIL).refused is None
    assert store.settle(name, [Charge("a", 0, 3)], NOW) is not None


def test_threads_wait_for_each_other_without_a_limit(tmp_path: Path) -> None:
    """128 threads on one file: the deadline, however short, is for other processes, and no operation fails."""
    store, failures = SqliteStore(tmp_path / "b.sqlite", deadline=0.01), []
    ready = threading.Barrier(THREADS)

    def work(thread: int) -> None:
        ready.wait()
        try:
            for number in range(CALLS):
                spend(store, f"{thread}.{number}")
        except StoreError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert amounts(store) == (3 * THREADS * CALLS, 0)
    store.close()


def test_tasks_are_not_refused(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """1,000 tasks that call at once are all answered, and all are counted."""
    tasks = 1000
    instrumented(budget=f"{tasks} calls/total", budget_store=f"sqlite:{tmp_path}/b.sqlite")

    async def main() -> list[int]:
        async with client() as lib:
            return list(await asyncio.gather(*(status(lib) for _ in range(tasks))))

    async def status(lib: httpx.AsyncClient) -> int:
        return (await lib.post(URL, json=BODY)).status_code

    assert set(asyncio.run(main())) == {200}
    assert tollspan.flush()
    (counted,) = tollspan.budget.status()
    assert counted.spent == tasks


PROCESS = """
import sys, threading
sys.path[:0] = sys.argv[3:]
from tests.budget.test_contention import spend
from tollspan.budget.stores.opening import store_of
store = store_of(sys.argv[1])
def work(thread):
    for number in range(10):
        spend(store, f"{sys.argv[2]}.{thread}.{number}")
threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_processes_share_the_file(tmp_path: Path) -> None:
    """Four processes with 16 threads each spend from one file: none starves another."""
    address = f"sqlite:{tmp_path}/b.sqlite?deadline=20"
    command = [sys.executable, "-c", PROCESS, address]
    children = [
        subprocess.Popen([*command, str(number), *sys.path], stderr=subprocess.PIPE, text=True)  # noqa: S603 - ours
        for number in range(4)
    ]
    errors = [child.communicate(timeout=120)[1] for child in children]
    assert errors == [""] * 4
    store = store_of(address)
    assert amounts(store) == (3 * 4 * 16 * 10, 0)
    store.close()


def test_one_operation_that_fails_fails_alone(tmp_path: Path) -> None:
    """Of operations that share a transaction, one that fails changes nothing and keeps no other from being done."""
    store = SqliteStore(tmp_path / "b.sqlite")
    spend(store, "warm")
    outcomes: list[str] = []

    def good(number: int) -> None:
        spend(store, f"good{number}")
        outcomes.append("good")

    def bad(number: int) -> None:
        with pytest.raises(TypeError):
            store.reserve(f"bad{number}", [update("x")], NOW, UNTIL)  # type: ignore[arg-type]
        outcomes.append("bad")

    with closing(sqlite3.connect(tmp_path / "b.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8) for work in (good, bad)]
        for thread in threads:
            thread.start()
        other.execute("ROLLBACK")
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["bad"] * 8 + ["good"] * 8
    assert amounts(store) == (3 * 9, 0)
    store.close()


@pytest.mark.parametrize("text", ["?deadline=0", "?deadline=x", "?deadline=61", "?deadline=", "?dedline=1"])
def test_options_of_the_file(text: str, tmp_path: Path) -> None:
    """The deadline is a number of seconds; anything else, or another option, is an error."""
    with pytest.raises(SettingsError, match="invalid budget_store"):
        store_of(f"sqlite:{tmp_path}/b.sqlite{text}")
    store = store_of(f"sqlite:{tmp_path}/b.sqlite?deadline=0.05")
    spend(store, "1")
    assert (tmp_path / "b.sqlite").exists()
    with closing(sqlite3.connect(tmp_path / "b.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            spend(store, "2")
    store.close()


def remove(path: Path, names: tuple[str, ...]) -> None:
    """Delete a file and its companions."""
    for name in names:
        path.with_name(path.name + name).unlink()


@pytest.mark.parametrize("names", [("",), ("", "-wal", "-shm")])
def test_a_deleted_file_is_written_anew(
    tmp_path: Path, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is deleted while processes count in it: the next operation writes it anew, and no limit is lifted."""
    path = tmp_path / "b.sqlite"
    first, second = SqliteStore(path), SqliteStore(path)
    spend(first, "1")
    first.set_limit("A", 20)
    first.reserve("open", [update(5)], NOW, UNTIL)
    second.reserve("other", [update(2)], NOW, UNTIL)
    remove(path, names)
    assert first.reserve("2", [update(11)], NOW, UNTIL).refused == 0
    assert path.exists()
    assert amounts(first) == amounts(second) == (3, 7)
    assert first.settle("open", [Charge("a", 0, 4)], NOW) is not None
    assert second.settle("other", [Charge("a", 0, 1)], NOW) is not None
    late = SqliteStore(path)
    assert amounts(late) == amounts(first) == (8, 0)
    assert late.limits() == {"A": 20}
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2  # once for each that had it open
    assert "deleted or replaced while it was in use" in caplog.text
    for store in (first, second, late):
        store.close()


def test_a_replaced_file_is_used_and_keeps_the_larger_amounts(tmp_path: Path) -> None:
    """A file that another process has made meanwhile is used from then on, with what was spent in the old one."""
    path = tmp_path / "b.sqlite"
    store = SqliteStore(path)
    spend(store, "1")
    spend(store, "2")
    remove(path, ("", "-wal", "-shm"))
    other = SqliteStore(path)
    spend(other, "3")
    store.charge([update(1, key="b", name="B")], NOW)
    assert amounts(store) == amounts(other) == (6, 0)
    assert amounts(other, key="b") == (1, 0)
    spend(other, "4")
    assert amounts(store) == (9, 0)
    store.close()
    other.close()


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    """The file, its companions and the folders that are made for it are their owner's alone: they name users."""
    path = tmp_path / "new" / "folder" / "b.sqlite"
    before = os.umask(0o022)
    try:
        store = SqliteStore(path)
        spend(store, "1")
    finally:
        os.umask(before)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.rglob("*")}
    store.close()
    assert modes.pop("new") == modes.pop("folder") == 0o700
    assert set(modes.values()) == {0o600}
    assert set(modes) == {"b.sqlite", "b.sqlite-wal", "b.sqlite-shm"}
