"""Periods, and when a budget renews: `Period.window(now)` returns the period that contains a time.

Calendar periods follow the local time of their time zone: a day that daylight saving makes 23 or 25 hours long is one
day, and an hour that occurs twice is two hours. Rolling periods are divided into slots, and a slot counts while any
part of it is in the window: the limit holds over every span of that length, and what was spent expires slot by slot.

There is no clock here: times are passed in as Unix seconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from tollspan.model.errors import SettingsError
from tollspan.model.tables import nearest, unknown, wrong

if TYPE_CHECKING:
    from datetime import date, tzinfo

CALENDAR: Final = ("hour", "day", "week", "month")
BOUND: Final = ("session", "run", "total")
"""Periods that no clock ends: a session, a run of the program, all time."""

EXPECTED: Final = "session, run, total, hour, day, week, month, rolling 1m, rolling 1h (any number of s, m, h or d)"
SLOTS: Final = 60
"""Slots of a rolling window."""

DAY: Final = 86_400.0
KEPT_AFTER_CALL: Final = {"session": 90 * DAY, "run": 7 * DAY}
"""Seconds that the counter of a session or run is kept after its last call; a total is kept forever."""
KEPT_AFTER_PERIOD: Final = 2 * DAY
"""Seconds that a counter is kept after its period has ended, for calls that end later."""

_ROLLING: Final = re.compile(r"rolling\s+(\d{1,4})\s*([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MAX_SECONDS: Final = 35 * 86_400


class Window(NamedTuple):
    """The period that contains a time.

    Attributes:
        name: the part of the counter's key.
        slot: the slot that counts what is spent now.
        first: the oldest slot that still counts.
        since: the first time for which this window is valid, in Unix seconds.
        until: the time from which it is not valid any more, in Unix seconds.
        renews_at: the time at which the budget renews, in Unix seconds; None if no clock renews it.
    """

    name: str
    slot: int
    first: int
    since: float
    until: float
    renews_at: float | None


@dataclass(frozen=True, slots=True)
class Period:
    """A kind of period in a time zone. `length` is the length of a rolling window in seconds, else 0."""

    kind: str
    length: int = 0
    zone: tzinfo = field(default=UTC)

    @property
    def bound(self) -> bool:
        """Return whether attribution decides which period it is, and not a clock."""
        return self.kind in BOUND

    def __str__(self) -> str:
        """Return the text that `parse_period` reads."""
        if self.kind != "rolling":
            return self.kind
        unit = next(unit for unit in "dhms" if self.length % _SECONDS[unit] == 0)
        return f"rolling {self.length // _SECONDS[unit]}{unit}"

    def window(self, now: float) -> Window:
        """Return the period that contains `now` (Unix seconds). The caller adds the id of a session or run."""
        if self.kind == "rolling":
            width = self.length / SLOTS
            slot = int(now // width)
            return Window("rolling", slot, slot - SLOTS, slot * width, (slot + 1) * width, now + self.length)
        if self.bound:
            return Window(self.kind, 0, 0, float("-inf"), float("inf"), None)
        name, start, end = self._calendar(datetime.fromtimestamp(now, self.zone))
        return Window(name, 0, 0, start, end, end)

    def kept_until(self, window: Window, now: float) -> float | None:
        """Return the time until which a counter of this period has to be kept, in Unix seconds; None = forever."""
        if self.kind == "total":
            return None
        if self.bound:
            return now + KEPT_AFTER_CALL[self.kind]
        return (now + self.length if self.kind == "rolling" else window.until) + KEPT_AFTER_PERIOD

    def _calendar(self, local: datetime) -> tuple[str, float, float]:
        """Return the name, the start and the end of the calendar period that contains a local time."""
        if self.kind == "hour":
            # Named by its start in UTC: when clocks go back, a local hour occurs twice.
            past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
            start = local.astimezone(UTC) - past
            return f"{start:%Y-%m-%dT%H:%MZ}", start.timestamp(), (start + timedelta(hours=1)).timestamp()
        day = local.date()
        if self.kind == "day":
            return f"{day}", self._midnight(day), self._midnight(day, 1)
        if self.kind == "week":
            year, week, weekday = day.isocalendar()
            return f"{year}-W{week:02}", self._midnight(day, 1 - weekday), self._midnight(day, 8 - weekday)
        first = day.replace(day=1)
        return f"{day:%Y-%m}", self._midnight(first), self._midnight((first + timedelta(days=32)).replace(day=1))

    def _midnight(self, day: date, later: int = 0) -> float:
        """Return the start of a day, or of the day that is `later` days after it, also if midnight is skipped."""
        midnight = datetime.combine(day + timedelta(days=later), time())
        return midnight.replace(tzinfo=self.zone).timestamp()


def parse_period(text: str, zone: str | None = None, where: str = "period") -> Period:
    """Read a period such as `day` or `rolling 1h`; `zone` is an IANA time zone, UTC by default.

    Raises:
        SettingsError: the period or the time zone is invalid; the message names `where`.
    """
    words = " ".join(text.lower().split())
    time_zone = _zone(zone, where)
    if words in CALENDAR or words in BOUND:
        return Period(words, zone=time_zone)
    rolling = _ROLLING.fullmatch(words)
    length = int(rolling[1]) * _SECONDS[rolling[2]] if rolling else 0
    if not 0 < length <= _MAX_SECONDS:
        word = words.partition(" ")[0]
        near = None if word == "rolling" else nearest(word, (*CALENDAR, *BOUND, "rolling"))
        raise SettingsError(f"{where}{wrong(text, f'{EXPECTED}, up to 35 days', near=near)}")
    return Period("rolling", length, time_zone)


def seconds_of(text: str) -> float | None:
    """Return the seconds of a time such as `30`, `30s` or `2m`; None if it is not one."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    return None if parts is None else float(parts[1]) * _SECONDS[parts[2] or "s"]


def _zone(name: str | None, where: str) -> tzinfo:
    if name is None or name.upper() == "UTC":
        return UTC
    from zoneinfo import ZoneInfo  # only if a zone is named: it takes long to load

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise SettingsError(f"{where}{unknown(name, (), 'time_zone', 'an IANA name such as Europe/Berlin')}") from None
