"""Conditions on calls, as SQL over the rows of `calls` and over the kept totals.

A `Where` names what calls must meet. `kind_of` says which kind of total has all the dimensions of a query, if any has.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final

from tollspan.ledger.keys import TAG
from tollspan.ledger.totals import GROUPED, KINDS
from tollspan.model.errors import LedgerError
from tollspan.model.records import DENIED
from tollspan.model.text import as_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    Values = list[str | int]

DAY: Final = 86_400_000_000_000
"""Nanoseconds in a day."""


_COLUMNS: Final[dict[str, str]] = {
    **{name: name for name in GROUPED},
    **{name: f"coalesce({name}, '')" for pair in KINDS.values() for name in pair if name},
    "hour": "started_at / 3600000000000",
    "service_tier": "coalesce(tier, '')",
    "outcome": "outcome",
    "error": "coalesce(error_type, '')",
    "quality": "quality",
    "region": "coalesce(region, '')",
    "host": "coalesce(server_address, '')",
    "stream": "stream",
    "table": "coalesce(table_version, '')",
    "retry": "coalesce(resend_count, 0) > 0",
}
"""Dimensions other than tags: for each, the expression over a row of `calls`."""


DIMENSIONS: Final = tuple(_COLUMNS)

IS_DENIED: Final = "outcome = 'denied'"
"""As it stands in the index of denied calls: SQLite uses that for these words, and not for a bound value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Conditions that calls must all meet. Times are Unix nanoseconds.

    An attribution must be equal; the empty string matches calls without it. `tags` may name any tag. `after` matches
    calls whose row has a larger number.
    """

    provider: str | None = None
    model: str | None = None
    operation: str | None = None
    session: str | None = None
    user: str | None = None
    run: str | None = None
    step: str | None = None
    agent: str | None = None
    outcome: str | None = None
    since: int | None = None
    until: int | None = None
    after: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def equal(self) -> dict[str, str]:
        """Return the values that must be equal, by dimension."""
        values = {name: getattr(self, name) for name in _EQUAL}
        values.update({f"{TAG}{name}": value for name, value in self.tags.items()})
        return {name: as_text(value) for name, value in values.items() if value is not None}


EVERYTHING: Final = Where()


_EQUAL: Final = tuple(item.name for item in fields(Where) if item.name not in {"since", "until", "after", "tags"})


def kind_of(names: set[str]) -> str | None:
    """Return the kind of total that has all these dimensions, or None if rows must be read."""
    for kind, pair in KINDS.items():
        if names <= {*GROUPED, *filter(None, pair)}:
            return kind
    return None


def can_name_tag(name: str) -> bool:
    """Return whether a tag of this name can be queried: SQLite's JSON paths cannot contain a quote."""
    return bool(name) and not any(character in name for character in "\"'\\")


def check_dimension(name: str) -> str:
    """Return a dimension for queries: a name that is not in `DIMENSIONS` is a tag.

    Raises:
        LedgerError: The name is neither a dimension nor a possible tag.
    """
    name = name.strip()
    if name in _COLUMNS or name.startswith(TAG):
        return name
    if not can_name_tag(name):
        raise LedgerError(f"cannot group by {name!r}; expected a tag or one of {', '.join(DIMENSIONS)}", "name")
    return TAG + name


def column(name: str) -> str:
    """Return the expression of a dimension over a row of `calls`."""
    if name.startswith(TAG):
        tag = as_text(name[len(TAG) :]).replace("\\", "").replace('"', "").replace("'", "''")
        return f"coalesce(json_extract(tags, '$.\"{tag}\"'), '')"
    return _COLUMNS[name]


def row_conditions(where: Where, since: int | None, until: int | None) -> tuple[list[str], Values]:
    """Return the conditions on rows of `calls` between two times, and their values."""
    equal = where.equal()
    conditions = []
    if equal.get("outcome") == DENIED:
        conditions.append(IS_DENIED)
        del equal["outcome"]
    conditions += [f"{column(name)} = ?" for name in equal]
    values: Values = [*equal.values()]
    if since is not None:
        conditions.append("started_at >= ?")
        values.append(since)
    if until is not None:
        conditions.append("started_at < ?")
        values.append(until)
    return conditions, values


def on_totals(kind: str, where: Where) -> tuple[dict[str, str], list[str], Values]:
    """Return a kind's columns of `totals` by dimension, and the conditions of `where` for its whole days."""
    columns = dict(zip(("a", "b"), KINDS[kind], strict=True))
    names = {name: name for name in GROUPED} | {name: column for column, name in columns.items() if name}
    first, last = _whole_days(where)
    conditions = ["kind = ?", *(f"{names[name]} = ?" for name in where.equal())]
    values: Values = [kind, *where.equal().values()]
    if first is not None:
        conditions.append("day >= ?")
        values.append(first)
    if last is not None:
        conditions.append("day < ?")
        values.append(last)
    return names, conditions, values


def _whole_days(where: Where) -> tuple[int | None, int | None]:
    """Return the first whole day of `where` and the day after its last one."""
    first = None if where.since is None else -(-where.since // DAY)
    last = None if where.until is None else where.until // DAY
    return first, last


def parts_of_days(where: Where) -> list[tuple[int, int]]:
    """Return the parts of days in `where`, for which rows must be read."""
    first, last = _whole_days(where)
    if where.since is not None and where.until is not None and first is not None and last is not None and first > last:
        return [(where.since, where.until)]  # within one day
    parts = []
    if where.since is not None and first is not None and where.since < first * DAY:
        parts.append((where.since, first * DAY))
    if where.until is not None and last is not None and last * DAY < where.until:
        parts.append((last * DAY, where.until))
    return parts
