"""The demo: its app makes the calls it promises, and its comparison finds every difference."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from examples.demo import app, run
from examples.fake_provider.prices import SERVED

if TYPE_CHECKING:
    from examples.fake_provider import FakeProvider


@pytest.fixture
def tally(fake: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the app against the fake, with the 429 that the demo has, and give the fake's books."""
    for name, value in run.environment(fake, Path("summary.json")).items():
        monkeypatch.setenv(name, value)
    fake.fail_next(429, path="/anthropic/v1/messages")
    app.main()
    return fake.tally()


def summary_of(tally: Any) -> Any:
    """Return the summary that a perfect meter would write: the same figures under the names asked for."""
    names = {served: asked for asked, served in SERVED.items()}
    rows = [{**row, "model": names.get(row["model"], row["model"])} for row in deepcopy(tally["by"])]
    return {"calls": tally["calls"], "failed": tally["failed"], "spend_usd": tally["spend_usd"], "by": rows}


def test_the_app_shows_what_the_demo_promises(tally: Any) -> None:
    """Cached tokens, both kinds of cache writes, reasoning and a retried 429, and nothing that cannot be compared."""
    totals = {name: sum(row[name] for row in tally["by"]) for name in ("cache_read", "reasoning")}
    assert all(totals.values())
    assert all(any(row[name] for row in tally["by"]) for name in ("cache_write_5m", "cache_write_1h"))
    assert tally["statuses"] == {"200": 15, "429": 1}
    assert (tally["unreported"], tally["partial"]) == (0, 0)
    assert {row["provider"] for row in tally["by"]} == {"openai", "anthropic"}


def test_equal_bills_agree_and_any_other_figure_is_found(tally: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The comparison passes for equal figures, under aliases too, and fails for one token or a millionth of a cent."""
    summary = summary_of(tally)
    assert run.compare(summary, tally) == 0
    assert "Both bills agree: 15 calls" in capsys.readouterr().out
    for change in ({"output": summary["by"][0]["output"] + 1}, {"cost_usd": "0.00000001"}, {"model": "gpt-4"}):
        wrong = deepcopy(summary)
        wrong["by"][0].update(change)
        assert run.compare(wrong, tally) == 1
        assert "THE TWO BILLS DIFFER" in capsys.readouterr().out
    assert run.differences({**summary, "failed": 0}, tally)
    assert run.differences({**summary, "spend_usd": "0"}, tally)
    assert run.differences({**summary, "by": []}, tally)


def test_a_call_that_the_wire_is_silent_about_is_said(tally: Any) -> None:
    """A stream without usage makes the bills incomparable, and the demo does not hide it."""
    [line] = run.differences(summary_of(tally), {**tally, "unreported": 1})
    assert "unreported" in line
