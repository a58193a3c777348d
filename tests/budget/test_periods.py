"""Periods follow the clock on the wall of their time zone, and rolling windows hold over every span."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.budget.policy.periods import SLOTS, parse_period
from tollspan.model.errors import SettingsError

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Asia/Beirut",
    "America/Havana",
)


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    """Return a moment of a zone's wall clock as Unix seconds."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


@pytest.mark.parametrize(
    ("kind", "name", "end"),
    [
        ("hour", "2026-11-22T17:00Z", "2026-11-22 18:00"),
        ("day", "2026-11-22", "2026-11-23 00:00"),
        ("week", "2026-W47", "2026-11-23 00:00"),
        ("month", "2026-11", "2026-12-01 00:00"),
    ],
)
def test_calendar_periods(kind: str, name: str, end: str) -> None:
    """Hour, day, week (from Monday) and month end where the calendar says."""
    window = parse_period(kind).window(at("2026-11-22 17:30"))
    assert (window.name, window.renews_at) == (name, at(end))


def test_day_of_another_zone() -> None:
    """The day of Tokyo has begun while that of New York has not ended."""
    moment = at("2026-11-22 20:00")
    assert parse_period("day", "Asia/Tokyo").window(moment).name == "2026-11-23"
    assert parse_period("day", "America/New_York").window(moment).name == "2026-11-22"


def test_days_of_daylight_saving() -> None:
    """A day that daylight saving makes 23 or 25 hours long is one day."""
    berlin = parse_period("day", "Europe/Berlin")
    spring = berlin.window(at("2026-03-29 12:00", "Europe/Berlin"))
    autumn = berlin.window(at("2026-10-25 12:00", "Europe/Berlin"))
    assert spring.until - spring.since == 23 * 3600
    assert autumn.until - autumn.since == 25 * 3600
    assert berlin.window(autumn.until).name == "2026-10-26"


def test_hour_that_comes_twice() -> None:
    """When clocks go back, the hour that comes twice is two hours."""
    hour = parse_period("hour", "Europe/Berlin")
    first, second = (hour.window(at("2026-10-25 02:30", "Europe/Berlin", fold)) for fold in (0, 1))
    assert first.name != second.name
    assert first.until == second.since


def test_midnight_that_is_skipped() -> None:
    """Where clocks go forward at midnight, the day begins at the moment that is skipped to."""
    window = parse_period("day", "Asia/Beirut").window(at("2026-03-29 12:00", "Asia/Beirut"))
    assert window.until - window.since == 23 * 3600


@given(moment=st.floats(0, 4e9), kind=st.sampled_from(["hour", "day", "week", "month"]), zone=st.sampled_from(ZONES))
def test_periods_follow_each_other(moment: float, kind: str, zone: str) -> None:
    """Every moment lies in its window; the next window begins where it ends, under another name."""
    period = parse_period(kind, zone)
    window = period.window(moment)
    assert window.since <= moment < window.until
    following = period.window(window.until)
    assert following.since == window.until
    assert following.name != window.name


@given(moment=st.floats(1e9, 4e9), spent=st.floats(0, 3600))
def test_rolling_window_holds_over_every_span(moment: float, spent: float) -> None:
    """What was spent less than an hour ago counts in a rolling hour; what is two slots older does not."""
    hour = parse_period("rolling 1h")
    now = hour.window(moment)
    assert hour.window(moment - spent).slot >= now.first
    assert hour.window(moment - 3600 - 2 * 3600 / SLOTS).slot < now.first


def test_bound_periods_have_no_end() -> None:
    """A session, a run and a total end by no clock."""
    for kind in ("session", "run", "total"):
        assert parse_period(kind).window(0.0).renews_at is None


def test_texts_read_back() -> None:
    """The text of a period reads back as itself."""
    for text in ("day", "rolling 1m", "rolling 90s", "rolling 2d", "total"):
        assert str(parse_period(str(parse_period(text)))) == str(parse_period(text))


@pytest.mark.parametrize("text", ["", "daily", "rolling", "rolling 1y", "rolling 99d", "rolling -1m"])
def test_garbled_periods_are_errors(text: str) -> None:
    """An invalid period is an error."""
    with pytest.raises(SettingsError, match="rolling 1h"):
        parse_period(text)


def test_kept_counters() -> None:
    """A counter outlives its period by enough for calls that end later."""
    day = parse_period("day")
    window = day.window(at("2026-11-22 12:00"))
    kept = day.kept_until(window, at("2026-11-22 12:00"))
    assert kept is not None
    assert kept - window.until >= timedelta(days=1).total_seconds()
    assert parse_period("total").kept_until(window, 0.0) is None
