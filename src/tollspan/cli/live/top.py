"""`tollspan top`: live spend in the terminal, of all programs that write to the ledger.

A panel is a list of lines that fit the screen: `lines(board, width, height)`. It is redrawn only if something has
changed; `board.py` describes how that is detected.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from textwrap import wrap
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from tollspan.budget.denials.denial import amount
from tollspan.budget.denials.explanation import refused_line
from tollspan.cli.ledger_options import LAST, resolved, with_ledger
from tollspan.cli.live.board import SERVICE_TIER, BoardReader, PanelFilter, look_once
from tollspan.cli.live.board_json import data_of
from tollspan.cli.tables import money, written
from tollspan.cli.times import WhenType
from tollspan.ledger.conditions import Where
from tollspan.ledger.queries import Ledger
from tollspan.ledger.totals import NOTHING
from tollspan.model.money import atto
from tollspan.model.records import DENIED, UNCERTAIN
from tollspan.model.text import many
from tollspan.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from decimal import Decimal
    from pathlib import Path

    from tollspan.budget.api import Status
    from tollspan.cli.live.board import Board
    from tollspan.ledger.queries import Kept
    from tollspan.ledger.sums import Group
    from tollspan.ledger.totals import Figures

EVERY: Final = 0.25
"""Seconds between two looks at the ledger."""

# Colours for light and dark backgrounds: each has a contrast of at least 3.9 to white and to black (WCAG 2.2).
GOOD: Final = "color(28)"
BUSY: Final = "color(130)"
BAD: Final = "color(196)"
ACCENT: Final = "color(31)"
_QUIET: Final = "dim"

_LEAST_WIDTH: Final = 40
_PRINTED: Final = 100
"""Columns if the output is not a terminal."""

_LISTED: Final = 10
"""Calls in a panel that is printed once."""

_ALL: Final = 10**6
"""A height that fits every panel."""


@click.command()
@with_ledger
@click.option("--session", metavar="NAME", help="Only this session, since its last reset.")
@click.option("--run", metavar="ID", help="Only this run; `last` is the latest.")
@click.option(
    "--since", type=WhenType(), metavar="WHEN", help="Only calls since then: 30m, 12h, 7d, today, 2026-11-01."
)
@click.option("--once", is_flag=True, help="Print the panel once and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON once and exit; amounts are exact decimal strings.")
def top(  # noqa: PLR0913 - one argument per option
    path: Path, session: str | None, run: str | None, since: int | None, *, once: bool, as_json: bool
) -> None:
    r"""Show live spend in the terminal.

    Covers all programs on this machine that write to the ledger. The default is today's calls (UTC). Press q or Ctrl-C
    to quit. If the output is not a terminal, the panel is printed once.

    \b
    Examples:
      tollspan top
      tollspan top --session checkout
      tollspan top --run last
      tollspan top --json | jq .total.cost_usd
    """
    scope = scope_of(path, session, run, since)
    if as_json:
        click.echo(json.dumps(data_of(look_once(path, scope, load())), indent=1))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PRINTED)
    if once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        board = look_once(path, scope, load())
        board = replace(board, calls=board.calls[:_LISTED])
        for line in lines(board, console.width, _ALL):
            console.print(line, no_wrap=True, overflow="crop")
        return
    # Ctrl-C may come at any time, even while the panel is drawn.
    with suppress(KeyboardInterrupt), closing(BoardReader(path, scope, load())) as reader:
        _show(console, reader)


def scope_of(path: Path, session: str | None, run: str | None, since: int | None) -> PanelFilter:
    """Return the filter that the options select; the run `last` means the latest one.

    Raises:
        LedgerError: the run is `last`, but the ledger has no run.
    """
    if run == LAST:
        with Ledger(path) as ledger:
            run = resolved(ledger, Where(run=LAST)).run
    return PanelFilter(session=session, run=run, since=since)


def _show(console: Console, reader: BoardReader) -> None:
    """Redraw the panel until the user quits."""
    with _keys() as wait, Live(console=console, screen=True, auto_refresh=False) as live:
        board, drawn = None, None
        while True:
            board = reader.look() or board
            size = console.size
            if board is not None and (board, size) != drawn:
                drawn = board, size
                live.update(Text("\n").join(lines(board, size.width, size.height)), refresh=True)
            if wait(EVERY) in {"q", "Q", "\x1b"}:
                return


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits some seconds for a key and returns it, or "" if no key was pressed."""
    try:
        import termios
        import tty
    except ImportError:  # Windows: Ctrl-C quits
        pause = threading.Event()

        def sleep(seconds: float) -> str:
            pause.wait(seconds)
            return ""

        yield sleep
        return
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)

    def wait(seconds: float) -> str:
        ready, _, _ = select.select([file], [], [], seconds)
        return os.read(file, 1).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(file)
        yield wait
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)


# --- The panel


def lines(board: Board, width: int, height: int) -> list[Text]:
    """Return the panel as lines that fit a screen; on a small screen, each section keeps its first lines."""
    width = max(width, _LEAST_WIDTH)
    head = list(_head(board, width))
    if board.waiting:
        return [*head, Text(), Text("No ledger yet. Create one:  tollspan run -- python app.py", ACCENT)][:height]
    sections = [_models(board, width), _tiers(board, width), _budgets(board, width), _calls(board, width)]
    shares = _shares([len(section) + 1 if section else 0 for section in sections], height - len(head))
    body = [
        line
        for section, share in zip(sections, shares, strict=True)
        if share > _HEADING
        for line in (Text(), *section[: share - 1])
    ]
    return [*head, *body][:height]


_WEIGHTS: Final = (3, 2, 2, 2)
_HEADING: Final = 2
"""Lines of a section without content: an empty line and the head."""


def _shares(wanted: Sequence[int], available: int) -> list[int]:
    """Distribute the available lines among sections by weight, at most as many as each one wants."""
    shares = [0] * len(wanted)
    while available > 0 and shares != list(wanted):
        for index, want in enumerate(wanted):
            more = min(_WEIGHTS[index], want - shares[index], available)
            shares[index] += more
            available -= more
    return shares


def _head(board: Board, width: int) -> Iterator[Text]:
    total = board.total
    at = time.strftime("%H:%M:%S", time.gmtime(board.at // 10**9))
    title = Text.assemble(("tollspan", "bold"), "  ", (board.scope, ACCENT))
    if board.read < 1:
        title.append(f"  reading earlier calls: {board.read:.0%}", BUSY)
    yield _left_and_right(title, Text(f"{at} UTC   q quits", _QUIET), width)
    spent = Text.assemble((money(total.spend), "bold"), f"  {many(total.calls, 'call')}  {short(total.tokens)} tokens")
    if total.unpriced:
        spent.append(f"  + {total.unpriced:,} unpriced", BUSY)
    rate = Text(
        f"{board.calls_per_minute:,}/min  {money(board.spend_per_hour)}/h", ACCENT if board.calls_per_minute else _QUIET
    )
    yield _left_and_right(spent, rate, width)
    notes = [
        (
            total.cache_read,
            f"cache {share(total.cache_read, total.input)} of input, {money(total.savings)} saved",
            _QUIET,
        ),
        (total.pending, f"{total.pending:,} pending", BUSY),
        (total.failed, f"{total.failed:,} failed", BAD),
        (total.denied, f"{total.denied:,} denied", BAD),
        (total.retries, many(total.retries, "retry", "retries"), BUSY),
        (total.broken, f"{total.broken:,} broke off ({money(total.broken_spend)})", BUSY),
    ]
    line = Text()
    for count, text, style in notes:
        if count > 0:
            line.append("  " if line else "").append(text, style)
    yield _cropped(line, width)


def _models(board: Board, width: int) -> list[Text]:
    """Return the models under their providers, the most expensive first."""
    by_provider: dict[str, list[Group]] = {}
    for group in board.models:
        by_provider.setdefault(group.key[0], []).append(group)
    sums = {name: sum((group.figures for group in groups), NOTHING) for name, groups in by_provider.items()}
    rows = [_row(("model", "calls", "input", "cached", "output", "cost"), width, "bold")]
    for provider, figures in sorted(sums.items(), key=lambda item: -item[1].spend):
        rows.append(_row((provider, *_numbers(figures)), width, ACCENT))
        rows += [_row((f"  {group.key[1] or '?'}", *_numbers(group.figures)), width) for group in by_provider[provider]]
    return rows if board.models else [Text("no calls yet", _QUIET), Text()]


def _numbers(figures: Figures) -> tuple[str, ...]:
    cost = money(figures.spend)
    if figures.unpriced:
        cost = "unpriced" if figures.unpriced == figures.calls else f"{cost}+?"
    counts = (figures.input, figures.cache_read, figures.output)
    return (f"{figures.calls:,}", *map(short, counts), cost)


_WIDTHS: Final = (7, 8, 8, 8, 12)


def _row(cells: Sequence[str], width: int, style: str = "") -> Text:
    """Return a line with a name and numbers; on a narrow screen, only with the name, calls and cost."""
    numbers = list(zip(cells[1:], _WIDTHS, strict=True))
    if width < _LEAST_WIDTH + sum(_WIDTHS) // 2:
        numbers = [numbers[0], numbers[-1]]
    text = "".join(f"{cell:>{columns}}" for cell, columns in numbers)
    return Text(f"{_fit(cells[0], width - len(text))}{text}", style)


_USUAL: Final = frozenset({"default", "standard", "auto", "on_demand"})
"""Service tiers at the standard price: if there are no others, the section is left out."""


def _tiers(board: Board, width: int) -> list[Text]:
    rows = []
    for name, tiers in board.tiers.items():
        if name == SERVICE_TIER and tiers.keys() <= _USUAL:
            continue
        rows.append(_row((name, "calls", "input", "cached", "output", "cost"), width, "bold"))
        rows += [_row((f"  {value}", *_numbers(figures)), width) for value, figures in tiers.items()]
    return rows


def _budgets(board: Board, width: int) -> list[Text]:
    refused = [
        Text(_fit(line, width).rstrip(), BAD)
        for calls in board.refused
        for line in wrap(refused_line(calls), width, initial_indent="  ", subsequent_indent="    ")
    ]
    if board.budgets_unknown is not None:
        return [Text("budgets", "bold"), _cropped(Text(f"  not known: {board.budgets_unknown}", BAD), width), *refused]
    if not board.budgets and not refused:
        return []
    return [Text("budgets", "bold"), *(_bar(item, width) for item in board.budgets), *refused]


def _bar(item: Status, width: int) -> Text:
    """Return a line with the utilization of a budget as a bar and as text, because some users see no colours."""
    used = item.utilization or 0.0
    style = BAD if used >= 0.9 else BUSY if used >= 0.5 else GOOD  # noqa: PLR2004 - the shares of the status line
    text = f"{used:4.0%}  {_amount(item.spent, item.unit)} of {_amount(item.limit, item.unit, limit=True)}"
    name = _fit(f"  {unquote(item.counter)}", max(width // 3, 16))
    columns = max(width - len(name) - len(text) - 3, 4)
    filled = min(round(used * columns), columns)
    return Text.assemble(name, " ", ("━" * filled, style), ("─" * (columns - filled), _QUIET), "  ", (text, style))


def _amount(value: Decimal | int | None, unit: str, *, limit: bool = False) -> str:
    if value is None:
        return "no limit"
    return amount(atto(value) if unit == "usd" else int(value), unit, limit=limit)


def _calls(board: Board, width: int) -> list[Text]:
    if not board.calls:
        return []
    head = "last calls".ljust(10) + f"{'input':>11}{'output':>8}{'TTFT':>8}{'time':>9}{'cost':>12}"
    return [Text(_aligned("last calls", head[10:], width), "bold"), *(_call(kept, width) for kept in board.calls)]


def _call(kept: Kept, width: int) -> Text:
    call, usage = kept.call, kept.call.usage
    first = "" if call.time_to_first_token is None else f"{call.time_to_first_token:.2f} s"
    counts = ("", "") if usage is None else (short(usage.input or 0), short(usage.output or 0))
    if call.counted == "pending":
        cost, style = "settled" if kept.settled else "pending", _QUIET if kept.settled else BUSY
    elif call.outcome == DENIED:
        cost, style = "not sent", BAD
    elif not call.billable:
        cost, style = call.error_type or call.outcome, BAD
    elif call.cost.amount is None:
        cost, style = "unpriced", BUSY
    else:
        exact = call.cost.quality not in UNCERTAIN
        cost, style = written(call.cost.amount, exact=exact), "" if call.outcome == "ok" else BUSY
    at = time.strftime("%H:%M:%S", time.gmtime(call.started_at // 10**9))
    seconds = "" if call.outcome == DENIED else f"{call.duration:.2f} s"
    numbers = f"{counts[0]:>11}{counts[1]:>8}{first:>8}{seconds:>9}{_fit(cost, 11).strip():>12}"
    return Text(_aligned(f"  {at} {call.model or '?'}", numbers, width), style)


def _aligned(name: str, numbers: str, width: int) -> str:
    if width < _LEAST_WIDTH + len(numbers) // 2:
        numbers = numbers[-12:]
    return f"{_fit(name, width - len(numbers))}{numbers}"


def _left_and_right(left: Text, right: Text, width: int) -> Text:
    """Return a line with a text at each end; without the right one if they do not fit."""
    gap = width - left.cell_len - right.cell_len
    return _cropped(left, width) if gap < 1 else Text.assemble(left, " " * gap, right)


def _cropped(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text


def _fit(text: str, width: int) -> str:
    """Return a text in exactly `width` columns, without control characters: names from the wire may contain some."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    width = max(width, 1)
    return set_cell_size(text, width) if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


_LONG: Final = 10**4
_UNITS: Final = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def short(count: int) -> str:
    """Return a count in a short form: 1234567 -> 1.2M, 9999 -> 9,999."""
    for size, unit in _UNITS:
        if count >= max(size, _LONG):
            return f"{count / size:.1f}{unit}"
    return f"{count:,}"


def share(part: int, whole: int) -> str:
    """Return a share as a percentage; 0% if the whole is 0."""
    return f"{part / whole:.0%}" if whole else "0%"
