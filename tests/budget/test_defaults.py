"""What the settings say for budgets that do not say it themselves, and what is said of the default."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import tollspan
from tollspan.budget.policy.settings import budgets_of, defaults_of
from tollspan.model.errors import SettingsError
from tollspan.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Metered


def settings(**values: Any) -> Settings:
    """Return settings with these values."""
    return replace(load({}), **values)


def test_a_budget_says_or_the_settings_do() -> None:
    """`budget_hard` and `budget_wait` are for budgets that do not say; one that only warns is not made hard."""
    tables = [
        {"limit": "1 USD"},
        {"limit": "2 USD", "hard": False, "wait": 1},
        {"limit": "3 USD", "on_exceed": "warn"},
        {"limit": "4 USD", "estimate": "expected"},
    ]
    for given in (
        {"budget_hard": True},
        {"budget_estimate": "strict"},
        {"budget_hard": True, "budget_estimate": "strict"},
    ):
        budgets = budgets_of(settings(budgets=tables, budget="5 USD/day", budget_wait="2m", **given))
        assert [budget.hard for budget in budgets] == [True, False, False, False, True]
        assert [budget.wait for budget in budgets] == [120, 1, 120, 120, 120]
    assert not any(budget.hard for budget in budgets_of(settings(budgets=tables, budget="5 USD/day")))
    assert [budget.wait for budget in budgets_of(settings(budget="5 USD/day"))] == [30]


def test_settings_that_contradict_each_other() -> None:
    """Two names of one thing have to agree, and a time has to be one."""
    for hard, estimate in ((True, "expected"), (False, "strict")):
        with pytest.raises(SettingsError, match="budget_hard and budget_estimate contradict each other"):
            defaults_of(settings(budget_hard=hard, budget_estimate=estimate))
    for wait in ("soon", "-1", "2h", True, [30], "nan"):
        with pytest.raises(SettingsError, match=r"budget_wait=.* is not valid; expected seconds from 0 to 3600"):
            defaults_of(settings(budget_wait=wait))


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"TOLLSPAN_BUDGET_WAIT": "soon"}, "budget_wait"),
        ({"TOLLSPAN_BUDGET_HARD": "perhaps"}, "BUDGET_HARD"),
        ({"TOLLSPAN_BUDGET_HARD": "true", "TOLLSPAN_BUDGET_ESTIMATE": "expected"}, "contradict each other"),
        ({"TOLLSPAN_BUDGET_HARD": "true", "TOLLSPAN_BUDGET_STORE": "prometheus:http://127.0.0.1:9"}, "read late"),
    ],
)
def test_what_is_not_valid_refuses_every_call(
    instrumented: Callable[..., Metered], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], text: str
) -> None:
    """Until it is fixed every call is refused, with what is wrong in one line."""
    for name, value in ({"TOLLSPAN_BUDGET": "5 USD/day"} | variables).items():
        monkeypatch.setenv(name, value)
    instrumented()
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
        body = {"model": "gpt-4o-mini", "messages": []}
        refused = client.post("https://api.openai.com/v1/chat/completions", json=body)
    assert refused.status_code == 402
    message = refused.json()["error"]["message"]
    assert text in message
    assert "\n" not in message


def test_blocks_follow_the_settings(instrumented: Callable[..., Metered]) -> None:
    """A block that does not say is as hard as the settings say, also if it was made before `instrument()`."""
    block, soft = tollspan.budget("0.000001 USD"), tollspan.budget("0.000001 USD", hard=False)
    instrumented(budget_hard=True)
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={}))) as client:
        url, body = "https://api.openai.com/v1/chat/completions", {"model": "gpt-4o-mini", "messages": []}
        with block:
            assert client.post(url, json=body).status_code == 402
        with soft:
            assert client.post(url, json=body).status_code == 200


def test_the_first_call_in_a_block_is_answered(instrumented: Callable[..., Metered]) -> None:
    """A block of 2 USD sends a `hi` to an expensive model, whose largest output would cost more than that."""
    instrumented()
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={}))) as client:
        body = {"model": "gpt-5.5", "messages": [{"role": "user", "content": "hi"}]}
        with tollspan.budget("2 USD"):
            assert client.post("https://api.openai.com/v1/chat/completions", json=body).status_code == 200
        with tollspan.budget("2 USD", hard=True):
            assert client.post("https://api.openai.com/v1/chat/completions", json=body).status_code == 402


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"budget": "5 USD/day"}, 1),
        ({"budget": "5 USD/day", "budget_hard": False}, 0),
        ({"budget": "5 USD/day", "budget_estimate": "strict"}, 0),
        ({"budgets": [{"limit": "5 USD", "hard": True}, {"limit": "6 USD", "on_exceed": "warn"}]}, 0),
        ({"budgets": [{"limit": "5 USD", "hard": True}, {"limit": "6 USD"}]}, 1),
        ({}, 0),
    ],
)
def test_one_line_says_that_the_default_has_changed(
    instrumented: Callable[..., Metered], caplog: pytest.LogCaptureFixture, options: dict[str, Any], lines: int
) -> None:
    """Whoever has budgets and does not say whether they are hard is told once, at the start, what they are."""
    caplog.set_level(logging.INFO, "tollspan")
    instrumented(**options)
    said = [record for record in caplog.records if "budget_hard = true" in record.getMessage()]
    assert len(said) == lines
