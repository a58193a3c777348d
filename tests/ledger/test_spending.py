"""What a program can ask of itself: summaries, resets, flushes; and what the ledger is told of real calls."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
import types
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tollspan
from tests.capture.mock_wires import CHAT, CHAT_COST, CHAT_REQUEST, LIBRARIES, OPENAI, Wire, packed, post
from tests.ledger.call_factory import FAILED, UNPRICED, made
from tests.ledger.test_totals import many, write
from tollspan.api import spending
from tollspan.ledger.conditions import Where
from tollspan.ledger.process_totals import MOST_SESSIONS, ProcessTotals
from tollspan.ledger.queries import Ledger
from tollspan.ledger.resets import ResetWatcher, reset_session
from tollspan.ledger.schema import connect
from tollspan.settings import Settings, ledger_path, load, on_lambda, state_folder
from tollspan.setup import ledger as ledger_part
from tollspan.telemetry.counters import Accumulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Metered


def ask(answer: dict[str, Any] | None = None, request: dict[str, Any] | None = None) -> None:
    """Make a call that is answered at once."""
    wire = Wire(pieces=[packed(answer or CHAT)])
    assert post(wire, LIBRARIES[0], OPENAI, request or CHAT_REQUEST).status_code == 200


def test_before_instrument_everything_is_empty() -> None:
    """Asked before `instrument()`, all answer that there is nothing, and none raises."""
    summary = tollspan.summary()
    assert not any((summary.total, summary.calls, summary.tokens, summary.unpriced))
    assert not summary.by_provider
    assert not summary.by_model
    assert not summary.by_tag
    assert tollspan.summary(session="any", everywhere=True) == summary
    tollspan.reset()
    tollspan.reset("any")
    assert tollspan.flush()


def test_live_sums_are_those_of_the_counters() -> None:
    """In all and by session, what is kept in memory comes to what the counters and the calls say."""
    calls = many(400)
    live, accumulator = ProcessTotals(), Accumulator()
    for call in calls:
        live.add(call)
        accumulator.add(call)
    summary = live.summary()
    assert summary.figures.spend == accumulator.spend
    assert summary.figures.calls + summary.figures.failed == accumulator.calls
    for sums in (summary.by_provider, summary.by_model, summary.by_tag["tier"]):
        assert sum(figures.spend for figures in sums.values()) == accumulator.spend
    for session in live.sessions:
        spent = sum(
            call.cost.amount or 0 for call in calls if call.billable and call.attribution.get("session") == session
        )
        assert live.summary(session).figures.spend == spent


def test_configured_tags_show_at_zero() -> None:
    """Values of tags that the settings name are there before any call; unpriced calls are counted beside the total."""
    live = ProcessTotals({"tier": ["1", "2"]})
    assert live.summary().by_tag["tier"]["2"].calls == 0
    live.add(made(1, attribution={"tag.tier": "1"}))
    live.add(made(2, **UNPRICED))
    live.add(made(3, **FAILED))
    summary = live.summary()
    assert {value: figures.calls for value, figures in summary.by_tag["tier"].items()} == {"1": 1, "2": 0}
    assert (summary.calls, summary.unpriced, summary.figures.failed) == (2, 1, 1)


def test_a_session_takes_less_than_a_kilobyte() -> None:
    """A session with a model and a tag takes less than 1,024 bytes; past a number of them quiet ones are forgotten."""
    calls = [made(n, attribution={"session": f"session-{n}", "tag.tier": "1"}) for n in range(2000)]
    live = ProcessTotals()
    tracemalloc.start()
    for call in calls:
        live.add(call)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / len(calls) < 1024
    for number in range(MOST_SESSIONS):
        live.add(made(number, attribution={"session": f"later-{number}"}))
    live.add(made(1, attribution={"session": "later-0"}))
    assert len(live.sessions) == MOST_SESSIONS
    assert live.summary("session-5").calls == 0
    assert live.summary("later-0").calls == 2


def test_a_reset_begins_a_session_anew(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """A reset empties a session's summary, in memory and in the file; its rows stay, and so do other sessions."""
    path = tmp_path / "ledger.db"
    instrumented(ledger=str(path), session="a")
    ask()
    with tollspan.attribution(session="b"):
        ask()
    assert tollspan.summary("a").calls == tollspan.summary("b").calls == 1
    assert tollspan.summary("a", everywhere=True).calls == 1
    tollspan.reset("a")
    assert tollspan.summary("a").calls == tollspan.summary("a", everywhere=True).calls == 0
    assert tollspan.summary("b").calls == tollspan.summary("b", everywhere=True).calls == 1
    ask()
    summary = tollspan.summary("a", everywhere=True)
    assert summary.calls == 1
    assert float(summary.total) == pytest.approx(CHAT_COST)
    with Ledger(path) as ledger:
        assert ledger.figures(Where(session="a")).calls == 2


def test_another_process_resets_a_session(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """A reset from the command line empties the summary of a program that runs, once."""
    path = tmp_path / "ledger.db"
    instrumented(ledger=str(path), session="a")
    ask()
    assert tollspan.flush()
    assert tollspan.summary("a").calls == 1
    reset_session(path, "a")
    assert tollspan.summary("a").calls == 0
    ask()
    assert tollspan.flush()
    assert tollspan.summary("a").calls == 1


def test_calls_after_a_reset_count_though_nobody_asked(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """What was called between the reset by another process and the question is in the answer, by tags too."""
    path = tmp_path / "ledger.db"
    instrumented(ledger=str(path), session="a")
    with tollspan.attribution(tags={"tier": "1"}):
        ask()
        assert tollspan.flush()
        reset_session(path, "a")
        ask()
        assert tollspan.flush()
        ask()
    summary = tollspan.summary("a")
    assert (summary.calls, summary.by_tag["tier"]["1"].calls) == (2, 2)
    assert tollspan.flush()
    assert tollspan.summary("a").calls == tollspan.summary("a", everywhere=True).calls == 2
    assert tollspan.summary().calls == 3


def test_a_reset_is_seen_where_the_log_is_gone(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """A fork closes the file, whose log goes then: a reset in between is noticed by the file itself."""
    path = tmp_path / "ledger.db"
    instrumented(ledger=str(path), session="a")
    ask()
    assert tollspan.flush()
    assert tollspan.summary("a").calls == 1
    if hasattr(os, "fork"):
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
    reset_session(path, "a")
    assert tollspan.summary("a").calls == 0


def test_a_reset_right_after_a_question(
    instrumented: Callable[..., Metered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reset is noticed too where it leaves the file's time and size as they were when it was last read."""
    path = tmp_path / "ledger.db"
    instrumented(ledger=str(path), session="a")
    ask()
    assert tollspan.flush()
    stamp = time.time_ns(), 1
    monkeypatch.setattr(ResetWatcher, "_stamp", lambda _: stamp)
    assert tollspan.summary("a").calls == 1
    reset_session(path, "a")
    assert tollspan.summary("a").calls == 0


def test_a_reset_that_is_heard_of_late() -> None:
    """What was not in the ledger at the reset stays, pending calls with it, and other sessions as they are."""
    live = ProcessTotals()
    live.shared = True
    live.add(made(1, attribution={"session": "a"}))
    live.written([made(1).id])
    live.add(made(2, attribution={"session": "a"}))
    live.add(made(3, attribution={"session": "b"}))
    live.add(made(4, attribution={"session": "a"}, billable=False, pending=True))
    live.reset_written("a")
    live.written([made(2).id, made(4).id])
    assert [live.summary(name).calls for name in ("a", "b", None)] == [1, 1, 3]
    assert [live.summary(name).pending for name in ("a", "b", None)] == [1, 0, 1]
    live.add(made(5, attribution={"session": "a"}, settles=made(4).id))
    assert [live.summary(name).pending for name in ("a", "b", None)] == [0, 0, 0]
    live.reset("a")
    live.reset_written("a")
    assert live.summary("a").calls == 0
    live.reset("b")
    live.reset_total()
    assert live.summary().calls == live.summary("b").calls == 0


@pytest.mark.parametrize("clock", ["back", "frozen"])
def test_a_reset_counts_whatever_the_clock_says(
    instrumented: Callable[..., Metered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    """Resets are in order though the clock is set back or stands still: each of them, here and of other processes."""
    path = tmp_path / "ledger.db"
    instrumented(ledger=str(path), session="a")
    now = time.time_ns()
    times = itertools.count(now, -3_600_000_000_000) if clock == "back" else itertools.repeat(now)
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    for reset in (tollspan.reset, partial(reset_session, path)) * 2:
        ask()
        assert tollspan.flush()
        assert tollspan.summary("a").calls == 1
        reset("a")
        assert tollspan.summary("a").calls == tollspan.summary("a", everywhere=True).calls == 0


def test_a_reset_of_everything_is_seen_by_others(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """Without a session, each one that this process has made calls in begins anew, also for who reads the ledger."""
    path = tmp_path / "ledger.db"
    instrumented(ledger=str(path), session="a")
    ask()
    with tollspan.attribution(session="b"):
        ask()
    write_as_another(path, "c")
    tollspan.reset()
    with Ledger(path) as ledger:
        assert [ledger.summary(Where(session=name)).calls for name in ("a", "b", "c")] == [0, 0, 1]
        assert ledger.figures().calls == 3
    assert tollspan.summary().calls == 0


def write_as_another(path: Path, session: str) -> None:
    """Write a call of a session as another process does."""
    assert tollspan.flush()
    write(path, [made(1, attribution={"session": session})])


def test_a_session_goes_on_after_a_restart(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """Another process with the same session and ledger knows what was spent before it."""
    for _ in range(2):
        instrumented(ledger=str(tmp_path / "ledger.db"), session="a")
        ask()
        count = tollspan.summary("a", everywhere=True).calls
        tollspan.uninstrument()
    assert count == 2


def test_the_ledger_has_no_text(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """Neither prompt nor completion is in the ledger's files."""
    secret = "hush: the prompt that nobody may read"
    answer = "hush: and the answer to it"
    body = {
        **CHAT,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}],
    }
    instrumented(ledger=str(tmp_path / "ledger.db"), durability="call")
    ask(body, {**CHAT_REQUEST, "messages": [{"role": "user", "content": secret}]})
    files = list(tmp_path.glob("ledger.db*"))
    assert sum(path.read_bytes().count(b"gpt-4o-mini") for path in files)
    assert not any(b"hush" in path.read_bytes() for path in files)


def test_figures_stay_when_prices_change(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """What was recorded is shown, whatever the prices are by then; what had no price shows as unpriced."""
    path = tmp_path / "ledger.db"
    instrumented(ledger=str(path))
    ask()
    ask({**CHAT, "model": "nobody-prices-this"}, {**CHAT_REQUEST, "model": "nobody-prices-this"})
    tollspan.uninstrument()
    prices = tmp_path / "prices.json"
    dear = {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1, "output_cost_per_token": 1}
    prices.write_text(json.dumps({"gpt-4o-mini": dear, "gpt-4o-mini-2024-07-18": dear, "nobody-prices-this": dear}))
    command = [sys.executable, "-m", "tollspan", "inspect", "--ledger", str(path), "--json"]
    environment = {"TOLLSPAN_PRICING_PATH": str(prices), "PATH": ""}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S603
    total = json.loads(done.stdout)["total"]
    assert float(total["cost_usd"]) == pytest.approx(CHAT_COST)
    assert (total["calls"], total["unpriced"]) == (2, 1)


def test_run_and_session_of_a_process(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """A process that names no run is a run of its own."""
    path = tmp_path / "ledger.db"
    instrumented(ledger=str(path))
    ask()
    with tollspan.attribution(run="mine", step="one"):
        ask()
    assert tollspan.flush()
    with Ledger(path) as ledger:
        runs = ledger.runs()
        assert [run.figures.calls for run in runs] == [1, 1]
        assert runs[0].id == "mine"
        assert len(runs[1].id) > 20
        assert [group.key for group in ledger.groups(["step"], Where(run="mine"))] == [("one",)]


def test_everywhere_without_a_ledger_is_told(
    instrumented: Callable[..., Metered], caplog: pytest.LogCaptureFixture
) -> None:
    """Where no ledger is kept, the sums of all processes are not known: the answer is this one's, and that is told."""
    spending._warn_once.cache_clear()
    instrumented()
    ask()
    assert [tollspan.summary(everywhere=True).calls for _ in range(2)] == [1, 1]
    (said,) = (record.getMessage() for record in caplog.records)
    assert "there is no ledger" in said


# Where it is


def test_default_places() -> None:
    """The ledger is in the user's state directory: XDG's, or that of the platform."""
    assert state_folder({"XDG_STATE_HOME": "/state"}) == Path("/state/tollspan")
    assert state_folder({}, "linux") == Path.home() / ".local/state/tollspan"
    assert state_folder({}, "darwin") == Path.home() / "Library/Application Support/tollspan"
    assert state_folder({"LOCALAPPDATA": "/local"}, "win32") == Path("/local/tollspan")


@pytest.mark.parametrize(
    ("told", "default", "expected"),
    [
        (None, False, None),
        (None, True, "/state/tollspan/ledger.db"),
        ("off", True, None),
        ("no", True, None),
        ("on", False, "/state/tollspan/ledger.db"),
        ("/a/b.db", False, "/a/b.db"),
    ],
)
def test_who_has_a_ledger(told: str | None, default: bool, expected: str | None) -> None:
    """A path, on and off are what they say; nothing said is on for `tollspan run` and off for `instrument()`."""
    environment = {"XDG_STATE_HOME": "/state", **({} if told is None else {"TOLLSPAN_LEDGER": told})}
    path = ledger_path(load(environment), environment, default=default)
    assert path == (None if expected is None else Path(expected))


def test_on_lambda_no_file_is_the_default() -> None:
    """On AWS Lambda nothing is written unless it is asked for."""
    environment = {"AWS_LAMBDA_FUNCTION_NAME": "f", "XDG_STATE_HOME": "/state"}
    assert on_lambda(environment)
    assert ledger_path(Settings(), environment, default=True) is None
    assert ledger_path(Settings(ledger="/tmp/l.db"), environment) == Path("/tmp/l.db")  # noqa: S108 - Lambda's own


def test_on_lambda_every_invocation_is_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the runtime asks for the next invocation everything is flushed; a flush that fails stops nothing."""
    seen: list[Any] = []

    class LambdaRuntimeClient:
        def wait_next_invocation(self) -> str:
            seen.append("next")
            return "event"

    module: Any = types.ModuleType("awslambdaric.lambda_runtime_client")
    module.LambdaRuntimeClient = LambdaRuntimeClient
    monkeypatch.setitem(sys.modules, "awslambdaric", types.ModuleType("awslambdaric"))
    monkeypatch.setitem(sys.modules, "awslambdaric.lambda_runtime_client", module)

    def flush(timeout: float) -> bool:
        seen.append(timeout)
        raise OSError("no network")

    ledger_part.flush_after_invocations(flush)
    assert LambdaRuntimeClient().wait_next_invocation() == "event"
    assert seen == ["next"]  # not on Lambda
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "f")
    ledger_part.flush_after_invocations(flush)
    ledger_part.flush_after_invocations(flush)
    assert LambdaRuntimeClient().wait_next_invocation() == "event"
    assert seen == ["next", 2.0, "next"]


def test_signals_are_given_back(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """A ledger handles SIGTERM where nobody else does, and gives it back with `uninstrument()`."""
    before = signal.getsignal(signal.SIGTERM)
    instrumented(ledger=str(tmp_path / "ledger.db"))
    assert (signal.getsignal(signal.SIGTERM) is before) == (before is not signal.SIG_DFL)
    tollspan.uninstrument()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_ledger_in_the_way_does_not_stop_a_call(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """With a ledger that cannot be written, calls go on, are counted, and the failure is counted too."""
    path = tmp_path / "ledger.db"
    path.write_text("a letter; " * 100)
    metered = instrumented(ledger=str(path))
    ask()
    assert not tollspan.flush()
    assert metered.errors() == {"ledger:damaged": 1}
    assert tollspan.summary().calls == 1
    assert path.read_text() == "a letter; " * 100
    path.unlink()
    assert tollspan.flush()
    with closing(connect(path, write=False)) as db:
        assert db.execute("SELECT count(*) FROM calls").fetchone() == (1,)
