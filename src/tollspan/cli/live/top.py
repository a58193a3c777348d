"""`tollspan top`: what is being spent, live in the terminal, by all programs that write to the ledger.

A panel is a list of lines that fit the screen: `lines(board, width, height)`. It is drawn anew only where something has
changed (see `board.py` for how that is known).
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
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from tollspan.budget.denials.denial import amount
from tollspan.cli.ledger_options import LAST, resolved, with_ledger
from tollspan.cli.live.board import SERVICE_TIER, BoardReader, PanelFilter, data_of, look_once
from tollspan.cli.tables import money, written
from tollspan.cli.times import WhenType
from tollspan.ledger.queries import Ledger, Where
from tollspan.ledger.totals import NOTHING
from tollspan.model.money import atto
from tollspan.model.records import UNCERTAIN
from tollspan.model.text import many
from tollspan.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from decimal import Decimal
    from pathlib import Path

    from tollspan.budget.api import Status
    from tollspan.cli.live.board import Board
    from tollspan.ledger.queries import Group, Kept
    from tollspan.ledger.totals import Figures

EVERY: Final = 0.25
"""Seconds between two looks at the ledger."""

# Colours that can be read on light and on dark: each has a contrast of at least 3.9 to white and to black (WCAG 2.2).
GOOD: Final = "color(28)"
BUSY: Final = "color(130)"
BAD: Final = "color(196)"
ACCENT: Final = "color(31)"
_QUIET: Final = "dim"

_LEAST_WIDTH: Final = 40
_PRINTED: Final = 100
"""Columns where the output is no terminal."""
_LISTED: Final = 10
"""Calls that are printed where the panel is not live."""
_ALL: Final = 10**6


@click.command()
@with_ledger
@click.option("--session", metavar="NAME", help="Only this session, since it was last reset.")
@click.option("--run", metavar="ID", help="Only this run; `last` is the latest one.")
@click.option(
    "--since", type=WhenType(), metavar="WHEN", help="Only calls from then on: 30m, 12h, 7d, today, 2026-11-01."
)
@click.option("--once", is_flag=True, help="Print it once, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON once, and end; amounts are exact decimal texts.")
def top(  # noqa: PLR0913 - one argument per option
    path: Path, session: str | None, run: str | None, since: int | None, *, once: bool, as_json: bool
) -> None:
    r"""Show live what is being spent, by all programs on this machine that write to the ledger.

    Without an option it shows today's calls (UTC). q or Ctrl-C ends it. Where the output is no terminal it is printed
    once.

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
    # Ctrl-C may come at any moment, also in the middle of a drawing.
    with suppress(KeyboardInterrupt), closing(BoardReader(path, scope, load())) as watch:
        _show(console, watch)


def scope_of(path: Path, session: str | None, run: str | None, since: int | None) -> PanelFilter:
    """Return the scope that options mean; `last` stands for the latest run.

    Raises:
        LedgerError: the latest run is asked for and there is none.
    """
    if run == LAST:
        with Ledger(path) as ledger:
            run = resolved(ledger, Where(run=LAST)).run
    return PanelFilter(session=session, run=run, since=since)


def _show(console: Console, watch: BoardReader) -> None:
    """Draw until the user ends it."""
    with _keys() as wait, Live(console=console, screen=True, auto_refresh=False) as live:
        board, drawn = None, None
        while True:
            board = watch.look() or board
            size = console.size
            if board is not None and (board, size) != drawn:
                drawn = board, size
                live.update(Text("\n").join(lines(board, size.width, size.height)), refresh=True)
            if wait(EVERY) in {"q", "Q", "\x1b"}:
                return


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Return a function that waits for a key, for so many seconds at most; it gives "" where none came."""
    try:
        import termios
        import tty
    except ImportError:  # Windows: Ctrl-C ends it
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
    """Return the panel as lines that fit a screen: what matters most is kept where there is little room."""
    width = max(width, _LEAST_WIDTH)
    head = list(_head(board, width))
    if board.waiting:
        return [*head, Text(), Text("No ledger yet. Begin one:  tollspan run -- python app.py", ACCENT)][:height]
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
_HEADING: Final = 2  # an empty line and the section's head: nothing to see yet


def _shares(wanted: Sequence[int], room: int) -> list[int]:
    """Distribute lines: each section gets what it wants as long as the others keep their part; models get most."""
    given = [0] * len(wanted)
    while room > 0 and given != list(wanted):
        for place, want in enumerate(wanted):
            more = min(_WEIGHTS[place], want - given[place], room)
            given[place] += more
            room -= more
    return given


def _head(board: Board, width: int) -> Iterator[Text]:
    total = board.total
    at = time.strftime("%H:%M:%S", time.gmtime(board.at // 10**9))
    title = Text.assemble(("tollspan", "bold"), "  ", (board.scope, ACCENT))
    if board.read < 1:
        title.append(f"  reading earlier calls: {board.read:.0%}", BUSY)
    yield _both(title, Text(f"{at} UTC   q quits", _QUIET), width)
    spent = Text.assemble((money(total.spend), "bold"), f"  {many(total.calls, 'call')}  {short(total.tokens)} tokens")
    if total.unpriced:
        spent.append(f"  + {total.unpriced:,} unpriced", BUSY)
    rate = Text(
        f"{board.calls_per_minute:,}/min  {money(board.spend_per_hour)}/h", ACCENT if board.calls_per_minute else _QUIET
    )
    yield _both(spent, rate, width)
    said = [
        (
            total.cache_read,
            f"cache {share(total.cache_read, total.input)} of input, {money(total.savings)} saved",
            _QUIET,
        ),
        (total.pending, f"{total.pending:,} pending", BUSY),
        (total.failed - total.denied, f"{total.failed - total.denied:,} failed", BAD),
        (total.denied, f"{total.denied:,} denied", BAD),
        (total.retries, many(total.retries, "retry", "retries"), BUSY),
        (total.broken, f"{total.broken:,} broke off ({money(total.broken_spend)})", BUSY),
    ]
    line = Text()
    for count, words, style in said:
        if count > 0:
            line.append("  " if line else "").append(words, style)
    yield _cropped(line, width)


def _models(board: Board, width: int) -> list[Text]:
    """Return the models under their providers, dearest first."""
    by_provider: dict[str, list[Group]] = {}
    for group in board.models:
        by_provider.setdefault(group.key[0], []).append(group)
    sums = {name: sum((group.figures for group in groups), NOTHING) for name, groups in by_provider.items()}
    found = [_row(("model", "calls", "input", "cached", "output", "cost"), width, "bold")]
    for provider, figures in sorted(sums.items(), key=lambda item: -item[1].spend):
        found.append(_row((provider, *_numbers(figures)), width, ACCENT))
        found += [
            _row((f"  {group.key[1] or '?'}", *_numbers(group.figures)), width) for group in by_provider[provider]
        ]
    return found if board.models else [Text("no calls yet", _QUIET), Text()]


def _numbers(figures: Figures) -> tuple[str, ...]:
    cost = money(figures.spend)
    if figures.unpriced:
        cost = "unpriced" if figures.unpriced == figures.calls else f"{cost}+?"
    counts = (figures.input, figures.cache_read, figures.output)
    return (f"{figures.calls:,}", *map(short, counts), cost)


_WIDTHS: Final = (7, 8, 8, 8, 12)


def _row(cells: Sequence[str], width: int, style: str = "") -> Text:
    """Write a name and numbers; where there is little room, only the name, calls and cost."""
    numbers = list(zip(cells[1:], _WIDTHS, strict=True))
    if width < _LEAST_WIDTH + sum(_WIDTHS) // 2:
        numbers = [numbers[0], numbers[-1]]
    text = "".join(f"{cell:>{room}}" for cell, room in numbers)
    return Text(f"{_fit(cells[0], width - len(text))}{text}", style)


_USUAL: Final = frozenset({"default", "standard", "auto", "on_demand"})
"""Service tiers that cost what everybody pays: where there are only these, they are not worth a line."""


def _tiers(board: Board, width: int) -> list[Text]:
    found = []
    for name, tiers in board.tiers.items():
        if name == SERVICE_TIER and tiers.keys() <= _USUAL:
            continue
        found.append(_row((name, "calls", "input", "cached", "output", "cost"), width, "bold"))
        found += [_row((f"  {value}", *_numbers(figures)), width) for value, figures in tiers.items()]
    return found


def _budgets(board: Board, width: int) -> list[Text]:
    if board.budgets_unknown is not None:
        return [Text("budgets", "bold"), _cropped(Text(f"  not known: {board.budgets_unknown}", BAD), width)]
    if not board.budgets:
        return []
    return [Text("budgets", "bold"), *(_bar(item, width) for item in board.budgets)]


def _bar(item: Status, width: int) -> Text:
    """Draw a budget: how full it is in a bar, and in words, for colour alone says nothing to some."""
    part = item.utilization or 0.0
    style = BAD if part >= 0.9 else BUSY if part >= 0.5 else GOOD  # noqa: PLR2004 - the shares of the status line
    words = f"{part:4.0%}  {_amount(item.spent, item.unit)} of {_amount(item.limit, item.unit, limit=True)}"
    name = _fit(f"  {unquote(item.counter)}", max(width // 3, 16))
    room = max(width - len(name) - len(words) - 3, 4)
    filled = min(round(part * room), room)
    return Text.assemble(name, " ", ("━" * filled, style), ("─" * (room - filled), _QUIET), "  ", (words, style))


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
    elif not call.billable:
        cost, style = call.error_type or call.outcome, BAD
    elif call.cost.amount is None:
        cost, style = "unpriced", BUSY
    else:
        exact = call.cost.quality not in UNCERTAIN
        cost, style = written(call.cost.amount, exact=exact), "" if call.outcome == "ok" else BUSY
    at = time.strftime("%H:%M:%S", time.gmtime(call.started_at // 10**9))
    numbers = f"{counts[0]:>11}{counts[1]:>8}{first:>8}{call.duration:>7.2f} s{_fit(cost, 11).strip():>12}"
    return Text(_aligned(f"  {at} {call.model or '?'}", numbers, width), style)


def _aligned(name: str, numbers: str, width: int) -> str:
    if width < _LEAST_WIDTH + len(numbers) // 2:
        numbers = numbers[-12:]
    return f"{_fit(name, width - len(numbers))}{numbers}"


def _both(left: Text, right: Text, width: int) -> Text:
    """Write at the left and the right end of a line; the right one is left out where there is no room."""
    gap = width - left.cell_len - right.cell_len
    return _cropped(left, width) if gap < 1 else Text.assemble(left, " " * gap, right)


def _cropped(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text


def _fit(text: str, width: int) -> str:
    """Return a text in exactly so many columns; a model's name comes off the wire, and must not steer the terminal."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    width = max(width, 1)
    return set_cell_size(text, width) if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


_LONG: Final = 10**4
_UNITS: Final = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def short(count: int) -> str:
    """Return a count in few letters: 1234567 -> 1.2M, 9999 -> 9,999."""
    for size, unit in _UNITS:
        if count >= max(size, _LONG):
            return f"{count / size:.1f}{unit}"
    return f"{count:,}"


def share(part: int, whole: int) -> str:
    """Return a share in per cent."""
    return f"{part / whole:.0%}" if whole else "0%"
