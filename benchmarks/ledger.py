"""Measure the ledger: rows a second in the background, microseconds on the call path, questions over many rows.

    python -m benchmarks.ledger [--rows 10000000] [--keep FILE] [--quick]

The file is made in a temporary folder (about 600 bytes a row) and removed, unless --keep names one; a kept file that
has the rows is used as it is. Targets: 50,000 rows a second, 5 microseconds on the call path, and 1 second for what is
answered from totals.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tollspan.ledger import totals
from tollspan.ledger.conditions import Where
from tollspan.ledger.queries import Ledger
from tollspan.ledger.rows import COLUMNS
from tollspan.ledger.schema import connect
from tollspan.ledger.writer import LIMIT, Writer
from tollspan.model.errors import LedgerError
from tollspan.model.records import Call, Cost, Usage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

ROWS_A_SECOND: Final = 50_000
CALL_PATH: Final = 5.0
ANSWER: Final = 1.0

_MODELS: Final = (
    ("openai", "gpt-5.4-mini-2026-03-17"),
    ("openai", "gpt-4o-mini-2024-07-18"),
    ("openai", "gpt-5.5-2026-04-23"),
    ("anthropic", "claude-sonnet-5"),
    ("anthropic", "claude-haiku-4-5-20251001"),
    ("gcp.gemini", "gemini-3-flash"),
    ("cohere", "command-a-03-2025"),
    ("deepseek", "deepseek-chat"),
)
_DAYS: Final = 90
_START: Final = 1_780_000_000 * 10**9
_SESSION: Final = 100  # calls of a session
_RUN: Final = 1000  # calls of a run
_SOME: Final = 100_000  # rows that are written one by one
_TOGETHER: Final = 20_000  # rows of one transaction of copies
_OTHER_MODEL: Final = 0.1  # share of calls of a session that go to another model


def calls(count: int) -> Iterator[Call]:
    """Return made calls over 90 days: sessions of 100, mostly of one of 8 models; runs of 1,000 with 5 steps each."""
    chance = random.Random(1)  # noqa: S311 - the same calls each time
    pause = _DAYS * 86_400 * 10**9 // count
    for number in range(count):
        session, run = number // _SESSION, number // _RUN
        provider, model = _MODELS[(session + (chance.random() < _OTHER_MODEL)) % len(_MODELS)]
        amount = chance.randrange(10**13, 10**17)
        at = _START + number * pause
        name = f"{at // 10**6:012x}{chance.getrandbits(80):020x}"  # as new_id() makes them
        yield Call(
            id=name,
            operation_id=name,
            provider=provider,
            operation="chat",
            started_at=at,
            duration=1.2,
            request_model=model,
            response_model=model,
            response_id=f"chatcmpl-{name}",
            finish_reasons=("stop",),
            stream=True,
            server_address="api.example.com",
            server_port=443,
            http_status=200,
            time_to_first_chunk=0.4,
            time_to_first_token=0.5,
            usage=Usage(input=1200, output=300, cache_read=1024, reasoning=64),
            cost=Cost(
                amount=amount,
                source="local",
                quality="measured",
                breakdown={"input": amount // 3, "cache_read": amount // 3, "output": amount - 2 * (amount // 3)},
                computed=amount,
                savings=amount // 10,
                price_key=model,
                rule="exact",
                table_version="litellm.1.109.1",
            ),
            trace_id=f"{chance.getrandbits(128):032x}",
            span_id=f"{chance.getrandbits(64):016x}",
            attribution={
                "session": f"session-{session}",
                "user": f"user-{session % 1000}",
                "run": f"run-{run}",
                "step": f"step-{number % 5}",
                "tag.tier": str(number % 3),
            },
        )


def say(what: str, value: float, unit: str, target: float | None = None, *, most: bool = True) -> None:
    """Print a figure, and beside it the target and how the two compare."""
    line = f"{what:<58}{value:>14,.3f} {unit}"
    if target is not None:
        share = value / target if most else target / value
        line += f"   target {'<=' if most else '>='} {target:,g} {unit}, {share:.2f} of it"
        line += "" if share <= 1 else "  MISSED"
    print(line, flush=True)


def call_path(folder: Path, count: int) -> None:
    """Measure what `add` costs the caller, with the thread writing meanwhile."""
    writer = Writer(folder / "path.db", print)
    made = list(calls(count))
    times = []
    for call in made:
        start = time.perf_counter_ns()
        writer.add(call)
        times.append(time.perf_counter_ns() - start)
        if len(times) % 100 == 0:
            time.sleep(0.001)  # calls come over a network
    writer.close(60)
    times.sort()
    say("call path: add(), median", statistics.median(times) / 1000, "us", CALL_PATH)
    say("call path: add(), 99th percentile", times[len(times) * 99 // 100] / 1000, "us")


def throughput(folder: Path, count: int, seconds: float = 10.0) -> None:
    """Measure how many rows a second the thread sustains while the queue is never empty."""
    writer = Writer(folder / "throughput.db", print)
    made = list(calls(count))
    gc.freeze()
    start, cpu = time.perf_counter(), time.process_time()
    for call in made:
        while writer.waiting >= LIMIT // 2:
            time.sleep(0.005)
        writer.add(call)
        if time.perf_counter() - start > seconds:
            break
    writer.close(60)
    elapsed = time.perf_counter() - start
    say(f"background: {writer.written:,} rows", writer.written / elapsed, "rows/s", ROWS_A_SECOND, most=False)
    say("background: processor time", (time.process_time() - cpu) / writer.written * 1e6, "us/row")


def fill(path: Path, count: int) -> None:
    """Write the rows that questions are asked about: some as a program does, and copies of them for other times."""
    with contextlib.suppress(LedgerError), Ledger(path) as ledger:
        if ledger.figures().calls == count:
            return
    some = min(count, _SOME)
    writer = Writer(path, print)
    for call in islice(calls(count), some):
        while writer.waiting >= LIMIT // 2:
            time.sleep(0.005)
        writer.add(call)
    writer.close(600)
    start = time.perf_counter()
    with contextlib.closing(connect(path)) as db:
        for number in range(1, count // some):
            copy(db, some, number, _DAYS * 86_400 * 10**9 // count * some * number)
    if count > some:
        say(
            f"copied {count - some:,} rows, kept sums included",
            (count - some) / (time.perf_counter() - start),
            "rows/s",
        )
    say("file", path.stat().st_size / count, "bytes/row")


def copy(db: sqlite3.Connection, some: int, number: int, later: int) -> None:
    """Copy the first rows to a later time (nanoseconds), with ids, sessions and runs of their own."""
    changed = {
        "id": "printf('%012x', (started_at + :later) / 1000000) || substr(id, 13, 12) || printf('%08x', :number)",
        "started_at": "started_at + :later",
        "session": "session || '-' || :number",
        "run": "run || '-' || :number",
    }
    values = {"later": later, "number": number}
    for first in range(0, some, _TOGETHER):
        db.execute("BEGIN IMMEDIATE")
        (last,) = db.execute("SELECT max(n) FROM calls").fetchone()
        names = ", ".join(COLUMNS)
        columns = ", ".join(changed.get(name, name) for name in COLUMNS)
        rows = f"SELECT {columns} FROM calls WHERE n > :first AND n <= :first + {_TOGETHER} AND n <= {some}"  # noqa: S608
        db.execute(f"INSERT INTO calls ({names}) {rows}", {**values, "first": first})
        totals.add_rows_after(db, last)
        db.execute("COMMIT")


def asked(path: Path, starts: int, question: str, *arguments: str, target: float | None = ANSWER) -> None:
    """Ask a question as people do: a new process, from its start to its end."""
    command = [sys.executable, "-m", "tollspan", "inspect", "--ledger", str(path), *arguments]
    times = []
    for _ in range(starts if target else 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
        times.append(time.perf_counter() - start)
    say(f"{question}: tollspan inspect {' '.join(arguments)}", statistics.median(times), "s", target)


def questions(path: Path, starts: int) -> None:
    """Ask what people ask, each so often."""
    asked(path, starts, "overview")
    for by in ("day", "model", "provider", "session", "run"):
        asked(path, starts, f"by {by}", "--by", by)
    asked(path, starts, "one run", "--run", "run-7", "--by", "step")
    asked(path, starts, "one session", "--session", "session-7")
    asked(path, starts, "a week", "--since", "2026-06-10T12:30", "--until", "2026-06-17T12:30", "--by", "day")
    asked(path, starts, "by a tag (reads every row)", "--by", "tier", target=None)
    code = "import sys; from tollspan.cli.main import main; main(sys.argv[1:], standalone_mode=False); "
    code += "print(open('/proc/self/status').read())"
    if Path("/proc/self/status").exists():
        for words in (["--by", "session"], ["--by", "tier"]):
            command = [sys.executable, "-c", code, "inspect", "--ledger", str(path), *words]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
            peak = int(re.findall(r"VmHWM:\s+(\d+)", told)[0]) / 1024
            say(f"memory at most: tollspan inspect {' '.join(words)}", peak, "MiB")


def one_session(path: Path) -> None:
    """Ask for a session in a process that has the file open."""
    with Ledger(path) as ledger:
        times = []
        for _ in range(50):
            start = time.perf_counter()
            ledger.figures(Where(session="session-7"))
            times.append(time.perf_counter() - start)
    say("a session, asked in a process that has the file open", statistics.median(times) * 1000, "ms", 1.0)


def main() -> None:
    """Run all measurements."""
    parser = argparse.ArgumentParser(prog="ledger", description="Measure the ledger.")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows that questions are asked about")
    parser.add_argument("--keep", type=Path, help="make, or use, this file for the questions")
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    options = parser.parse_args()
    on_path, together, starts = (200, 2_000, 1) if options.quick else (20_000, 300_000, 3)
    if options.quick:
        options.rows = 10_000
    load: Callable[[], tuple[float, float, float]] = getattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    print(f"{os.cpu_count()} processors, load {load()[0]:.1f}, Python {sys.version.split()[0]}, {options.rows:,} rows")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        call_path(folder, on_path)
        throughput(folder, together)
        path = options.keep or folder / "many.db"
        fill(path, options.rows)
        one_session(path)
        questions(path, starts)


if __name__ == "__main__":
    main()
