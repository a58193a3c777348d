"""Budgets are read as they are written, or refused with one clear error."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tollspan.budget.policy.budget import Assumed, Limit, parse_limit, parse_tables, parse_text
from tollspan.budget.policy.settings import budgets_of
from tollspan.model.errors import SettingsError
from tollspan.settings import load

DOLLAR = 10**18


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("5 USD", 5 * DOLLAR, "usd"),
        ("$0.50", DOLLAR // 2, "usd"),
        ("0.000000000000000001 USD", 1, "usd"),
        ("0 USD", 0, "usd"),
        ("2.5usd", 5 * DOLLAR // 2, "usd"),
        ("200_000 tokens", 200_000, "tokens"),
        ("1 call", 1, "calls"),
        ("3 identical calls", 3, "identical"),
    ],
)
def test_limits(text: str, amount: int, unit: Any) -> None:
    """A limit is an exact amount and its unit, and its text reads back as itself."""
    limit = parse_limit(text, "limit")
    assert limit == Limit(amount=amount, unit=unit)
    assert parse_limit(str(limit), "limit") == limit


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "USD",
        "-5 USD",
        "5 EUR",
        "1.5 calls",
        "$5 calls",
        "nan USD",
        "1e3 USD",
        "5 USD USD",
        "9e99 USD",
        None,
        5,
    ],
)
def test_garbled_limits_are_errors(text: object) -> None:
    """A text that is not a limit is an error that says where it is, what it is and what is expected: never no limit."""
    with pytest.raises(SettingsError) as caught:
        parse_limit(text, "tollspan.toml: [[budget]] 1: limit")
    assert str(caught.value).startswith(f"tollspan.toml: [[budget]] 1: limit={text!r} is not valid; expected ")
    assert "5 USD" in str(caught.value)


def test_text() -> None:
    """Several budgets stand in one line; one without a period lasts for the run."""
    day, session, run = parse_text("5 USD/day,  1 USD/session, 100 calls")
    assert (day.name, day.limit.amount, day.period.kind) == ("5 USD/day", 5 * DOLLAR, "day")
    assert (session.period.kind, run.period.kind) == ("session", "run")
    assert parse_text("1 USD/rolling 1h")[0].period.length == 3600
    assert not day.hard
    assert day.on_exceed == "block"


@pytest.mark.parametrize(
    "text", ["", ",", "5 USD/day,", "5 USD/", "5 USD/fortnight", "5 USD/day, 5 USD/day", "lots", "5 USD/rolling 0m"]
)
def test_garbled_text_is_an_error(text: str) -> None:
    """A line of which any part is wrong gives no budgets at all, but an error."""
    with pytest.raises(SettingsError):
        parse_text(text)


WHOLE = {
    "name": "per-user daily",
    "limit": "2.50 USD",
    "period": "day",
    "time_zone": "Europe/Berlin",
    "match": {"provider": "openai", "model": ["gpt-5*", "o3"]},
    "per": ["user", "tag.tier"],
    "unset": "deny",
    "estimate": "expected",
    "on_exceed": "reply",
    "warn_at": [1.0, 0.5],
    "webhook": "https://example.com/hook",
    "webhook_secret": "s",
    "unpriced": {"input": "10", "output": 50},
    "store_failure": "open",
    "message": "no more: {name}",
}


def test_hard() -> None:
    """A wall and its older name say the same, and what would open it is refused."""
    assert (
        parse_tables([{"limit": "1 USD", "hard": True, "wait": "2m", "fit": True, "fit_at_least": 100}])[0].wait == 120
    )
    assert parse_tables([{"limit": "1 USD", "estimate": "strict"}])[0].hard
    assert not parse_tables([{"limit": "1 USD", "estimate": "expected"}])[0].hard
    for more, said in (
        ({"hard": True, "estimate": "expected"}, "contradict"),
        ({"hard": False, "estimate": "strict"}, "contradict"),
        ({"hard": True, "on_exceed": "warn"}, 'on_exceed = "warn" does'),
        ({"hard": True, "unpriced": "allow"}, 'unpriced = "allow" does'),
        ({"estimate": "strict", "store_failure": "open"}, 'store_failure = "open" does'),
        ({"fit": True}, "add hard = true"),
        ({"limit": "5 calls", "hard": True, "fit": True}, "a budget of calls counts no tokens"),
    ):
        with pytest.raises(SettingsError, match=said):
            parse_tables([{"limit": "1 USD", **more}])


def test_table() -> None:
    """A table has every key of the README."""
    (budget,) = parse_tables([WHOLE])
    assert budget.name == "per-user daily"
    assert budget.warn_at == (Decimal("0.5"), Decimal("1.0"))
    assert budget.unpriced == Assumed(input=10 * DOLLAR // 10**6, output=50 * DOLLAR // 10**6)
    assert budget.fits({"provider": "openai", "model": "gpt-5.5"})
    assert budget.fits({"provider": "openai", "model": "o3"})
    assert not budget.fits({"provider": "openai", "model": "o3-mini"})
    assert not budget.fits({"provider": "openai"})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("limit", "2.50", "5 USD"),
        ("period", "fortnight", "rolling 1m"),
        ("time_zone", "Mars/Olympus", "Europe/Berlin"),
        ("match", {"colour": "red"}, "match: unknown key 'colour'; expected one of provider, model"),
        ("match", {"model": []}, "match.model=[] is not valid; expected a pattern such as gpt-5*"),
        ("per", ["customer"], "per: unknown key 'customer'"),
        ("per", ["customer"], "tag.NAME"),
        ("per", ["usr"], "; did you mean 'user'?"),
        ("per", "user", "list"),
        ("unset", "ignore", "shared, deny or skip"),
        ("estimate", "guess", "strict or expected"),
        ("estimate", "stric", "; did you mean 'strict'?"),
        ("hard", "yes", "true or false"),
        ("wait", "a while", "30s or 2m"),
        ("wait", -1, "from 0 to 3600"),
        ("wait", True, "from 0 to 3600"),
        ("fit", 1, "true or false"),
        ("fit_at_least", 0, "from 1 up"),
        ("on_exceed", "stop", "block"),
        ("warn_at", [1.5], "up to 1"),
        ("warn_at", [True], "up to 1"),
        ("webhook", "example.com", "URL"),
        ("unpriced", "maybe", "deny, allow"),
        ("store_failure", "ajar", "closed or open"),
        ("downgrade", {}, "gpt-5.5"),
        ("message", "{secret}", "unknown placeholder; allowed: {name}, {spent}, {limit} and {renews}"),
        ("message", "", "a text"),
        ("limt", "5 USD", "unknown key 'limt'; expected one of downgrade, "),
        ("limt", "5 USD", "; did you mean 'limit'?"),
        ("limit", "5 dolars", "; did you mean 'dollars'?"),
        ("period", "dya", "; did you mean 'day'?"),
        ("period", "roling 1h", "; did you mean 'rolling'?"),
        ("webhook_secret", 5, "webhook_secret is not valid; expected a text"),
    ],
)
def test_garbled_tables_are_errors(key: str, value: object, expected: str) -> None:
    """One wrong value refuses all tables, naming file, table, key, value and what is expected."""
    with pytest.raises(SettingsError) as caught:
        parse_tables([{"limit": "1 USD"}, {**WHOLE, key: value}])
    message = str(caught.value)
    assert "tollspan.toml: [[budget]] 2" in message
    assert key in message
    assert expected in message


def test_what_makes_no_sense_together_is_an_error() -> None:
    """A downgrade without a map, a webhook that is never called, two budgets of one name."""
    with pytest.raises(SettingsError, match="needs a map"):
        parse_tables([{"limit": "1 USD", "on_exceed": "downgrade"}])
    with pytest.raises(SettingsError, match="warn_at"):
        parse_tables([{"limit": "1 USD", "webhook": "https://example.com"}])
    with pytest.raises(SettingsError, match="duplicate budget name 'a'"):
        parse_tables([{"limit": "1 USD", "name": "a"}, {"limit": "2 USD", "name": "a"}])


@pytest.mark.parametrize(
    "written",
    [
        {"budget": {"limit": "1 USD", "webhook_secret": "hunter2"}},
        {"budget": ["hunter2"]},
        {"budgets": {"limit": "1 USD", "webhook_secret": "hunter2"}},
        {"budgets": [["hunter2"]]},
    ],
)
def test_misplaced_tables_are_errors_that_repeat_nothing(written: dict[str, object]) -> None:
    """A [budget] table in the place of [[budget]] refuses every call; what it holds may be a secret."""
    with pytest.raises(
        SettingsError, match=r"budget is not valid; expected .*\[\[budget\]\], not \[budget\]"
    ) as caught:
        budgets_of(load({}, **written))
    assert "hunter2" not in str(caught.value)
