"""`tollspan import`: compares the ledger with exports of providers or of an OpenTelemetry Collector."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tollspan.cli.ledger_options import with_ledger
from tollspan.cli.tables import console, money, table
from tollspan.cli.times import day
from tollspan.ledger import provider_exports
from tollspan.ledger.queries import Ledger
from tollspan.model.money import usd
from tollspan.model.text import many

if TYPE_CHECKING:
    from tollspan.ledger.provider_exports import Comparison, ExportLine


@click.command("import")
@with_ledger
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Write JSON; amounts are exact decimal strings.")
def import_(path: Path, files: tuple[Path, ...], *, as_json: bool) -> None:
    r"""Compare the ledger with provider exports or with spans.

    FILES are JSON from the providers' admin APIs (OpenAI: organization costs and usage; Anthropic: cost report and
    messages usage report), or OTLP JSON from a Collector's file exporter. Imported figures are stored separately and
    never added to the recorded calls.

    \b
    Example:
      tollspan import openai-costs.json
    """
    exported: list[ExportLine] = []
    for file in files:
        exported += provider_exports.read(file.read_text("utf-8"), str(file))
    provider_exports.keep(path, exported)
    exported.sort(key=lambda line: line.source)
    data: list[Any] = []
    with Ledger(path) as ledger:
        for source, group in groupby(exported, key=lambda line: line.source):
            lines, totals = provider_exports.compare(ledger, list(group))
            if as_json:
                data.append(
                    {"source": source, "total": [_data(line) for line in totals], "by": [_data(line) for line in lines]}
                )
            else:
                _show(source, lines, totals)
    if as_json:
        click.echo(json.dumps(data, indent=1))


def _show(source: str, lines: list[Comparison], totals: list[Comparison]) -> None:
    out = console()
    out.print()
    out.print(source, style="bold")
    result = table(("day", "provider", "model", "calls", "ours", "tokens", "ours", "cost", "ours", "drift"), 3)
    for line in [*lines, *totals]:
        theirs, ours = line.stated, line.ledger
        tokens = None if theirs.input is None and theirs.output is None else (theirs.input or 0) + (theirs.output or 0)
        result.add_row(
            "all days" if line.day is None else day(line.day),
            line.provider,
            line.model,
            *_side_by_side(theirs.calls, ours.calls),
            *_side_by_side(tokens, ours.tokens),
            *(("", "") if theirs.amount is None else (money(theirs.amount), money(ours.spend))),
            _drift(line),
            style="bold" if line.day is None else None,
        )
    out.print(result)
    for line in totals:
        if line.ledger.unpriced:
            calls = many(line.ledger.unpriced, "call")
            out.print(f"  without a known price at {line.provider}: {calls} (tollspan reprice --unpriced)")


def _side_by_side(theirs: int | None, ours: int) -> tuple[str, str]:
    return ("", "") if theirs is None else (f"{theirs:,}", f"{ours:,}")


def _drift(line: Comparison) -> str:
    return "-" if line.drift is None else f"{line.drift:+.2%}"


def _data(line: Comparison) -> dict[str, Any]:
    theirs, ours = line.stated, line.ledger
    return {
        "day": None if line.day is None else day(line.day),
        "provider": line.provider,
        "model": line.model or None,
        "said": {
            "calls": theirs.calls,
            "input": theirs.input,
            "output": theirs.output,
            "cost_usd": None if theirs.amount is None else f"{usd(theirs.amount):f}",
        },
        "ledger": {"calls": ours.calls, "input": ours.input, "output": ours.output, "cost_usd": f"{usd(ours.spend):f}"},
        "unpriced": ours.unpriced,
        "drift": line.drift,
    }
