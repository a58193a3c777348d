"""What is told at the end: the total names what is not in it, says where it is no exact one, and comes only once."""

from __future__ import annotations

import atexit
import functools
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import tollspan
from tests.capture.mock_wires import CHAT, CHAT_REQUEST, LIBRARIES, OPENAI, Wire, chat_stream, packed, post, sse, stream
from tollspan.capture.call_log import line
from tollspan.ledger.totals import Figures
from tollspan.setup.exit_summary import Tally, as_json, format_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Metered
    from tollspan.model.records import Call

CASES = [
    (Figures(calls=1, spend=12_345 * 10**14), "total $1.2345"),
    (Figures(calls=4, spend=12_345 * 10**14, unpriced=3), "total $1.2345 + 3 unpriced"),
    (Figures(calls=2, spend=123 * 10**14, uncertain=1), "total ~$0.0123"),
    (Figures(pending=2), "total $0.0000 + 2 pending"),
    (Figures(calls=1, unpriced=1, pending=1), "total $0.0000 + 1 unpriced + 1 pending"),
]


@pytest.mark.parametrize(("figures", "total"), CASES, ids=[total for _, total in CASES])
def test_the_total_names_what_is_not_in_it(figures: Figures, total: str) -> None:
    """Unpriced calls and what is pending stand beside the total; an estimate in it is marked."""
    assert format_table([("openai", "gpt-5.5", figures)], "run").splitlines()[-1] == total


def test_json_counts_what_is_not_exact() -> None:
    """Programs are given the same counts, and amounts without an exponent."""
    found = as_json([("openai", "a", figures) for figures, _ in CASES])
    assert (found["unpriced"], found["uncertain"], found["pending"]) == (4, 1, 3)
    assert found["spend_usd"] == "2.481300000000000000"
    assert found["by"][3]["cost_usd"] == "0.000000000000000000"


def test_the_log_marks_estimates(instrumented: Callable[..., Metered], caplog: pytest.LogCaptureFixture) -> None:
    """A stream whose usage nobody told is marked; the total so far names unpriced calls."""
    instrumented(log_calls=True, stream_usage="never")
    with caplog.at_level("INFO", logger="tollspan.calls"):
        stream(sse(chat_stream(200, usage=False)), LIBRARIES[0], OPENAI, {**CHAT_REQUEST, "stream": True})
        post(Wire(pieces=[packed({**CHAT, "model": "nobody-prices-this"})]), LIBRARIES[0], OPENAI, {"model": "x"})
    first, second = [record.getMessage() for record in caplog.records if record.name == "tollspan.calls"]
    assert ", ~$0.000" in first
    assert ", unpriced, " in second
    assert second.endswith(" + 1 unpriced")


@pytest.fixture
def at_end(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what is to be called when the process ends, in place of calling it then."""
    waiting: list[Any] = []

    def unregister(done: Any) -> None:
        waiting[:] = [end for end in waiting if end.func != done]

    monkeypatch.setattr(atexit, "register", lambda done, *given: waiting.append(functools.partial(done, *given)))
    monkeypatch.setattr(atexit, "unregister", unregister)
    return waiting


def test_uninstrument_takes_the_summary_away(
    instrumented: Callable[..., Metered], at_end: list[Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Of two that instrumented one after the other, the one in force tells its summary at the end."""
    for calls in (1, 2):
        instrumented(summary=True, summary_json=str(tmp_path / "summary.json"))
        for _ in range(calls):
            post(Wire(pieces=[packed(CHAT)]), LIBRARIES[0], OPENAI, CHAT_REQUEST)
        if calls == 1:
            tollspan.uninstrument()
    for end in at_end:
        end()
    assert capsys.readouterr().err.count("tollspan: what this process spent") == 1
    assert json.loads((tmp_path / "summary.json").read_text())["calls"] == 2


def test_a_pending_call_has_a_line(metered: Metered) -> None:
    """A response at work in the background says that it is pending."""
    found: list[Call] = []
    metered.recorder.subscribers.append(found.append)
    answer = {"id": "resp_1", "object": "response", "status": "queued", "model": "gpt-4o-mini"}
    post(
        Wire(pieces=[packed(answer)]),
        LIBRARIES[0],
        "https://api.openai.com/v1/responses",
        {"model": "gpt-4o-mini", "input": "hello", "background": True},
    )
    assert ": no usage, pending, " in line(found[0])


def test_what_budgets_refused_is_in_the_summary(
    instrumented: Callable[..., Metered], capsys: pytest.CaptureFixture[str]
) -> None:
    """A denied call has a column of its own, and a line says which budget refused how many, why, and what to do."""
    metered = instrumented(budget="1 call/day", summary=True)
    for _ in range(3):
        with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=CHAT))) as client:
            client.post(OPENAI, json=CHAT_REQUEST)
    Tally(metered.recorder).report()
    printed = capsys.readouterr().err
    heads, row = (line.split() for line in printed.splitlines()[2:4])
    assert dict(zip(heads[2:5], row[2:5], strict=True)) == {"calls": "1", "failed": "0", "denied": "0"}
    assert "tollspan: 1 call/day refused 2 calls: its limit is spent. Raise the limit where it is configured" in printed
    assert as_json(Tally(metered.recorder).spent())["denied"] == 2
