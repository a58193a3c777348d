"""`tollspan calls` and `tollspan call`: a list of single calls, and one call explained like an invoice."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import click

from tollspan.budget.denials.explanation import explained, refused_line
from tollspan.cli.ledger_options import resolved, with_conditions, with_ledger
from tollspan.cli.reports.call_tables import calls_table, refusals_table
from tollspan.cli.reports.export import flat
from tollspan.cli.tables import ROW_COUNT, console, money, table
from tollspan.cli.times import shown
from tollspan.ledger.invoice_lines import lines_of
from tollspan.ledger.queries import Ledger
from tollspan.ledger.repricing import repricings_of
from tollspan.model.money import usd
from tollspan.model.records import DENIED, UNCERTAIN

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from tollspan.ledger.conditions import Where
    from tollspan.ledger.invoice_lines import InvoiceLine
    from tollspan.ledger.queries import Kept
    from tollspan.model.records import Call

_MILLION: Final = 1_000_000

_SORT_HELP: Final = "Sort by time, the newest first, or by cost, the most expensive first."
_USED: Final = {"estimated": "an estimate", "floor": "a lower bound"}
_QUALITIES: Final = {
    "measured": "usage as the provider reported it, priced here",
    "provider": "the cost that the provider stated",
    "estimated": "the provider reported no usage: an estimate",
    "floor": "at least this much: a part of the billed usage was not seen",
    "unpriced": "the usage is known, but it has no price",
}


@click.command()
@with_ledger
@with_conditions
@click.option("--denied", is_flag=True, help="Only calls that a budget refused, with the reasons.")
@click.option("--limit", type=ROW_COUNT, default=20, show_default=True, help="Maximum rows.")
@click.option("--sort", type=click.Choice(["time", "cost"]), default="time", show_default=True, help=_SORT_HELP)
@click.option("--dearest", is_flag=True, hidden=True, help="The old spelling of --sort cost.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON; amounts are exact decimal strings.")
def calls(  # noqa: PLR0913 - one argument per option
    path: Path, where: Where, limit: int, *, denied: bool, sort: str, dearest: bool, as_json: bool
) -> None:
    r"""List single calls.

    The number in the first column identifies a call: tollspan call NUMBER explains it.

    \b
    Examples:
      tollspan calls --session chat-17
      tollspan calls --since 24h --sort cost --limit 5
      tollspan calls --denied --since 7d
    """
    with Ledger(path) as ledger:
        where = resolved(ledger, where)
        if denied:
            where = replace(where, outcome=DENIED)
        rows = ledger.calls(where, limit, most_expensive=dearest or sort == "cost")
        refused = ledger.refused(where) if denied else []
    if as_json:
        click.echo(json.dumps([flat(kept) for kept in rows], indent=1))
        return
    out = console()
    (refusals_table if denied else calls_table)(out, rows)
    for calls in refused:
        out.print(refused_line(calls), soft_wrap=True)


@click.command()
@with_ledger
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Write JSON; amounts are exact decimal strings.")
def call(path: Path, name: str, *, as_json: bool) -> None:
    r"""Explain the cost of one call like an invoice.

    Each line is a count, its price and the amount.

    ID is the number that tollspan calls shows, or an id from a span: the id of the call (tollspan.call.id), the trace,
    the span or the response.

    \b
    Examples:
      tollspan call 1234
      tollspan call 0af7651916cd43dd8448eb211c80319c
    """
    with Ledger(path) as ledger:
        rows = ledger.call(name)
        if not rows:
            raise click.ClickException(f"ledger {path}: no call {name!r}; tollspan calls lists the latest calls")
        if as_json:
            click.echo(json.dumps([flat(kept) for kept in rows], indent=1))
            return
        out = console()
        for kept in rows:
            _explain(out, ledger, kept)


def _explain(out: Console, ledger: Ledger, kept: Kept) -> None:
    call = kept.call
    out.print(f"[bold]call {kept.n}[/bold]  {call.id}", markup=True)
    for name, text in [*_facts(call), *_settled(ledger, call)]:
        out.print(f"  {name:<14}{text}", soft_wrap=True)
    lines = lines_of(call)
    if lines:
        invoice = table(("", "count", "unit", "for 1M", "US dollars"), 1)
        for line in lines:
            invoice.add_row(line.kind, _counted(line), line.unit, _rate(line), f"{usd(line.amount):f}")
        out.print(invoice)
    out.print(_total(kept), markup=True)
    for note in _notes(call) if call.outcome != DENIED else ():
        out.print(f"  {note}")
    attempts = ledger.attempts(call.operation_id)
    if len(attempts) > 1:
        out.print(f"\nattempts of this operation: {len(attempts)}")
        calls_table(out, attempts)
    for repricing in repricings_of(ledger, kept.n):
        cost = "no price" if repricing.amount is None else f"${usd(repricing.amount):f}"
        out.print(f"  repriced {shown(repricing.made_at)} by {repricing.table_version}: {cost}")
    out.print()


def _facts(call: Call) -> list[tuple[str, str]]:
    requested = f" (requested: {call.request_model})" if call.request_model not in {None, call.model} else ""
    denied = call.outcome == DENIED
    times = [
        f"{seconds:.3f} s {name}"
        for name, seconds in (("to the first token", call.time_to_first_token), ("in all", call.duration))
        if seconds is not None and not denied
    ]
    facts: list[tuple[str, str | None]] = [
        ("when", ", ".join((f"{shown(call.started_at)} UTC", *times))),
        ("model", f"{call.provider} {call.model or '?'}{requested}, {call.operation}"),
        ("host", call.server_address),
        ("terms", ", ".join(filter(None, (call.tier, call.geography, call.speed, call.region))) or None),
        ("outcome", _outcome(call)),
        *([] if call.refusal is None else explained(call.refusal)),
        ("response", call.response_id),
        ("requests", _requests(call)),
        ("trace", f"{call.trace_id} span {call.span_id}" if call.trace_id else None),
        ("for", ", ".join(f"{name.removeprefix('tag.')}={value}" for name, value in call.attribution.items()) or None),
    ]
    return [(name, text) for name, text in facts if text is not None]


def _outcome(call: Call) -> str:
    if call.outcome == DENIED:
        return "denied: it was never sent"
    return call.outcome if call.error_type is None else f"{call.outcome} ({call.error_type})"


def _settled(ledger: Ledger, call: Call) -> list[tuple[str, str]]:
    """Return the pending call that a call settles: a batch, or a request for a background response."""
    pending = ledger.call(call.settles) if call.settles is not None else []
    return [("settles", f"call {kept.n}, {kept.call.response_id}") for kept in pending[:1]]


def _requests(call: Call) -> str | None:
    requests = None if call.usage is None or call.billable else call.usage.units.get("requests")
    return None if requests is None else f"{requests:,}"


def _counted(line: InvoiceLine) -> str:
    return "" if line.count is None else f"{line.count:,}"


def _rate(line: InvoiceLine) -> str:
    """Return the price of one unit of a line, for tokens of a million, computed from its amount and count.

    Amounts are rounded to whole atto-dollars, so 6 decimals are exact.
    """
    if not line.count:
        return ""
    rate = usd(line.amount) / Decimal(str(line.count))
    per = rate * _MILLION if line.unit == "tokens" else rate
    text = f"{per.quantize(Decimal('0.000001')).normalize():f}"
    return f"${text}" if line.unit == "tokens" else f"${text} each"


def _total(kept: Kept) -> str:
    call, cost = kept.call, kept.call.cost
    if kept.settled:
        return "[bold]settled[/bold]  it was pending; its cost is in the calls that settled it"
    if call.counted == "pending":
        return "[bold]pending[/bold]  the provider is still working on it; a later request reports its cost"
    if call.outcome == DENIED:
        return "[bold]not sent[/bold]  a budget refused it, so it cost nothing"
    if not call.billable:
        return "[bold]$0[/bold]  the provider does not charge for an attempt that it did not complete"
    if cost.amount is None:
        used = f"; its usage is {_USED[call.usage_quality]}" if call.usage_quality in _USED else ""
        return f"[bold]unpriced[/bold]  not included in any total (tollspan reprice --unpriced tries again){used}"
    return f"[bold]{'~' if cost.quality in UNCERTAIN else ''}${usd(cost.amount):f}[/bold]  {_QUALITIES[cost.quality]}"


def _notes(call: Call) -> list[str]:
    cost = call.cost
    sources = (("price of", cost.price_key), ("found by:", cost.rule), ("table", cost.table_version))
    computed = None if cost.computed == cost.amount else cost.computed
    notes: list[str | None] = [
        ", ".join(f"{name} {value}" for name, value in sources if value) or None,
        None if computed is None else f"computed here: ${usd(computed):f}",
        f"between ${usd(cost.low or 0):f} and ${usd(cost.high or 0):f}" if cost.high is not None else None,
        f"{money(cost.savings)} saved by the provider's cache" if cost.savings > 0 else None,
        f"{money(call.avoided)} avoided: served from the cache of {call.cached_by}"
        if call.avoided is not None
        else None,
        f"not included, because the response does not report it: {', '.join(cost.missing)}" if cost.missing else None,
        cost.note,
    ]
    return [note for note in notes if note is not None]
