"""Times as they are written on a command line, and as tables show them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    _ParamType = click.ParamType[int]
else:
    _ParamType = click.ParamType  # before 8.2 it takes no type argument

_AGE: Final = re.compile(r"(\d+)\s*(m|min|h|d|w)")
_UNITS: Final = {"m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_EXAMPLES: Final = "today, yesterday, 30m, 12h, 7d, 4w, a date such as 2026-11-01, or a time such as 2026-11-01T09:30"


class WhenType(_ParamType):
    """A time, as Unix nanoseconds. Dates and times without a zone are UTC, as the days of the ledger are."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the time as Unix nanoseconds, or fail with the expected formats."""
        if isinstance(value, int):
            return value
        time = parse_time(str(value), datetime.now(UTC))
        if time is None:
            self.fail(f"invalid time {value!r}; expected {_EXAMPLES}", param, ctx)
        return nanoseconds(time)


def parse_time(text: str, now: datetime) -> datetime | None:
    """Return the time that a text names, relative to `now`, or None if the text is invalid."""
    text = text.strip().lower()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in {"today", "yesterday"}:
        return midnight - timedelta(days=text == "yesterday")
    try:
        if age := _AGE.fullmatch(text):
            return _in_range(now - timedelta(**{_UNITS[age[2]]: int(age[1])}))
        time = datetime.fromisoformat(text.upper())
        return _in_range(time if time.tzinfo else time.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def _in_range(time: datetime) -> datetime | None:
    """Return the time if a ledger can hold it: nanoseconds of 64 bits reach from 1677 to 2262."""
    return time if abs(nanoseconds(time)) < 2**63 else None


def nanoseconds(time: datetime) -> int:
    """Return a time as Unix nanoseconds."""
    return int((time - datetime.fromtimestamp(0, UTC)) / timedelta(microseconds=1)) * 1000


def shown(at: int | None) -> str:
    """Return Unix nanoseconds as date and time, UTC, to the second; an empty string for None."""
    return "" if at is None else datetime.fromtimestamp(at // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def day(days: int) -> str:
    """Return a number of days since 1970 as a date."""
    return (datetime.fromtimestamp(0, UTC) + timedelta(days=days)).strftime("%Y-%m-%d")
