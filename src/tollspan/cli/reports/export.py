"""`tollspan export`: calls as CSV, JSON Lines or Parquet, or as CSV with FOCUS columns for chargeback."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from tollspan.cli.ledger_options import resolved, with_conditions, with_ledger
from tollspan.cli.reports import focus
from tollspan.cli.reports.csv_rows import write_csv
from tollspan.ledger.keys import ATTRIBUTED, TAG
from tollspan.ledger.queries import Ledger
from tollspan.ledger.rows import TOKENS
from tollspan.model.money import usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tollspan.ledger.conditions import Where
    from tollspan.ledger.queries import Kept

_FIELDS: Final = (
    "id",
    "operation_id",
    "trace_id",
    "span_id",
    "provider",
    "operation",
    "request_model",
    "response_model",
    "response_id",
    "outcome",
    "billable",
    "pending",
    "settles",
    "stream",
    "http_status",
    "error_type",
    "resend_count",
    "server_address",
    "server_port",
    "tier",
    "geography",
    "speed",
    "region",
    "search_context",
    "cached_by",
    "duration",
    "time_to_first_chunk",
    "time_to_first_token",
    "usage_quality",
)
"""Fields of a call that are exported unchanged."""

_OF_COST: Final = ("quality", "source", "currency", "price_key", "rule", "table_version", "note")
_AMOUNTS: Final = ("amount", "computed", "low", "high", "savings")
_ROWS: Final = 10_000  # rows of a Parquet row group


def flat(kept: Kept) -> dict[str, Any]:
    """Return a call as a flat mapping: amounts are exact decimal strings in US dollars, nested mappings are JSON."""
    call, cost, usage = kept.call, kept.call.cost, kept.call.usage
    when = datetime.fromtimestamp(call.started_at // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    row: dict[str, Any] = {"number": kept.n, "started_at": f"{when}.{call.started_at % 10**9:09d}Z"}
    row |= {name: getattr(call, name) for name in _FIELDS}
    row["pending"] = call.pending and not kept.settled
    row["finish_reasons"] = " ".join(call.finish_reasons) or None
    row |= {name: call.attribution.get(name) for name in ATTRIBUTED}
    row["tags"] = _json({key[len(TAG) :]: value for key, value in call.attribution.items() if key.startswith(TAG)})
    row |= {f"{name}_tokens": None if usage is None else getattr(usage, name) for name in TOKENS}
    row["units"] = _json({} if usage is None else {name: str(count) for name, count in usage.units.items()})
    row |= {f"{'cost' if name == 'amount' else name}_usd": _dollars(getattr(cost, name)) for name in _AMOUNTS}
    row["avoided_usd"] = _dollars(call.avoided)
    row["breakdown_usd"] = _json({kind: _dollars(amount) for kind, amount in cost.breakdown.items()})
    row |= {f"cost_{name}": getattr(cost, name) for name in _OF_COST}
    row["missing"] = " ".join(cost.missing) or None
    row["refusal"] = _json({} if call.refusal is None else call.refusal.as_data())
    return row


def _dollars(amount: int | None) -> str | None:
    return None if amount is None else f"{usd(amount):f}"


def _json(value: Mapping[str, Any]) -> str | None:
    return json.dumps(value) if value else None


@click.command()
@with_ledger
@with_conditions
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["csv", "jsonl", "parquet", "focus"]),
    default="csv",
    show_default=True,
    help="focus writes CSV with the columns of the FinOps Open Cost and Usage Specification.",
)
@click.option("--output", "-o", metavar="FILE", help="Write to this file.  [default: standard output]")
def export(path: Path, where: Where, file_format: str, output: str | None) -> None:
    r"""Export calls as CSV, JSON Lines, Parquet or FOCUS.

    Amounts are exact decimal strings in US dollars (in Parquet: decimals with 18 places). Parquet needs the extra:
    pip install 'tollspan[parquet]'.

    \b
    Examples:
      tollspan export --since 2026-11-01 -o november.csv
      tollspan export --format parquet -o calls.parquet
      tollspan export --format focus --since 2026-11-01 --until 2026-12-01 -o focus.csv
    """
    with Ledger(path) as ledger:
        calls = ledger.each(resolved(ledger, where))
        if file_format == "parquet":
            if output is None:
                raise click.UsageError("Parquet is a binary format; name a file: --output FILE")
            with _write_errors(output):
                _write_parquet(map(flat, calls), output)
            return
        with _opened(output) as file:
            if file_format == "jsonl":
                file.writelines(json.dumps(flat(kept)) + "\n" for kept in calls)
            elif file_format == "focus":
                write_csv(focus.rows(calls), focus.COLUMNS, file)
            else:
                write_csv(map(flat, calls), None, file)


@contextmanager
def _opened(output: str | None) -> Iterator[IO[str]]:
    if output is None:
        yield sys.stdout
        return
    with _write_errors(output), Path(output).open("w", encoding="utf-8", newline="") as file:
        yield file


@contextmanager
def _write_errors(output: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error.strerror or error}") from None


def _write_parquet(rows: Iterator[dict[str, Any]], output: str) -> None:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]
    except ImportError:
        raise click.ClickException(
            "Parquet needs an extra that is not installed: pip install 'tollspan[parquet]'"
        ) from None
    from decimal import Decimal

    schema, writer = None, None
    try:
        while row_group := list(islice(rows, _ROWS)):
            for row in row_group:
                for name, value in row.items():
                    if name.endswith("_usd") and name != "breakdown_usd" and value is not None:
                        row[name] = Decimal(value)
            if writer is None:
                schema = pa.schema([(name, _arrow_type(pa, name)) for name in row_group[0]])
                writer = pq.ParquetWriter(output, schema)
            writer.write_table(pa.Table.from_pylist(row_group, schema=schema))
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise click.ClickException("no calls to export")


def _arrow_type(pa: Any, name: str) -> Any:
    if name.endswith("_usd") and name != "breakdown_usd":
        return pa.decimal128(38, 18)
    if name.endswith("_tokens") or name in {"number", "http_status", "resend_count", "server_port"}:
        return pa.int64()
    if name in {"duration", "time_to_first_chunk", "time_to_first_token"}:
        return pa.float64()
    return pa.bool_() if name in {"billable", "pending", "stream"} else pa.string()
