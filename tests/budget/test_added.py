"""Options that are given when budgets are active already: they apply, or the program is told that they cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider

import tollspan
from tollspan.model.errors import SettingsError
from tollspan.setup.instrument import TollspanInstrumentor, current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Metered

USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
CHAT = {"model": "gpt-4o-mini", "choices": [], "usage": USAGE}


def call() -> int:
    """Make a call and return its status."""
    body = {"model": "gpt-4o-mini", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]}
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=CHAT))) as client:
        return client.post("https://api.openai.com/v1/chat/completions", json=body).status_code


def stores() -> set[str]:
    """Return which stores count the active budgets."""
    recorder = current()
    assert recorder is not None
    assert recorder.guard is not None
    return {type(recorder.guard.store).__name__}


def test_a_store_that_is_given_later_counts(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """A program's store is used, for the budgets of a launcher too, as if all had been given at once."""
    instrumented(budget="5 calls/day")
    tollspan.instrument(budget="1 call/month", budget_store=f"sqlite:{tmp_path / 'b.db'}")
    assert stores() == {"SqliteStore"}
    assert [call(), call()] == [200, 402]
    tollspan.uninstrument()
    instrumented(budget="1 call/month", budget_store=f"sqlite:{tmp_path / 'b.db'}")
    assert call() == 402
    assert {status.budget: status.spent for status in tollspan.budget.status()} == {"1 call/month": 1}


def test_blocks_go_on_where_the_store_changes(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """A block that is entered holds, and counts what it has counted, if a store is given inside."""
    instrumented()
    warnings: list[Any] = []
    tollspan.budget.on_warning(warnings.append)
    with tollspan.budget("2 calls", warn_at=[0.9]) as block:
        assert call() == 200
        tollspan.instrument(budget="5 calls/day", budget_store=f"sqlite:{tmp_path / 'b.db'}")
        assert [call(), call()] == [200, 402]
        assert block.spent == 2
    assert call() == 200
    assert len(warnings) == 1
    assert {status.budget: status.spent for status in tollspan.budget.status()} == {"5 calls/day": 2}


def test_a_store_that_is_given_before_a_budget(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """A store counts the budgets that come after it, whether a block came first or not."""
    instrumented(budget_store=f"sqlite:{tmp_path / 'a.db'}")
    with tollspan.budget("5 calls"):
        tollspan.instrument(budget_store=f"sqlite:{tmp_path / 'b.db'}", budget_estimate="strict")
        tollspan.instrument(budget="1 call/day")
    assert call() == 200
    assert (tmp_path / "b.db").exists()
    assert not (tmp_path / "a.db").exists()
    recorder = current()
    assert recorder is not None
    assert recorder.guard is not None
    assert recorder.guard.budgets[0].hard


@pytest.mark.parametrize(
    ("first", "spend", "later", "message"),
    [
        ({"budget_store": "sqlite:A"}, False, {"budget_store": "sqlite:B"}, "budget_store cannot be changed any more"),
        ({"budget_store": "sqlite:A"}, False, {"budget_store": "memory"}, "budget_store cannot be changed any more"),
        ({}, True, {"budget_store": "sqlite:B", "budget": "1 call/month"}, "are counted in memory"),
        ({}, False, {"budget_estimate": "strict"}, "budget_estimate cannot be changed any more"),
        ({}, False, {"budget": "1 banana"}, "banana"),
        ({}, False, {"budget": ""}, "budget"),
    ],
)
def test_what_cannot_be_applied_is_refused(
    instrumented: Callable[..., Metered],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: dict[str, Any],
    later: dict[str, Any],
    message: str,
    *,
    spend: bool,
) -> None:
    """An option of budgets is never ignored: the program gets an error, and the active budgets stay as they are."""
    monkeypatch.chdir(tmp_path)
    instrumented(budget="3 calls/day", **first)
    if spend:
        call()
    before = stores()
    with pytest.raises(SettingsError, match=message):
        tollspan.instrument(**later)
    assert stores() == before
    assert [call() for _ in range(3 - spend)] == [200] * (3 - spend)
    assert call() == 402


def test_what_is_the_same_is_no_change(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """A program that instruments twice with the same options has each budget once."""
    options: dict[str, Any] = {
        "budget": "2 calls/day",
        "budget_store": f"sqlite:{tmp_path / 'b.db'}",
        "budget_estimate": "strict",
    }
    instrumented(**options)
    tollspan.instrument(**options)
    tollspan.instrument(budget_store=options["budget_store"], budget_estimate="STRICT")
    assert [call() for _ in range(3)] == [200, 200, 402]


@pytest.fixture
def instrumentor() -> Iterator[TollspanInstrumentor]:
    """Return the instrumentor that OpenTelemetry's loaders use."""
    yield TollspanInstrumentor()
    tollspan.uninstrument()


def test_the_instrumentor_takes_every_setting(instrumentor: TollspanInstrumentor) -> None:
    """It takes what `instrument()` takes; what a loader means for itself is left to the loader."""
    instrumentor.instrument(budget="0 USD", session="chat-17", max_models=7, skip_dep_check=True)
    recorder = current()
    assert recorder is not None
    assert (recorder.settings.session, recorder.settings.max_models) == ("chat-17", 7)
    assert call() == 402


@pytest.mark.parametrize("options", [{"bugdet": "1 USD"}, {"budget": "1 banana"}, {"budget_stor": "sqlite"}])
def test_the_instrumentor_refuses_what_may_be_a_limit(
    instrumentor: TollspanInstrumentor, options: dict[str, str]
) -> None:
    """A misspelled or unreadable limit is an error there, too."""
    with pytest.raises(SettingsError):
        instrumentor.instrument(**options)


def test_objects_that_come_too_late_are_told(
    instrumented: Callable[..., Metered], caplog: pytest.LogCaptureFixture
) -> None:
    """A second call that gives other providers or prices has one line that says that they are not used."""
    metered = instrumented()
    tollspan.instrument(tracer_provider=metered.tracer_provider)
    assert not caplog.records
    tollspan.instrument(tracer_provider=TracerProvider(shutdown_on_exit=False))
    assert "tracer_provider cannot be changed any more" in caplog.text
