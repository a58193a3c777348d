"""Queries of a ledger with typed results, shared by the command line, the panel, the page and the API.

    with Ledger(path) as ledger:
        ledger.figures(Where(run="r1"))             # the sums of a run
        ledger.groups(["provider", "model"])        # by provider and model, most expensive first

A query uses the kept totals if they can answer it: by day, provider, model, operation, session, user, run, step and
agent, with any of them as a condition, as long as one kind of total has them all. Other queries read the matching
rows in pieces and report their share to `progress`. Results are the recorded costs; no price table is used.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Self

from tollspan.ledger import rows
from tollspan.ledger.keys import TAG
from tollspan.ledger.resets import BEFORE, SESSION
from tollspan.ledger.schema import FAILURES, connect, explain
from tollspan.ledger.summaries import summed
from tollspan.ledger.totals import GROUPED, KINDS, NANO, NOTHING, OVER_CALLS, OVER_TOTALS, Figures
from tollspan.model.errors import LedgerError
from tollspan.model.text import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from tollspan.ledger.summaries import Summary
    from tollspan.model.records import Call

    Progress = Callable[[float], None]
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

_PIECE: Final = 200_000
"""Rows read between two reports of progress."""


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


@dataclass(frozen=True, slots=True)
class Group:
    """The figures of the calls that share `key`: one string for each requested dimension, in order."""

    key: tuple[str, ...]
    figures: Figures


@dataclass(frozen=True, slots=True)
class Run:
    """A run: its id and figures; its command, times and exit status if `tollspan run` started it."""

    id: str
    figures: Figures
    name: str | None = None
    started_at: int | None = None
    ended_at: int | None = None
    exit_status: int | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A call in the ledger: `n` is its row number; `settled` means that it was pending and no longer is."""

    n: int
    call: Call
    settled: bool = False


class Ledger:
    """A ledger opened for reading. Other processes may write meanwhile. Do not fork before it is closed.

    Raises:
        LedgerError: The file is missing, damaged, of another version, or not a ledger.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db = connect(path, write=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    # Sums

    def figures(self, where: Where = EVERYTHING, progress: Progress | None = None) -> Figures:
        """Return the sums over all matching calls."""
        found = self.groups((), where, progress)
        return found[0].figures if found else NOTHING

    def groups(self, by: Sequence[str], where: Where = EVERYTHING, progress: Progress | None = None) -> list[Group]:
        """Return the sums of matching calls by dimensions (`DIMENSIONS`, and `tag.NAME`), most expensive first.

        Args:
            by: The dimensions to group by; without any there is one group.
            where: The conditions.
            progress: Called with the share of rows read, from 0 to 1, if rows must be read.
        """
        kind = kind_of({*by, *where.equal()}) if where.after is None else None
        try:
            found = self._over_rows(by, where, progress) if kind is None else self._over_totals(kind, by, where)
        except FAILURES as error:
            raise explain(error, self.path) from None
        return sorted(_counted(found) if by else found, key=_by_cost)

    def leading(self, by: Sequence[str], where: Where, limit: int) -> tuple[list[Group], int]:
        """Return the `limit` most expensive groups and the number of all groups; fast even with very many groups."""
        kind = kind_of({*by, *where.equal()}) if where.after is None else None
        if kind is None or not by or _parts_of_days(where):
            found = self.groups(by, where)
            return found[:limit], len(found)
        names, conditions, values = _on_totals(kind, where)
        columns = ", ".join(names[name] for name in by)
        meant = f"FROM totals WHERE {' AND '.join(conditions)}"
        order = f"ORDER BY sum(spend_nano) + sum(spend_rest) / {NANO} DESC LIMIT ?"
        try:
            sql = f"SELECT count(*) OVER (), {columns} {meant} GROUP BY {columns} {_HAVING} {order}"
            first = self.db.execute(sql, [*values, limit]).fetchall()
            if not first:
                return [], 0
            row = f"({', '.join('?' * len(by))})"
            conditions.append(f"({columns}) IN (VALUES {', '.join([row] * len(first))})")
            values += [value for _, *key in first for value in key]
            found = self._query("totals", [names[name] for name in by], OVER_TOTALS, conditions, values)
        except FAILURES as error:
            raise explain(error, self.path) from None
        return sorted(found, key=_by_cost), first[0][0]

    def summary(
        self,
        where: Where = EVERYTHING,
        *,
        tags: Mapping[str, Iterable[str]] | None = None,
        progress: Progress | None = None,
    ) -> Summary:
        """Return the spend by provider, model and tag; a session counts from its last reset.

        Args:
            where: The conditions.
            tags: Tags to group by, and their values that are always present. Rows must be read for them.
            progress: As for `groups`.
        """
        models = self.models(where, progress)
        found = [
            (name, group.key[0], group.figures)
            for name in tags or {}
            for group in self.groups((TAG + name,), self.since_reset(where), progress)
            if group.key[0]
        ]
        return summed(((group.key[0], group.key[1], group.figures) for group in models), found, tags or {})

    def models(self, where: Where = EVERYTHING, progress: Progress | None = None) -> list[Group]:
        """Return sums by provider and model, most expensive first; a session counts from its last reset."""
        by = ("provider", "model")
        if where.session is None:
            return self.groups(by, where, progress)
        if where == Where(session=where.session):
            return _less(self.groups(by, where, progress), self._before_reset(where.session))
        return self.groups(by, self.since_reset(where), progress)

    def _before_reset(self, session: str) -> list[Group]:
        """Return the sums of a session at its last reset, by provider and model."""
        return self._query(
            "totals", ["provider", "model"], OVER_TOTALS, ["kind = ?", "a = ?"], [BEFORE, as_text(session)]
        )

    def since_reset(self, where: Where) -> Where:
        """Return conditions that exclude calls before a session's last reset."""
        session = as_text(where.session or "")
        found = self.db.execute("SELECT n FROM resets WHERE kind = ? AND key = ?", (SESSION, session)).fetchone()
        return where if found is None else replace(where, after=found[0])

    def _over_totals(self, kind: str, by: Sequence[str], where: Where) -> list[Group]:
        names, conditions, values = _on_totals(kind, where)
        found = self._query("totals", [names[name] for name in by], OVER_TOTALS, conditions, values)
        for start, end in _parts_of_days(where):
            part = self._query("calls", [_column(name) for name in by], OVER_CALLS, *_conditions(where, start, end))
            found = _merged(found, part)
        return found

    def _over_rows(self, by: Sequence[str], where: Where, progress: Progress | None) -> list[Group]:
        """Read the rows, piece by piece; memory use is that of the groups."""
        first, last = self._range(where)
        found: list[Group] = []
        for start in range(first, last + 1, _PIECE):
            if progress is not None:
                progress((start - first) / (last - first + 1))
            conditions, values = _conditions(where, where.since, where.until)
            conditions.append("n BETWEEN ? AND ?")
            values += [start, min(start + _PIECE - 1, last)]
            part = self._query("calls", [_column(name) for name in by], OVER_CALLS, conditions, values)
            found = _merged(found, part)
        if progress is not None:
            progress(1.0)
        return found

    def _range(self, where: Where) -> tuple[int, int]:
        """Return the first and last row number that can match, according to the totals."""
        known: dict[str, Any] = {name: value for name, value in where.equal().items() if kind_of({name}) is not None}
        ranges = [self.figures(replace(EVERYTHING, **{name: value})) for name, value in known.items()] or [
            self.figures()
        ]
        first = max(where.after or 0, *((figures.first_n or 0) for figures in ranges))
        first += first == where.after
        last = min((figures.last_n or -1) for figures in ranges)
        return first, last

    def _query(
        self, table: str, by: Sequence[str], figures: str, conditions: Sequence[str], values: Sequence[Any]
    ) -> list[Group]:
        columns = "".join(f"{column}, " for column in by)
        group = f" GROUP BY {', '.join(by)}" if by else ""
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        sql = f"SELECT {columns}{figures} FROM {table}{where}{group}"  # noqa: S608 - our own names; values are bound
        found = self.db.execute(sql, list(values)).fetchall()
        return [
            Group(tuple(str(value) for value in row[: len(by)]), Figures.of(row[len(by) :]))
            for row in found
            if row[-1] is not None  # the sums of no rows
        ]

    # Changes

    @property
    def version(self) -> int:
        """Return a number that changes when another connection has written; this reads no table."""
        try:
            return int(self.db.execute("PRAGMA data_version").fetchone()[0])
        except FAILURES as error:
            raise explain(error, self.path) from None

    @property
    def last_n(self) -> int:
        """Return the number of the newest row, or 0 without rows."""
        try:
            return int(self.db.execute("SELECT coalesce(max(n), 0) FROM calls").fetchone()[0])
        except FAILURES as error:
            raise explain(error, self.path) from None

    @contextmanager
    def at_one_moment(self) -> Iterator[None]:
        """Run the queries inside on one snapshot, whatever is written meanwhile."""
        try:
            self.db.execute("BEGIN")
            yield
        except FAILURES as error:
            raise explain(error, self.path) from None
        finally:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")

    def first_n_of(self, where: Where) -> int:
        """Return a row number before which no row matches; the conditions must be in the totals."""
        since = None if where.since is None else where.since // DAY * DAY
        found = self.figures(replace(where, since=since, until=None, after=None)).first_n
        return max(self.last_n + 1 if found is None else found, (where.after or 0) + 1)

    def timeline(
        self, step: int, by: Sequence[str] = (), where: Where = EVERYTHING, rows: tuple[int, int] | None = None
    ) -> list[Group]:
        """Return sums by time and the dimensions `by`; a key begins with the number of the step since 1970.

        Whole days come from the totals if possible; other steps, and queries with `where.after`, read the rows.

        Args:
            step: The step in nanoseconds.
            by: Further dimensions.
            where: The conditions; for speed, set `since` or `after`.
            rows: Only rows with a number larger than the first, and no larger than the second.
        """
        try:
            if step == DAY and where.after is None and rows is None and kind_of({"day", *by, *where.equal()}):
                return self.groups(("day", *by), where)
            conditions, values = self._rows_of(where, rows)
            columns = [f"started_at / {int(step)}", *map(_column, by)]
            return self._query("calls", columns, OVER_CALLS, conditions, values)
        except FAILURES as error:
            raise explain(error, self.path) from None

    def first_tokens(
        self, step: int, where: Where = EVERYTHING, limit: int = 50_000, rows: tuple[int, int] | None = None
    ) -> list[tuple[int, float]]:
        """Return times to the first token, newest first, as pairs of step number and seconds."""
        conditions, values = self._rows_of(where, rows)
        sql = f"""
            SELECT started_at / {int(step)}, first_token FROM calls
            WHERE {" AND ".join(["first_token IS NOT NULL", *conditions])} ORDER BY n DESC LIMIT ?
        """  # noqa: S608 - our own names; values are bound
        try:
            return self.db.execute(sql, [*values, limit]).fetchall()
        except FAILURES as error:
            raise explain(error, self.path) from None

    def _rows_of(self, where: Where, rows: tuple[int, int] | None = None) -> tuple[list[str], Values]:
        """Return the conditions on rows by what finds them fastest: row numbers, or else times."""
        conditions, values = _conditions(where, where.since, where.until)
        if rows is not None:
            # The sign keeps SQLite from looking by time (sqlite.org/optoverview.html, "Unary + terms").
            conditions = [text.replace("started_at", "+started_at") for text in conditions]
            conditions += ["n > ?", "n <= ?"]
            values += [max(rows[0], where.after or 0), rows[1]]
            return conditions, values
        if where.after is not None:
            conditions.append("n > ?")
            values.append(where.after)
        elif where.since is None:
            conditions.append("n BETWEEN ? AND ?")
            values += self._range(where)
        return conditions, values

    # Single calls

    def calls(self, where: Where = EVERYTHING, limit: int = 20, *, most_expensive: bool = False) -> list[Kept]:
        """Return calls, the newest first, or the most expensive first."""
        try:
            if most_expensive and where == EVERYTHING:
                return self._kept_most_expensive(limit)
            conditions, values = _conditions(where, where.since, where.until)
            first, last = self._range(where)
            conditions.append("n BETWEEN ? AND ?")
            values += [first, last]
            order = "cost_nano DESC, cost_rest DESC, n DESC" if most_expensive else "n DESC"
            return self._kept(f"WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT ?", [*values, limit])
        except FAILURES as error:
            raise explain(error, self.path) from None

    def _kept_most_expensive(self, limit: int) -> list[Kept]:
        sql = "SELECT n FROM dearest ORDER BY nano DESC, rest DESC LIMIT ?"
        numbers = [str(n) for (n,) in self.db.execute(sql, (limit,))]
        return self._kept(f"WHERE n IN ({', '.join(numbers)}) ORDER BY cost_nano DESC, cost_rest DESC", [])

    def call(self, name: str) -> list[Kept]:
        """Return the call with that row number or id, or the attempts of the operation with that id; else [].

        The id may also be that of a trace, a span or a response; finding it reads every row.
        """
        name = as_text(name)
        try:
            if name.isdecimal() and len(name) < _SHORTEST_ID:
                return self._kept("WHERE n = ?", [int(name)])
            found = self._kept("WHERE id = ?", [name])
            if not found:
                found = self._kept("WHERE ? IN (trace_id, span_id, response_id) LIMIT 100", [name])
        except FAILURES as error:
            raise explain(error, self.path) from None
        return found

    def attempts(self, operation_id: str) -> list[Kept]:
        """Return the attempts of an operation, in order."""
        retries = "operation_id = ? AND resend_count IS NOT NULL"
        return self._kept(f"WHERE id = ? OR ({retries}) ORDER BY started_at", [operation_id, operation_id])

    def each(self, where: Where = EVERYTHING) -> Iterator[Kept]:
        """Yield every matching call in the order in which the calls ended."""
        first, last = self._range(where)
        conditions, values = _conditions(where, where.since, where.until)
        for start in range(first, last + 1, _PAGE):
            piece = [*values, start, min(start + _PAGE - 1, last)]
            yield from self._kept(f"WHERE {' AND '.join([*conditions, 'n BETWEEN ? AND ?'])} ORDER BY n", piece)

    def _kept(self, rest: str, values: Sequence[Any]) -> list[Kept]:
        cursor = self.db.execute(f"{rows.SELECT} {rest}", list(values))
        names = [column[0] for column in cursor.description]
        found = (dict(zip(names, row, strict=True)) for row in cursor)
        return [Kept(row["n"], rows.call_of(row), settled=row["pending"] == 0) for row in found]

    # Runs

    def runs(self, limit: int = 20) -> list[Run]:
        """Return the runs, the latest first."""
        sql = f"""
            SELECT a, {OVER_TOTALS} FROM totals WHERE kind = 'run' AND a IN (
              SELECT a FROM totals WHERE kind = 'run' AND a <> '' GROUP BY a ORDER BY max(last_n) DESC LIMIT ?
            ) GROUP BY a
        """  # noqa: S608 - our own names
        try:
            figures = {row[0]: Figures.of(row[1:]) for row in self.db.execute(sql, (limit,))}
            known = {
                row[0]: row for row in self.db.execute("SELECT * FROM runs ORDER BY started_at DESC LIMIT ?", (limit,))
            }
        except FAILURES as error:
            raise explain(error, self.path) from None
        ids = [*figures, *(id_ for id_ in known if id_ not in figures)]
        runs = [Run(id_, figures.get(id_, NOTHING), *known.get(id_, (id_, None))[1:]) for id_ in ids]
        return sorted(runs, key=lambda run: run.started_at or run.figures.first_at or 0, reverse=True)[:limit]


_SHORTEST_ID: Final = 16  # hexadecimal digits of a span's id; a number that short is a row's
_PAGE: Final = 1_000


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


def _column(name: str) -> str:
    if name.startswith(TAG):
        tag = as_text(name[len(TAG) :]).replace("\\", "").replace('"', "").replace("'", "''")
        return f"coalesce(json_extract(tags, '$.\"{tag}\"'), '')"
    return _COLUMNS[name]


def _conditions(where: Where, since: int | None, until: int | None) -> tuple[list[str], Values]:
    conditions = [f"{_column(name)} = ?" for name in where.equal()]
    values: Values = [*where.equal().values()]
    if since is not None:
        conditions.append("started_at >= ?")
        values.append(since)
    if until is not None:
        conditions.append("started_at < ?")
        values.append(until)
    return conditions, values


def _by_cost(group: Group) -> tuple[int, int, tuple[str, ...]]:
    return -group.figures.spend, -group.figures.tokens, group.key


def _on_totals(kind: str, where: Where) -> tuple[dict[str, str], list[str], Values]:
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


def _parts_of_days(where: Where) -> list[tuple[int, int]]:
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


def _less(groups: Sequence[Group], before: Sequence[Group]) -> list[Group]:
    """Return groups minus earlier sums, without those to which nothing was added."""
    known = {group.key: group.figures for group in before}
    found = [Group(group.key, group.figures - known.get(group.key, NOTHING)) for group in groups]
    return _counted(found)


_HAVING: Final = "HAVING sum(calls) + sum(failed) + sum(pending) > 0"  # as `_counted`


def _counted(groups: Sequence[Group]) -> list[Group]:
    """Return the groups that count something; a settled pending row may leave an empty group."""
    return [group for group in groups if group.figures.calls or group.figures.failed or group.figures.pending]


def _merged(one: Sequence[Group], other: Sequence[Group]) -> list[Group]:
    found = {group.key: group.figures for group in one}
    for group in other:
        found[group.key] = found.get(group.key, NOTHING) + group.figures
    return [Group(key, figures) for key, figures in found.items()]
