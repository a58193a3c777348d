"""Usage exports of providers and spans of other collectors, for comparison with the ledger.

The formats, as documented:

- OpenAI, GET /v1/organization/costs and /v1/organization/usage/* (types/admin/organization in openai 3.54)
- Anthropic, GET /v1/organizations/cost_report and /v1/organizations/usage_report/messages
  (platform.claude.com/docs/en/api/admin/cost_report and .../usage_report/retrieve_messages)
- OTLP in JSON, as the Collector's file exporter writes it: one ExportTraceServiceRequest, or one per line

An export is kept beside the rows and never added to them. Importing it again replaces its earlier lines.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from tollspan.ledger.conditions import DAY, Where
from tollspan.ledger.rows import LARGEST
from tollspan.ledger.schema import FAILURES, explain, opened
from tollspan.ledger.totals import NANO, NOTHING, Figures
from tollspan.model.errors import LedgerError
from tollspan.model.money import atto

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tollspan.ledger.queries import Ledger

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportLine:
    """One line of an export. None = not stated; `amount` is in atto-dollars, `day` counts from 1970-01-01."""

    source: str
    day: int
    provider: str
    model: str = ""
    line: str = ""
    calls: int | None = None
    input: int | None = None
    output: int | None = None
    amount: int | None = None

    def __add__(self, other: ExportLine) -> ExportLine:
        """Return the sum of both lines under the key of the first."""
        return replace(
            self,
            calls=_sum(self.calls, other.calls),
            input=_sum(self.input, other.input),
            output=_sum(self.output, other.output),
            amount=_sum(self.amount, other.amount),
        )


_NUMBERS: Final = ("calls", "input", "output", "amount")


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other


def read(text: str, name: str) -> list[ExportLine]:
    """Read an export; detect its format from its content.

    Raises:
        LedgerError: The format is unknown or the file is invalid.
    """
    try:
        found = list(_read(text))
    except (ValueError, KeyError, TypeError, AttributeError, InvalidOperation) as error:
        raise LedgerError(f"{name}: cannot be read ({type(error).__name__}: {error}); {_KNOWN}", "format") from None
    if not found:
        raise LedgerError(f"{name}: no usage data found; {_KNOWN}", "format")
    joined: dict[tuple[str, int, str, str, str], ExportLine] = {}
    for statement in found:
        key = (statement.source, statement.day, statement.provider, statement.model, statement.line)
        joined[key] = joined[key] + statement if key in joined else statement
    for statement in joined.values():
        if any(abs(getattr(statement, name_) or 0) > LARGEST * NANO for name_ in _NUMBERS):
            raise LedgerError(f"{name}: implausible value", "format")
    return list(joined.values())


_KNOWN: Final = "expected pages of OpenAI's costs or usage, of Anthropic's cost or usage reports, or spans as OTLP JSON"


def _read(text: str) -> Iterator[ExportLine]:
    for page in _pages(text):
        if "resourceSpans" in page:
            yield from _spans(page)
            continue
        for bucket in page.get("data", ()):
            if "starting_at" in bucket:
                yield from _anthropic(bucket)
            elif bucket.get("object") == "bucket":
                yield from _openai(bucket)


def _pages(text: str) -> Iterator[Json]:
    """Yield the JSON objects of a text: one object, a list of them, or one per line."""
    try:
        whole = json.loads(text, parse_float=Decimal)
    except ValueError:
        lines = (json.loads(line, parse_float=Decimal) for line in text.splitlines() if line.strip())
        yield from (line for line in lines if isinstance(line, dict))
        return
    yield from (page for page in (whole if isinstance(whole, list) else [whole]) if isinstance(page, dict))


def _openai(bucket: Json) -> Iterator[ExportLine]:
    day = int(bucket["start_time"]) // 86_400
    for result in bucket.get("results") or bucket.get("result") or ():
        kind = str(result.get("object", ""))
        if kind == "organization.costs.result":
            line = result.get("line_item") or ""
            amount = result.get("amount") or {}
            if str(amount.get("currency", "usd")).lower() == "usd" and amount.get("value") is not None:
                # The line item of a model reads "MODEL, what".
                model = line.rpartition(", ")[0]
                yield ExportLine(
                    source="openai costs",
                    day=day,
                    provider="openai",
                    model=model,
                    line=line,
                    amount=atto(amount["value"]),
                )
        elif kind.startswith("organization.usage."):
            yield ExportLine(
                source="openai usage",
                day=day,
                provider="openai",
                model=result.get("model") or "",
                line=kind.split(".")[2],
                calls=result.get("num_model_requests"),
                input=result.get("input_tokens"),
                output=result.get("output_tokens"),
            )


def _anthropic(bucket: Json) -> Iterator[ExportLine]:
    day = _day(bucket["starting_at"])
    for result in bucket.get("results", ()):
        model = result.get("model") or ""
        if "amount" in result:
            if str(result.get("currency", "USD")).upper() == "USD":
                # "123.45" is 1.2345 dollars: cents, as a decimal string.
                cents = Decimal(str(result["amount"]))
                line = result.get("description") or ""
                yield ExportLine(
                    source="anthropic costs",
                    day=day,
                    provider="anthropic",
                    model=model,
                    line=line,
                    amount=atto(cents / 100),
                )
            continue
        written = result.get("cache_creation") or {}
        yield ExportLine(
            source="anthropic usage",
            day=day,
            provider="anthropic",
            model=model,
            line=str(result.get("service_tier") or ""),
            # Input includes cache reads and writes, as everywhere in tollspan.
            input=int(result.get("uncached_input_tokens") or 0)
            + int(result.get("cache_read_input_tokens") or 0)
            + sum(int(count or 0) for count in written.values()),
            output=int(result.get("output_tokens") or 0),
        )


def _day(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) // 86_400


_ROLL_UPS: Final = frozenset(
    {"invoke_agent", "create_agent", "invoke_workflow", "execute_tool", "fetch_response", "plan"}
)
"""Operations whose spans repeat the usage of their children or have none."""


def _spans(request: Json) -> Iterator[ExportLine]:
    seen: set[tuple[str, str]] = set()
    for resource in request.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                key = (str(span.get("traceId")), str(span.get("spanId")))
                statement = _span(span)
                if statement is not None and key not in seen:
                    seen.add(key)
                    yield statement


def _span(span: Json) -> ExportLine | None:
    values = {entry["key"]: _value(entry.get("value") or {}) for entry in span.get("attributes", ())}
    usage = [values.get(name) for name in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")]
    cost = values.get("gen_ai.usage.cost.amount", values.get("gen_ai.usage.cost"))
    if values.get("gen_ai.operation.name") in _ROLL_UPS or (usage == [None, None] and cost is None):
        return None
    return ExportLine(
        source="spans",
        day=int(span["startTimeUnixNano"]) // DAY,
        provider=str(values.get("gen_ai.provider.name") or values.get("gen_ai.system") or ""),
        model=str(values.get("gen_ai.response.model") or values.get("gen_ai.request.model") or ""),
        calls=1,
        input=None if usage[0] is None else int(usage[0]),
        output=None if usage[1] is None else int(usage[1]),
        amount=None if cost is None else atto(cost),
    )


def _value(value: Json) -> Any:
    """Return an attribute's value; OTLP writes 64-bit integers as strings."""
    if "intValue" in value:
        return int(value["intValue"])
    return next((value[name] for name in ("stringValue", "doubleValue", "boolValue") if name in value), None)


def keep(path: Path, statements: Iterable[ExportLine]) -> None:
    """Write export lines to the ledger; replace earlier versions of the same lines.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    now = time.time_ns()
    rows = []
    for said in statements:
        nano, rest = (None, None) if said.amount is None else divmod(said.amount, NANO)
        key = (said.source, said.day, said.provider, said.model, said.line)
        rows.append((*key, said.calls, said.input, said.output, nano, rest, now))
    with opened(path) as db:
        try:
            db.execute("PRAGMA busy_timeout = 5000")
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT OR REPLACE INTO statements VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            db.execute("COMMIT")
        except FAILURES as error:
            raise explain(error, path) from None


@dataclass(frozen=True, slots=True)
class Comparison:
    """An export and the ledger compared, for a day and model or for a whole provider."""

    day: int | None
    provider: str
    model: str
    stated: ExportLine
    ledger: Figures

    @property
    def drift(self) -> float | None:
        """Return the share by which the ledger is above (or below) the export: in cost, else in tokens, or None."""
        if self.stated.amount is not None:
            return _share(self.ledger.spend, self.stated.amount)
        said = (self.stated.input or 0) + (self.stated.output or 0)
        return _share(self.ledger.tokens, said)


def _share(ours: int, theirs: int) -> float | None:
    if not theirs:
        return 0.0 if not ours else None
    return (ours - theirs) / theirs


def compare(ledger: Ledger, statements: Iterable[ExportLine]) -> tuple[list[Comparison], list[Comparison]]:
    """Compare the lines of one export with the ledger, by day and model if they name one, and by provider.

    Days that the export does not mention are left out on both sides. If every line names a model, so are the ledger's
    other models.
    """
    by_model: dict[tuple[int, str, str], ExportLine] = {}
    for said in statements:
        key = (said.day, said.provider, said.model)
        by_model[key] = by_model[key] + said if key in by_model else said
    days = defaultdict[str, set[int]](set)
    for day, provider, _ in by_model:
        days[provider].add(day)
    ours: dict[tuple[int, str, str], Figures] = {}
    totals: list[Comparison] = []
    for provider, meant in days.items():
        where = Where(provider=provider, since=min(meant) * DAY, until=(max(meant) + 1) * DAY)
        total = NOTHING
        for group in ledger.groups(("day", "model"), where):
            day = int(group.key[0])
            if day in meant:
                ours[day, provider, group.key[1]] = group.figures
                total += group.figures
        whole, *others = [statement for (_, name, _), statement in by_model.items() if name == provider]
        for other in others:
            whole += other
        totals.append(Comparison(None, provider, "", whole, total))
    lines = [
        Comparison(day, provider, model, said, ours.get((day, provider, model), NOTHING))
        for (day, provider, model), said in sorted(by_model.items())
        if model
    ]
    return lines, totals
