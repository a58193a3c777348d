"""`tollspan prices`: look up a price, explain a cost, and verify, compare or refresh the price table.

Exit status: 0 on success, 1 if there is no price or the table has anomalies, 2 for a usage error.
"""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.table import Table

from tollspan.api.pricing import labels_of
from tollspan.model.errors import PriceTableError
from tollspan.model.money import usd
from tollspan.model.records import UNITS, Billable, Usage
from tollspan.model.text import many
from tollspan.prices import bundled
from tollspan.prices.compare import diff as difference
from tollspan.prices.compare import verify as findings
from tollspan.prices.fields import TOKEN_FIELDS, YOCTO
from tollspan.prices.invoice import Invoice, invoice
from tollspan.prices.loader import read_table
from tollspan.settings import load
from tollspan.setup.prices import price_source
from tollspan.setup.providers import active_providers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tollspan.prices import PriceTable
    from tollspan.prices.compare import Change
    from tollspan.prices.row import Row
    from tollspan.settings import Settings

MILLION: Final = 1_000_000
SHOWN: Final = 4
"""Prices of one name that are shown without `--all`."""

OWN: Final = "own"
"""The last word of a rule that applies custom prices; also the label of a model that only custom prices list."""

COUNTS: Final = tuple(field.name for field in fields(Usage) if field.name != "units")

as_json = click.option("--json", "machine", is_flag=True, help="Print JSON, for programs.")
for_provider = click.option(
    "--provider",
    metavar="NAME",
    help="A provider's key (tollspan providers), its gen_ai.provider.name, or a LiteLLM label.",
)


@click.group()
def prices() -> None:
    """Look up prices, explain costs and manage the price table."""


def _active_table() -> PriceTable:
    return price_source(load())()


def _rate(field: str, price: int) -> str:
    """Return a price as text: tokens per million, everything else per unit."""
    tokens = field.partition(">")[0].partition("/")[0].partition("@")[0] in TOKEN_FIELDS
    amount = Decimal(price * (MILLION if tokens else 1)) / YOCTO
    return f"{amount.normalize():f} USD per {'million tokens' if tokens else _single(field)}"


def _single(unit: str) -> str:
    """Return the singular of a unit's name: web_searches -> web search."""
    word = unit.removesuffix("es") if unit.endswith(("ches", "xes")) else unit.removesuffix("s")
    return word.replace("_", " ")


@prices.command()
@click.argument("model")
@for_provider
@click.option("--region", metavar="REGION", help="The cloud region, if prices differ by region.")
@click.option("--all", "everything", is_flag=True, help=f"Show every price, not only the first {SHOWN}.")
@as_json
def lookup(model: str, provider: str | None, region: str | None, *, everything: bool, machine: bool) -> None:
    r"""Show the price of MODEL, the key that lists it, and the rule that matched.

    Without --provider, every provider that lists the model under exactly this name is shown. Providers with the same
    price are shown together.

    \b
    Examples:
      tollspan prices lookup gpt-5.5 --provider openai
      tollspan prices lookup us.anthropic.claude-opus-5 --provider bedrock
    """
    settings = load()
    table = price_source(settings)()
    _check(table, provider, settings)
    matches = (
        _everywhere(table, model, region, settings.prices) if provider is None else _at(table, model, provider, region)
    )
    if machine:
        listed = [_as_json(*match) for match in matches]
        click.echo(json.dumps({"model": model, "table": table.version, "prices": listed}))
    else:
        _print_prices(model, matches, everything=everything)
        click.echo(f"table {table.version}")
    if not matches:
        where = f"at {provider}" if provider else "at any provider"
        click.echo(
            f"no price for {model!r} {where}: its calls are unpriced. "
            "Set one in tollspan.toml: [[prices]] model = ..., unit = ..., input = ..., output = ...",
            err=True,
        )
        raise SystemExit(1)


def _by_price(model: str, matches: list[tuple[str, Row, str]]) -> list[list[tuple[str, Row, str]]]:
    """Group matches with the same price; the model's exact name comes first, then the price of most providers."""
    groups: dict[str, list[tuple[str, Row, str]]] = {}
    for match in sorted(matches, key=lambda match: match[:1]):
        groups.setdefault(repr(sorted(match[1].prices.items())), []).append(match)
    return sorted(groups.values(), key=lambda group: (all(row.key != model for _, row, _ in group), -len(group)))


def _print_prices(model: str, matches: list[tuple[str, Row, str]], *, everything: bool) -> None:
    groups = _by_price(model, matches)
    for group in groups if everything else groups[:SHOWN]:
        _print_price(model, group)
    if not everything and len(groups) > SHOWN:
        labels = ", ".join(sorted({label for group in groups[SHOWN:] for label, *_ in group}))
        click.echo(f"{len(groups) - SHOWN} more prices, at {labels}: --all shows them, --provider NAME one of them")


def _print_price(model: str, group: list[tuple[str, Row, str]]) -> None:
    for label, row, rule in group:
        click.echo(f"{model} at {label}: {row.key} (rule: {rule})")
    prices = group[0][1].prices
    for field, price in sorted(prices.items()):
        click.echo(f"  {field:28} {_rate(field, price)}")
    if not prices:
        click.echo("  listed without a price: its calls are unpriced")


def _check(table: PriceTable, provider: str | None, settings: Settings) -> None:
    """Reject an unknown provider: without this check, a misspelled name looks like a missing price.

    Raises:
        click.BadParameter: the provider is unknown; the message suggests similar names.
    """
    custom = {str(entry["provider"]) for entry in settings.prices if entry.get("provider")}
    known = {row.label for row in table} | custom
    for key, entry in active_providers(settings).items():
        known |= {key, entry.name}
    if provider is None or provider in known:
        return
    near = get_close_matches(provider, sorted(known), 3)
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    message = f"unknown provider {provider!r}{meant} (tollspan providers lists them)"
    raise click.BadParameter(message, param_hint="--provider")


def _at(table: PriceTable, model: str, provider: str, region: str | None) -> list[tuple[str, Row, str]]:
    """Return the price of a model at one provider."""
    billable = Billable(usage=Usage(), price_providers=labels_of(provider), model=model, region=region)
    tariff = table.tariff(billable, model, None, datetime.now(UTC))  # includes custom prices
    return [] if tariff is None else [(tariff.row.label, tariff.row, tariff.rule)]


def _everywhere(
    table: PriceTable, model: str, region: str | None, custom: Sequence[Mapping[str, Any]]
) -> list[tuple[str, Row, str]]:
    """Return the prices of a model at every provider that lists it, and its `custom` prices, those of `[[prices]]`."""
    listed = [(row.label, row, "exact") for row in table if model in {row.key, row.key.rpartition("/")[2]}]
    named = {str(entry.get("provider") or OWN) for entry in custom if entry.get("model") == model}
    labels = {label for label, *_ in listed} | (named - {OWN})
    overrides = [
        (label, row, rule)
        for label in sorted(labels or named)
        for _, row, rule in _at(table, model, label, region)
        if rule.endswith(OWN)
    ]
    replaced = {(label, row.key) for label, row, _ in overrides}
    return overrides + [match for match in listed if (match[0], match[1].key) not in replaced]


def _as_json(label: str, row: Row, rule: str) -> dict[str, Any]:
    rates = {field: str(Decimal(price) / YOCTO) for field, price in sorted(row.prices.items())}
    return {"provider": label, "key": row.key, "rule": rule, "usd": rates, "traits": dict(row.traits)}


def _counts(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with an option for every count of a usage."""
    for name in reversed(COUNTS):
        option = click.option(
            f"--{name.replace('_', '-')}", type=click.IntRange(min=0), metavar="N", hidden="_" in name
        )
        command = option(command)
    return command


@prices.command()
@click.argument("model")
@click.option("--provider", metavar="NAME", required=True, help="As for lookup.")
@click.option("--tier", metavar="TIER", help="The service tier of the response: flex, priority, batch...")
@click.option("--geography", metavar="GEO", help="The geography of the inference (Anthropic's inference_geo).")
@click.option("--speed", metavar="SPEED", help="Anthropic's speed: standard or fast.")
@click.option("--region", metavar="REGION", help="The cloud region, if prices differ by region.")
@click.option("--unit", "units", metavar="NAME=N", multiple=True, help=f"Other units: {', '.join(sorted(UNITS))}.")
@click.option("--at", metavar="TIME", type=click.DateTime(), help="The time of the call, in UTC.  [default: now]")
@_counts
@as_json
def explain(
    model: str, provider: str, units: tuple[str, ...], at: datetime | None, *, machine: bool, **counts_and_traits: Any
) -> None:
    r"""Price a usage line by line, like an invoice.

    Input includes cache reads and writes, output includes reasoning. Each part has an option: --cache-read,
    --cache-write, --cache-write-5m, --cache-write-1h, --reasoning, --input-audio, --output-image...

    \b
    Example:
      tollspan prices explain claude-haiku-4-5 --provider anthropic --input 1500 --cache-read 1024 --output 345
    """
    usage = Usage(units=dict(map(_unit, units)), **{name: counts_and_traits[name] for name in COUNTS})
    billable = Billable(
        usage=usage,
        price_providers=labels_of(provider),
        model=model,
        **{name: counts_and_traits[name] for name in ("tier", "geography", "speed", "region")},
    )
    settings = load()
    table = price_source(settings)()
    _check(table, provider, settings)
    bill = invoice(billable, table, at.replace(tzinfo=UTC) if at else datetime.now(UTC))
    if machine:
        click.echo(json.dumps(_invoice_as_json(model, bill)))
    else:
        _print_invoice(model, provider, bill)
    raise SystemExit(bill.cost.amount is None)


def _unit(text: str) -> tuple[str, Decimal]:
    name, sign, count = text.partition("=")
    if name not in UNITS or not sign:
        raise click.BadParameter(
            f"expected NAME=N, got {text!r}; names are {', '.join(sorted(UNITS))}", param_hint="--unit"
        )
    try:
        return name, Decimal(count)
    except ArithmeticError:
        raise click.BadParameter(f"{count!r} is not a number", param_hint="--unit") from None


def _invoice_as_json(model: str, bill: Invoice) -> dict[str, Any]:
    cost = bill.cost
    lines = [
        {
            "kind": item.kind,
            "count": str(item.count),
            "rate_usd": None if item.rate is None else str(Decimal(item.rate) / YOCTO),
            "amount_usd": str(usd(item.amount)),
            "key": item.key,
        }
        for item in bill.items
    ]
    amount = None if cost.amount is None else str(usd(cost.amount))
    facts = {"quality": cost.quality, "rule": cost.rule, "table": cost.table_version, "note": cost.note}
    return {"model": model, "lines": lines, "amount_usd": amount, **facts, "missing": cost.missing}


def _print_invoice(model: str, provider: str, bill: Invoice) -> None:
    cost = bill.cost
    table = Table("", "count", "rate", "USD", title=f"{model} at {provider}", title_justify="left")
    for item in bill.items:
        kind = f"{item.kind} ({item.part})" if item.part else item.kind
        rate = "no price" if item.rate is None else _rate(item.kind.replace("cache_write_5m", "cache_write"), item.rate)
        table.add_row(kind, f"{item.count:,}", rate, f"{usd(item.amount).normalize():f}")
    total = "unpriced" if cost.amount is None else f"{usd(cost.amount).normalize():f}"
    table.add_section()
    table.add_row("total", "", "", total)
    console = Console(markup=False)
    console.print(table)
    facts = {"price key": cost.price_key, "rule": cost.rule, "table": cost.table_version, "note": cost.note}
    for name, value in facts.items():
        if value:
            console.print(f"{name}: {value}", highlight=False)
    if cost.missing:
        console.print(f"not included, because it has no price or was not reported: {', '.join(cost.missing)}")


@prices.command()
@as_json
def verify(*, machine: bool) -> None:
    """Validate the active price table and report anomalies.

    Checks rules every price list obeys: a 1-hour cache write costs about twice the input, a batch costs no more than
    a call, no price is 1,000 times too high...
    """
    table = _active_table()
    anomalies = findings(table)
    if machine:
        pairs = [[anomaly.key, anomaly.what] for anomaly in anomalies]
        click.echo(json.dumps({"table": table.version, "findings": pairs}))
    else:
        for anomaly in anomalies:
            click.echo(f"{anomaly.key}: {anomaly.what}")
        click.echo(f"table {table.version}: {len(table):,} entries, {many(len(anomalies), 'anomaly', 'anomalies')}")
    raise SystemExit(bool(anomalies))


@prices.command()
@click.argument("before", required=False)
@click.argument("after", required=False)
@as_json
def diff(before: str | None, after: str | None, *, machine: bool) -> None:
    """Compare two price tables: LiteLLM files or snapshots.

    BEFORE is the bundled table by default, AFTER the active one.
    """
    old = _table(before) if before else bundled()
    new = _table(after) if after else _active_table()
    changes = difference(old, new)
    if machine:
        changed = _changes_as_json(changes.changed)
        click.echo(json.dumps({"added": changes.added, "removed": changes.removed, "changed": changed}))
        return
    _print_changes("changed", changes.changed)
    for word, keys in (("added", changes.added), ("removed", changes.removed)):
        for key in keys:
            click.echo(f"{word}: {key}")
    click.echo(f"{len(changes.added)} added, {len(changes.removed)} removed, {len(changes.changed)} prices changed")


def _table(path: str) -> PriceTable:
    try:
        return read_table(Path(path).read_bytes(), path)[0]
    except (OSError, PriceTableError) as error:
        raise click.ClickException(f"{path}: {error}") from error


def _usd(price: int | None) -> str | None:
    return None if price is None else str(Decimal(price) / YOCTO)


def _changes_as_json(changes: Sequence[Change]) -> list[list[str | None]]:
    return [[change.key, change.field, _usd(change.before), _usd(change.after)] for change in changes]


def _print_changes(word: str, changes: Sequence[Change]) -> None:
    for change in changes:
        before, after = (("none" if p is None else _rate(change.field, p)) for p in (change.before, change.after))
        factor = change.factor
        times = f" (x{float(factor):.3g})" if isinstance(factor, Fraction) and factor != 1 else ""
        click.echo(f"{word}: {change.key} {change.field}: {before} -> {after}{times}")


@prices.command()
@click.option("--pricing-url", metavar="URL", help="The https URL to fetch.  [default: TOLLSPAN_PRICING_URL]")
@click.option("--accept", metavar="KEY", multiple=True, help="Accept any change of this entry; may be repeated.")
@as_json
def refresh(pricing_url: str | None, accept: tuple[str, ...], *, machine: bool) -> None:
    """Fetch the price table from its URL now, check each entry, and report the changes.

    Entries that jump, vanish or fall to zero keep their earlier price and are listed; --accept KEY takes the new one.
    """
    options: dict[str, Any] = {"pricing_url": pricing_url} if pricing_url else {}
    source = price_source(load(**options))
    console = Console(stderr=True)
    try:
        with console.status("fetching the price table..."):
            result = source.refresh(accept)
    except PriceTableError as error:
        raise click.ClickException(str(error)) from error
    if machine:
        held = _changes_as_json(result.quarantined)
        facts = {"table": result.table.version, "unchanged": result.unchanged, "added": result.added}
        click.echo(json.dumps({**facts, "quarantined": held, "retired": result.retired, "refused": result.refused}))
        return
    _print_changes("kept at its earlier price", result.quarantined)
    for line in result.refused:
        click.echo(f"refused: {line}")
    added = f"{len(result.added)} added, {len(result.retired)} no longer listed but kept"
    state = "unchanged" if result.unchanged else added
    held_back = f"{len(result.quarantined)} held back, {len(result.refused)} refused"
    click.echo(f"table {result.table.version}: {state}, {held_back}")
