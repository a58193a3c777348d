"""Times as people write them on a command line, and as they read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    _ParamType = click.ParamType[int]
else:
    _ParamType = click.ParamType  # before 8.2 it takes no type argument

_SPAN: Final = re.compile(r"(\d+)\s*(m|min|h|d|w)")
_UNITS: Final = {"m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_ACCEPTED: Final = "today, yesterday, 30m, 12h, 7d, 4w, a date such as 2026-11-01, or a time such as 2026-11-01T09:30"


class WhenType(_ParamType):
    """A moment, as Unix nanoseconds. Dates and times without a zone are UTC, as the days of the ledger are."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a moment; say what is accepted where it cannot be read."""
        if isinstance(value, int):
            return value
        moment = read_moment(str(value), datetime.now(UTC))
        if moment is None:
            self.fail(f"{value!r} is no moment; accepted are {_ACCEPTED}", param, ctx)
        return nanoseconds(moment)


def read_moment(text: str, now: datetime) -> datetime | None:
    """Read a moment as seen from `now`; None where it cannot be read."""
    text = text.strip().lower()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in {"today", "yesterday"}:
        return midnight - timedelta(days=text == "yesterday")
    try:
        if found := _SPAN.fullmatch(text):
            return _kept(now - timedelta(**{_UNITS[found[2]]: int(found[1])}))
        moment = datetime.fromisoformat(text.upper())
        return _kept(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def _kept(moment: datetime) -> datetime | None:
    """Return a moment that a ledger can hold: nanoseconds of 64 bits, which reach from 1677 to 2262."""
    return moment if abs(nanoseconds(moment)) < 2**63 else None


def nanoseconds(moment: datetime) -> int:
    """Return a moment as Unix nanoseconds."""
    return int((moment - datetime.fromtimestamp(0, UTC)) / timedelta(microseconds=1)) * 1000


def shown(at: int | None) -> str:
    """Return Unix nanoseconds as date and time, UTC, to the second."""
    return "" if at is None else datetime.fromtimestamp(at // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def day(days: int) -> str:
    """Return a number of days since 1970 as a date."""
    return (datetime.fromtimestamp(0, UTC) + timedelta(days=days)).strftime("%Y-%m-%d")
