"""Sums over the calls of a ledger: from the kept totals if they can answer, else from the rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

from tollspan.ledger.conditions import EVERYTHING, Where, column, kind_of, on_totals, parts_of_days, row_conditions
from tollspan.ledger.keys import TAG
from tollspan.ledger.resets import BEFORE, SESSION
from tollspan.ledger.schema import FAILURES, connect, explain
from tollspan.ledger.summaries import summed
from tollspan.ledger.totals import NANO, NOTHING, OVER_CALLS, OVER_TOTALS, Figures
from tollspan.model.text import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from tollspan.ledger.summaries import Summary

    Progress = Callable[[float], None]

_PIECE: Final = 200_000
"""Rows read between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Group:
    """The figures of the calls that share `key`: one string for each requested dimension, in order."""

    key: tuple[str, ...]
    figures: Figures


class LedgerSums:
    """A ledger opened for reading: its sums by dimensions and sessions."""

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
        if kind is None or not by or parts_of_days(where):
            found = self.groups(by, where)
            return found[:limit], len(found)
        names, conditions, values = on_totals(kind, where)
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
        names, conditions, values = on_totals(kind, where)
        found = self._query("totals", [names[name] for name in by], OVER_TOTALS, conditions, values)
        for start, end in parts_of_days(where):
            part = self._query("calls", [column(name) for name in by], OVER_CALLS, *row_conditions(where, start, end))
            found = _merged(found, part)
        return found

    def _over_rows(self, by: Sequence[str], where: Where, progress: Progress | None) -> list[Group]:
        """Read the rows, piece by piece; memory use is that of the groups."""
        first, last = self._range(where)
        found: list[Group] = []
        for start in range(first, last + 1, _PIECE):
            if progress is not None:
                progress((start - first) / (last - first + 1))
            conditions, values = row_conditions(where, where.since, where.until)
            conditions.append("n BETWEEN ? AND ?")
            values += [start, min(start + _PIECE - 1, last)]
            part = self._query("calls", [column(name) for name in by], OVER_CALLS, conditions, values)
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


def _by_cost(group: Group) -> tuple[int, int, tuple[str, ...]]:
    return -group.figures.spend, -group.figures.tokens, group.key


def _less(groups: Sequence[Group], before: Sequence[Group]) -> list[Group]:
    """Return groups minus earlier sums, without those to which nothing was added."""
    known = {group.key: group.figures for group in before}
    found = [Group(group.key, group.figures - known.get(group.key, NOTHING)) for group in groups]
    return _counted(found)


_HAVING: Final = "HAVING sum(calls) + sum(failed) + sum(pending) + sum(denied) > 0"  # as `_counted`


def _counted(groups: Sequence[Group]) -> list[Group]:
    """Return the groups that count something; a settled pending row may leave an empty group."""
    return [group for group in groups if group.figures.attempts or group.figures.pending]


def _merged(one: Sequence[Group], other: Sequence[Group]) -> list[Group]:
    found = {group.key: group.figures for group in one}
    for group in other:
        found[group.key] = found.get(group.key, NOTHING) + group.figures
    return [Group(key, figures) for key, figures in found.items()]
