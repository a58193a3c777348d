"""`tollspan import`: compares the ledger with what providers, or other collectors, say was used."""

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
@click.option("--json", "as_json", is_flag=True, help="Write JSON; amounts are exact decimal texts.")
def import_(path: Path, files: tuple[Path, ...], *, as_json: bool) -> None:
    r"""Compare the ledger with exports of providers, or with spans; say by how much the two differ.

    FILES are JSON as the providers' interfaces for administrators answer (OpenAI: organization costs and usage;
    Anthropic: cost report and messages usage report), or OTLP JSON as a Collector's file exporter writes it. What they
    say is kept beside the rows, and never added to them.

    \b
    Example:
      tollspan import openai-costs.json
    """
    said: list[ExportLine] = []
    for file in files:
        said += provider_exports.read(file.read_text("utf-8"), str(file))
    provider_exports.keep(path, said)
    said.sort(key=lambda statement: statement.source)
    found: list[Any] = []
    with Ledger(path) as ledger:
        for source, group in groupby(said, key=lambda statement: statement.source):
            lines, totals = provider_exports.compare(ledger, list(group))
            if as_json:
                found.append(
                    {"source": source, "total": [_data(line) for line in totals], "by": [_data(line) for line in lines]}
                )
            else:
                _show(source, lines, totals)
    if as_json:
        click.echo(json.dumps(found, indent=1))


def _show(source: str, lines: list[Comparison], totals: list[Comparison]) -> None:
    out = console()
    out.print()
    out.print(source, style="bold")
    made = table(("day", "provider", "model", "calls", "ours", "tokens", "ours", "cost", "ours", "drift"), 3)
    for line in [*lines, *totals]:
        said, ours = line.stated, line.ledger
        tokens = None if said.input is None and said.output is None else (said.input or 0) + (said.output or 0)
        made.add_row(
            "all days" if line.day is None else day(line.day),
            line.provider,
            line.model,
            *_beside(said.calls, ours.calls),
            *_beside(tokens, ours.tokens),
            *(("", "") if said.amount is None else (money(said.amount), money(ours.spend))),
            _drift(line),
            style="bold" if line.day is None else None,
        )
    out.print(made)
    for line in totals:
        if line.ledger.unpriced:
            calls = many(line.ledger.unpriced, "call")
            out.print(f"  without a known price at {line.provider}: {calls} (tollspan reprice --unpriced)")


def _beside(said: int | None, ours: int) -> tuple[str, str]:
    return ("", "") if said is None else (f"{said:,}", f"{ours:,}")


def _drift(line: Comparison) -> str:
    return "-" if line.drift is None else f"{line.drift:+.2%}"


def _data(line: Comparison) -> dict[str, Any]:
    said, ours = line.stated, line.ledger
    return {
        "day": None if line.day is None else day(line.day),
        "provider": line.provider,
        "model": line.model or None,
        "said": {
            "calls": said.calls,
            "input": said.input,
            "output": said.output,
            "cost_usd": None if said.amount is None else f"{usd(said.amount):f}",
        },
        "ledger": {"calls": ours.calls, "input": ours.input, "output": ours.output, "cost_usd": f"{usd(ours.spend):f}"},
        "unpriced": ours.unpriced,
        "drift": line.drift,
    }
