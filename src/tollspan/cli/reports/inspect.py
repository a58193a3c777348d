"""`tollspan inspect` and `tollspan runs`: recorded spend by provider, model, time, attribution or run."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from tollspan.budget.denials.explanation import refused_line
from tollspan.cli.ledger_options import resolved, with_conditions, with_ledger
from tollspan.cli.reports.call_tables import calls_table
from tollspan.cli.reports.csv_rows import write_csv
from tollspan.cli.tables import ROW_COUNT, console, money, progress, table, written
from tollspan.cli.times import day, shown
from tollspan.ledger.conditions import EVERYTHING, Where, check_dimension, kind_of
from tollspan.ledger.keys import TAG
from tollspan.ledger.queries import Ledger
from tollspan.model.money import usd
from tollspan.model.text import many
from tollspan.setup.exit_summary import amount

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from tollspan.ledger.sums import Group
    from tollspan.ledger.totals import Figures

_SHOWN: Final = 20
_IN_TIME: Final = frozenset({"day", "hour"})
"""Dimensions whose groups are shown in the order of time; a limit keeps the latest."""

_MOST_EXPENSIVE: Final = 5
_BATCHES: Final = "responses or batches"
_OVERVIEW: Final[tuple[tuple[str, ...], ...]] = (("provider", "model"), ("day",), ("session",), ("user",))
_COUNTS: Final = (
    "calls",
    "failed",
    "pending",
    "denied",
    "unpriced",
    "uncertain",
    "broken",
    "retries",
    "input",
    "output",
    "cache_read",
    "cache_write",
    "reasoning",
)
_AMOUNTS: Final = {
    "cost_usd": "spend",
    "savings_usd": "savings",
    "avoided_usd": "avoided",
    "broken_usd": "broken_spend",
    "retry_usd": "retry_spend",
}


@click.command()
@with_ledger
@with_conditions
@click.option(
    "--by",
    metavar="NAMES",
    help="Group by these dimensions, comma-separated: day, hour, provider, model, operation, session, user, run, "
    "step, agent, outcome, error, quality, service_tier, region, host, or any tag.",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON; amounts are exact decimal strings.")
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV.")
@click.option("--limit", type=ROW_COUNT, default=_SHOWN, show_default=True, help="Maximum rows (0 = all).")
def inspect(  # noqa: PLR0913 - one argument per option
    path: Path, where: Where, by: str | None, limit: int, *, as_json: bool, as_csv: bool
) -> None:
    r"""Summarize spend from the ledger.

    Recorded costs never change. To compare them with other prices, use tollspan reprice.

    \b
    Examples:
      tollspan inspect
      tollspan inspect --since 7d --by day,model
      tollspan inspect --run last --by step
      tollspan inspect --by tier --json          # tier is a tag here
    """
    names = tuple(check_dimension(name) for name in by.split(",")) if by else ()
    with Ledger(path) as ledger:
        where = resolved(ledger, where)
        if as_json or as_csv:
            groups = _groups(ledger, names or ("provider", "model"), where)
            (_write_json if as_json else _write_csv)(names or ("provider", "model"), groups, ledger, where)
            return
        out = console()
        total = _whole(ledger, where)
        _total(out, total, path)
        if total.denied:
            for refused in ledger.refused(where):
                out.print(f"    {refused_line(refused)}", soft_wrap=True)
        if names:
            groups, count, rows = _groups_for_table(ledger, names, where, limit)
            _groups_table(out, names, groups, count)
            if pruned := _pruned(total, names, where, rows):
                out.print(f"{many(pruned, 'call')} in the total but not in this table: pruned, with totals kept")
        else:
            _overview(out, ledger, where, limit)


def _whole(ledger: Ledger, where: Where) -> Figures:
    if kind_of(set(where.equal())):
        return ledger.figures(where)
    with progress("adding up") as update:
        return ledger.figures(where, update)


def _pruned(total: Figures, by: Sequence[str], where: Where, rows: int) -> int:
    """Return how many calls only the totals still have: those of `total` that are not among the `rows` read for `by`.

    The result is 0 if the groups come from the totals.
    """
    if kind_of({*by, *where.equal()}) is not None:
        return 0
    return max(total.attempts - rows, 0)


def _number(groups: Sequence[Group]) -> int:
    return sum(group.figures.attempts for group in groups)


def _groups(ledger: Ledger, by: Sequence[str], where: Where) -> list[Group]:
    with progress(f"adding up by {', '.join(map(_plain, by))}") as update:
        groups = ledger.groups(by, where, update)
    return sorted(groups, key=lambda group: group.key) if by[0] in _IN_TIME else groups


def _groups_for_table(ledger: Ledger, by: Sequence[str], where: Where, limit: int) -> tuple[list[Group], int, int]:
    """Return the groups that a table shows, the number of all groups, and the number of calls that were read."""
    if limit and by[0] not in _IN_TIME and kind_of({*by, *where.equal()}):
        return *ledger.leading(by, where, limit), 0
    groups = _groups(ledger, by, where)
    in_table = groups[-limit:] if limit and by[0] in _IN_TIME else groups[: limit or None]
    return in_table, len(groups), _number(groups)


def _overview(out: Console, ledger: Ledger, where: Where, limit: int) -> None:
    for by in (*_OVERVIEW, ("step",)) if where.run is not None else _OVERVIEW:
        if kind_of({*by, *where.equal()}) is None:
            continue
        groups, count, _ = _groups_for_table(ledger, by, where, limit)
        if by == ("provider", "model") or count > 1:
            _groups_table(out, by, groups[::-1] if by == ("day",) else groups, count)
    if where == EVERYTHING or where.run or where.session:
        _most_expensive(out, ledger, where)


def _most_expensive(out: Console, ledger: Ledger, where: Where) -> None:
    calls = ledger.calls(where, _MOST_EXPENSIVE, most_expensive=True)
    if calls:
        out.print("\n[bold]most expensive calls[/bold]  (tollspan call NUMBER explains one)", markup=True)
        calls_table(out, calls)


def _total(out: Console, figures: Figures, path: Path) -> None:
    out.print(str(path), style="dim")
    if figures.last_at is None:
        out.print("no calls")
        return
    period = f"{shown(figures.first_at)} to {shown(figures.last_at)} UTC"
    total = written(figures.spend, exact=not figures.uncertain)
    unpriced = f" + {figures.unpriced:,} unpriced" if figures.unpriced else ""
    whole = f"[bold]{total}{unpriced}[/bold] for {many(figures.calls, 'call')}, {figures.tokens:,} tokens; {period}"
    out.print(whole, markup=True)
    notes = [
        (figures.unpriced, f"without a known price, not in the total: {many(figures.unpriced, 'call')}"),
        (figures.pending, f"pending, cost not known yet: {many(figures.pending, 'response or batch', _BATCHES)}"),
        (figures.uncertain, f"estimated or a lower bound (~): {many(figures.uncertain, 'call')}"),
        (figures.savings, f"{money(figures.savings)} saved by the providers' caches"),
        (figures.avoided, f"{money(figures.avoided)} avoided by responses from other caches"),
        (figures.broken, f"{money(figures.broken_spend)} for {many(figures.broken, 'call')} that broke off"),
        (figures.retries, f"{money(figures.retry_spend)} for {many(figures.retries, 'retry', 'retries')}"),
        (figures.failed, f"failed at no cost: {many(figures.failed, 'attempt')}"),
        (figures.denied, f"denied by a budget, never sent: {many(figures.denied, 'call')}"),
    ]
    for count, text in notes:
        if count:
            out.print(f"  {text}")


def _groups_table(out: Console, by: Sequence[str], groups: Sequence[Group], count: int) -> None:
    names = ("denied", "unpriced", "pending")
    optional = [name for name in names if any(getattr(group.figures, name) for group in groups)]
    result = table((*map(_plain, by), "calls", "failed", "input", "cached", "output", "cost", *optional), len(by))
    for group in groups:
        figures = group.figures
        result.add_row(
            *(_label(name, value) for name, value in zip(by, group.key, strict=True)),
            f"{figures.calls:,}",
            f"{figures.failed:,}",
            f"{figures.input:,}",
            f"{figures.cache_read:,}",
            f"{figures.output:,}",
            _cost_of(figures),
            *(f"{number:,}" if (number := getattr(figures, name)) else "" for name in optional),
        )
    out.print()
    out.print(result)
    if count > len(groups):
        out.print(f"[dim]and {count - len(groups):,} more: --limit 0[/dim]", markup=True)


def _cost_of(figures: Figures) -> str:
    if figures.calls == figures.unpriced:
        return "unpriced" if figures.calls else ""
    return written(figures.spend, exact=not figures.uncertain)


def _plain(name: str) -> str:
    return name.removeprefix(TAG)


def _label(name: str, value: str) -> str:
    if name == "day":
        return day(int(value))
    if name == "hour":
        return shown(int(value) * 3600 * 10**9)[:-3]
    return value or "(none)"


def as_data(figures: Figures) -> dict[str, Any]:
    """Return figures as JSON values: counts, and amounts as exact decimal strings in US dollars."""
    counts = {name: getattr(figures, name) for name in _COUNTS}
    return counts | {name: f"{usd(getattr(figures, field)):f}" for name, field in _AMOUNTS.items()}


def _columns(by: Sequence[str]) -> list[str]:
    """Return the column names of dimensions; a tag keeps its prefix `tag.` if its name is that of another column."""
    reserved = {*by, *_COUNTS, *_AMOUNTS}
    return [name if (plain := _plain(name)) != name and plain in reserved else plain for name in by]


def _row(by: Sequence[str], group: Group) -> dict[str, Any]:
    labels = [_label(name, value) if name in _IN_TIME else value for name, value in zip(by, group.key, strict=True)]
    return dict(zip(_columns(by), labels, strict=True)) | as_data(group.figures)


def _write_json(by: Sequence[str], groups: Sequence[Group], ledger: Ledger, where: Where) -> None:
    total = _whole(ledger, where)
    rows, pruned = [_row(by, group) for group in groups], _pruned(total, by, where, _number(groups))
    data = {"ledger": str(ledger.path), "total": as_data(total), "by": rows} | ({"pruned": pruned} if pruned else {})
    click.echo(json.dumps(data, indent=1))


def _write_csv(by: Sequence[str], groups: Sequence[Group], _ledger: Ledger, _where: Where) -> None:
    write_csv((_row(by, group) for group in groups), (*_columns(by), *_COUNTS, *_AMOUNTS), sys.stdout)


@click.command()
@with_ledger
@click.option("--limit", type=ROW_COUNT, default=_SHOWN, show_default=True, help="Maximum rows.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON; amounts are exact decimal strings.")
def runs(path: Path, limit: int, *, as_json: bool) -> None:
    r"""List the latest runs: program, start, exit status and spend.

    A run is a program that `tollspan run` started, a process that instruments itself, or what your code names with
    `tollspan.attribution(run=...)`.

    \b
    Example:
      tollspan runs --limit 5
    """
    with Ledger(path) as ledger:
        latest = ledger.runs(limit)
    if as_json:
        data = [
            {"run": run.id, "name": run.name, "exit_status": run.exit_status, "started_at": shown(run.started_at)}
            | as_data(run.figures)
            for run in latest
        ]
        click.echo(json.dumps(data, indent=1))
        return
    denied = ("denied",) if any(run.figures.denied for run in latest) else ()
    result = table(("run", "program", "started (UTC)", "ended", "calls", "failed", *denied, "tokens", "cost"), 4)
    for run in latest:
        figures = run.figures
        ended = "" if run.name is None else "running" if run.ended_at is None else f"status {run.exit_status}"
        result.add_row(
            run.id,
            run.name or "",
            shown(run.started_at or figures.first_at),
            ended,
            f"{figures.calls:,}",
            f"{figures.failed:,}",
            *(f"{getattr(figures, name):,}" for name in denied),
            f"{figures.tokens:,}",
            amount(figures),
        )
    console().print(result)
