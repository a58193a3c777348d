"""When a budget begins anew: `Period.window(now)` names the period that a moment lies in.

Calendar periods follow the clock on the wall of their time zone: a day that daylight saving makes 23 or 25 hours long
is one day, and an hour that comes twice is two hours. Rolling periods are cut into slots, and a slot counts while any
part of it lies in the window: the limit holds over every span of that length, and what was spent frees itself slot by
slot.

Pure: moments are passed in as Unix seconds, and there is no clock here.
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
"""Periods that no clock ends: a session, a run of the program, for ever."""

ACCEPTED: Final = "session, run, total, hour, day, week, month, rolling 1m, rolling 1h (any number of s, m, h or d)"
SLOTS: Final = 60
"""Slots of a rolling window."""

DAY: Final = 86_400.0
KEPT: Final = {"session": 90 * DAY, "run": 7 * DAY}
"""How long the counter of a session or run is kept after its last call, in seconds; a total is kept for ever."""
AFTERWARDS: Final = 2 * DAY
"""How long a counter is kept after its period has ended, for calls that end later, in seconds."""

_ROLLING: Final = re.compile(r"rolling\s+(\d{1,4})\s*([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST: Final = 35 * 86_400


class Window(NamedTuple):
    """The period that a moment lies in.

    `name` goes into the counter's key. `slot` is what is spent now, `first` the oldest slot that still counts. This
    answer is right from `since` until before `until`; the budget begins anew at `renews_at`. All three are Unix
    seconds.
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
        """Return whether attribution, and no clock, says which period it is."""
        return self.kind in BOUND

    def __str__(self) -> str:
        """Return the text that `parse_period` reads."""
        if self.kind != "rolling":
            return self.kind
        unit = next(unit for unit in "dhms" if self.length % _SECONDS[unit] == 0)
        return f"rolling {self.length // _SECONDS[unit]}{unit}"

    def window(self, now: float) -> Window:
        """Return the period that `now` (Unix seconds) lies in; for a session or run, the id is put in by the caller."""
        if self.kind == "rolling":
            width = self.length / SLOTS
            slot = int(now // width)
            return Window("rolling", slot, slot - SLOTS, slot * width, (slot + 1) * width, now + self.length)
        if self.bound:
            return Window(self.kind, 0, 0, float("-inf"), float("inf"), None)
        name, start, end = self._calendar(datetime.fromtimestamp(now, self.zone))
        return Window(name, 0, 0, start, end, end)

    def kept_until(self, window: Window, now: float) -> float | None:
        """Return until when a counter of this period has to be kept, in Unix seconds; None = for ever."""
        if self.kind == "total":
            return None
        if self.bound:
            return now + KEPT[self.kind]
        return (now + self.length if self.kind == "rolling" else window.until) + AFTERWARDS

    def _calendar(self, local: datetime) -> tuple[str, float, float]:
        """Return the name, the first moment and the end of the calendar period that a moment lies in."""
        if self.kind == "hour":
            # By the hour's first moment in UTC: when clocks go back, an hour of the wall's clock comes twice.
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
        """Return the first moment of a day, or of one so many days later; where midnight is skipped, as it is."""
        moment = datetime.combine(day + timedelta(days=later), time())
        return moment.replace(tzinfo=self.zone).timestamp()


def parse_period(text: str, zone: str | None = None, where: str = "period") -> Period:
    """Read a period such as `day` or `rolling 1h`; `zone` is an IANA time zone, UTC by default.

    Raises:
        SettingsError: it is none, or there is no such zone; the message names `where`.
    """
    words = " ".join(text.lower().split())
    place = _zone(zone, where)
    if words in CALENDAR or words in BOUND:
        return Period(words, zone=place)
    found = _ROLLING.fullmatch(words)
    length = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < length <= _LONGEST:
        word = words.partition(" ")[0]
        near = None if word == "rolling" else nearest(word, (*CALENDAR, *BOUND, "rolling"))
        raise SettingsError(f"{where}{wrong(text, f'{ACCEPTED}, up to 35 days', near=near)}")
    return Period("rolling", length, place)


def _zone(name: str | None, where: str) -> tzinfo:
    if name is None or name.upper() == "UTC":
        return UTC
    from zoneinfo import ZoneInfo  # where a zone is named: it takes long to load

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise SettingsError(f"{where}{unknown(name, (), 'time_zone', 'an IANA name such as Europe/Berlin')}") from None
