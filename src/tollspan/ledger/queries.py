"""Queries of a ledger with typed results, shared by the command line, the panel, the page and the API.

    with Ledger(path) as ledger:
        ledger.figures(Where(run="r1"))             # the sums of a run
        ledger.groups(["provider", "model"])        # by provider and model, most expensive first

A query uses the kept totals if they can answer it: by day, provider, model, operation, session, user, run, step and
agent, with any of them as a condition, as long as one kind of total has them all. Other queries read the matching
rows in pieces and report their share to `progress`. Results are the recorded costs; no price table is used.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tollspan.ledger import rows
from tollspan.ledger.conditions import DAY, EVERYTHING, column, kind_of, row_conditions
from tollspan.ledger.schema import FAILURES, explain
from tollspan.ledger.sums import LedgerSums
from tollspan.ledger.totals import NOTHING, OVER_CALLS, OVER_TOTALS, Figures
from tollspan.model.records import DENIED
from tollspan.model.refusal import Refusal, RefusedCalls
from tollspan.model.text import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tollspan.ledger.conditions import Values, Where
    from tollspan.ledger.sums import Group
    from tollspan.model.records import Call


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


class Ledger(LedgerSums):
    """A ledger opened for reading. Other processes may write meanwhile. Do not fork before it is closed.

    Raises:
        LedgerError: The file is missing, damaged, of another version, or not a ledger.
    """

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
            columns = [f"started_at / {int(step)}", *map(column, by)]
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
        conditions, values = row_conditions(where, where.since, where.until)
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
            conditions, values = row_conditions(where, where.since, where.until)
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

    def refused(self, where: Where = EVERYTHING) -> list[RefusedCalls]:
        """Return the calls that budgets refused, by budget and reason, the most often refused first.

        Of calls that an older tollspan recorded, it is not known what refused them: these are left out.
        """
        conditions, values = row_conditions(replace(where, outcome=DENIED), where.since, where.until)
        first, last = self._range(where)
        # With a single max(), the other columns are those of the row that has it (sqlite.org/lang_select.html#bareagg).
        sql = f"""
            SELECT count(*), count(DISTINCT json_extract(refusal, '$.requested')) < 2, refusal,
              max(coalesce(CAST(json_extract(refusal, '$.requested') AS REAL), 0))
            FROM calls INDEXED BY calls_denied
            WHERE {" AND ".join(conditions)} AND refusal IS NOT NULL AND n BETWEEN ? AND ?
            GROUP BY json_extract(refusal, '$.budget'), json_extract(refusal, '$.reason') ORDER BY 1 DESC
        """  # noqa: S608 - our own names; values are bound
        try:
            found = self.db.execute(sql, [*values, first, last]).fetchall()
        except FAILURES as error:
            raise explain(error, self.path) from None
        return [
            RefusedCalls(count=count, alike=bool(alike), largest=Refusal.of(json.loads(text)))
            for count, alike, text, _ in found
        ]

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
        conditions, values = row_conditions(where, where.since, where.until)
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
