"""Convert calls to rows of `calls` and back, without loss.

Prompts and completions never reach the ledger: a call has no field for them.
"""

from __future__ import annotations

import json
from dataclasses import fields
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from json.encoder import encode_basestring_ascii as quoted
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from tollspan.ledger.keys import ATTRIBUTED, TAG
from tollspan.ledger.totals import NANO
from tollspan.model.errors import LedgerError
from tollspan.model.records import Call, Cost, Part, Usage
from tollspan.model.refusal import Refusal
from tollspan.model.text import as_text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping

    Value = str | int | float | None
    Row = tuple[Value, ...]

TOKENS: Final = tuple(item.name for item in fields(Usage) if item.name != "units")
"""The token counts of a call."""

_MAIN: Final = ("input", "output", "cache_read", "cache_write", "reasoning")
"""The counts with a column of their own, `NAME_tokens`; the others are in `detail`."""

_OTHER: Final = (*(name for name in TOKENS if name not in _MAIN), "units")

_CALL: Final = (
    "id",
    "trace_id",
    "span_id",
    "started_at",
    "duration",
    "provider",
    "operation",
    "request_model",
    "response_model",
    "response_id",
    "outcome",
    "http_status",
    "error_type",
    "settles",
    "resend_count",
    "server_address",
    "tier",
    "region",
    "search_context",
)
"""Columns that are fields of `Call`, unchanged."""

_COST: Final = ("source", "quality", "price_key", "rule", "table_version")
"""Columns that are fields of `Cost`, unchanged."""

_COMPUTED: Final = (
    "operation_id",
    "first_chunk",
    "first_token",
    "billable",
    "pending",
    "stream",
    "finish_reasons",
    "price_labels",
    *ATTRIBUTED,
    "tags",
    "cost_nano",
    "cost_rest",
    "savings_nano",
    "savings_rest",
    "avoided_nano",
    "avoided_rest",
    "breakdown",
    "detail",
    "refusal",
)
"""Columns that are computed here."""

COLUMNS: Final = (*_CALL, *_COST, *(f"{name}_tokens" for name in _MAIN), *_COMPUTED)
"""The columns of a row, in the order of `row_of`."""

_USUAL: Final[dict[str, Any]] = {
    "server_port": 443,
    "usage_quality": "measured",
    "geography": None,
    "speed": None,
    "cached_by": None,
    "output_most": None,
}
_USUAL_COST: Final[dict[str, Any]] = {"currency": "USD", "low": None, "high": None, "missing": (), "note": None}
"""Fields that are in `detail` if they differ from these usual values."""

SELECT: Final = f"SELECT n, {', '.join(COLUMNS)} FROM calls"  # noqa: S608 - our own names

LARGEST: Final = 10**15
"""Larger counts, and larger amounts in nano-dollars, are implausible: their sums would overflow 64 bits."""

_AT_ONCE: Final = 50
"""Rows in one statement: fewer switches between SQLite and the interpreter, for which other threads wait."""

_NO_DEFAULTS: Final[Mapping[str, str]] = {}
_NO_TOKENS: Final[tuple[int | None, ...]] = (None,) * len(_MAIN)
_values: Final[Callable[[Call], Row]] = attrgetter(*_CALL)
_cost_values: Final[Callable[[Cost], Row]] = attrgetter(*_COST)
_main_counts: Final[Callable[[Usage], tuple[int | None, ...]]] = attrgetter(*_MAIN)
_other_counts: Final[Callable[[Usage], tuple[Any, ...]]] = attrgetter(*_OTHER)
_rare: Final[Callable[[Call], tuple[Any, ...]]] = attrgetter(*_USUAL)
_rare_cost: Final[Callable[[Cost], tuple[Any, ...]]] = attrgetter(*_USUAL_COST)
_NO_OTHERS: Final = _other_counts(Usage())
_NOTHING_RARE: Final = tuple(_USUAL.values())
_NOTHING_RARE_COST: Final = tuple(_USUAL_COST.values())
_write: Final = json.JSONEncoder(separators=(",", ":"), default=str).encode


def row_of(call: Call, defaults: Mapping[str, str] = _NO_DEFAULTS) -> Row:
    """Return a call as a row.

    Args:
        call: The call.
        defaults: Session and run of a call whose attribution has none.

    Raises:
        LedgerError: A count or an amount is implausibly large.
    """
    usage, cost = call.usage, call.cost
    amount, breakdown = cost.amount, cost.breakdown
    nano, rest = _NO_AMOUNT if amount is None else divmod(amount, NANO)
    saved = divmod(cost.savings, NANO) if cost.savings else _NO_AMOUNT
    avoided = _NO_AMOUNT if call.avoided is None else divmod(call.avoided, NANO)
    counts = _NO_TOKENS if usage is None else _main_counts(usage)
    for number in (*counts, nano, saved[0], avoided[0]):
        if number is not None and (number > LARGEST or number < -LARGEST):
            raise _impossible(call)
    return (
        *_values(call),
        *_cost_values(cost),
        *counts,
        call.operation_id if call.operation_id != call.id else None,
        call.time_to_first_chunk,
        call.time_to_first_token,
        1 if call.billable else 0,  # binding is slow for all types but exact int, float and str
        1 if call.pending else None,
        1 if call.stream else 0,
        _texts(call.finish_reasons) if call.finish_reasons else None,
        _texts(call.price_labels) if call.price_labels else None,
        *_attributed(tuple(call.attribution.items()), defaults.get("session"), defaults.get("run")),
        nano,
        rest,
        *saved,
        *avoided,
        f"{{{','.join([f'{_KEYS[kind]}{part}' for kind, part in breakdown.items()])}}}" if breakdown else None,
        _detail(call)
        if _rare(call) != _NOTHING_RARE
        or _rare_cost(cost) != _NOTHING_RARE_COST
        or cost.computed != amount
        or call.parts
        or (usage is not None and (_other_counts(usage) != _NO_OTHERS or counts == _NO_TOKENS))
        else None,
        None if call.refusal is None else _write(call.refusal.as_data()),
    )


_NO_AMOUNT: Final[tuple[None, None]] = (None, None)


def _impossible(call: Call) -> LedgerError:
    message = f"a call of {call.provider} {call.model} has an implausible value and is not stored"
    return LedgerError(message, "impossible")


def _detail(call: Call) -> str:
    """Return the unusual fields as JSON; amounts are in atto-dollars."""
    usage, cost = call.usage, call.cost
    detail = {name: value for name, usual in _USUAL.items() if (value := getattr(call, name)) != usual}
    detail.update({name: value for name, usual in _USUAL_COST.items() if (value := getattr(cost, name)) != usual})
    if cost.computed != cost.amount:
        detail["computed"] = cost.computed
    if call.parts:
        detail["parts"] = [{"kind": part.kind, "model": part.model, "usage": _usage(part.usage)} for part in call.parts]
    if usage is not None:
        detail["usage"] = {name: count for name, count in _usage(usage).items() if name not in _MAIN}
    return _write(detail)


def _usage(usage: Usage) -> dict[str, Any]:
    counts = {name: count for name in TOKENS if (count := getattr(usage, name)) is not None}
    return counts | {"units": dict(usage.units)} if usage.units else counts


@lru_cache(maxsize=256)
def _texts(texts: tuple[str, ...]) -> str:
    return _write(texts)


class _Keys(dict[str, str]):
    """The beginning of a JSON member, by name. The names come from the price engine and are few."""

    def __missing__(self, name: str) -> str:
        member = f"{quoted(name)}:"
        if len(self) < _MOST_KEYS:
            self[name] = member
        return member


_MOST_KEYS: Final = 1000
_KEYS: Final = _Keys()


@lru_cache(maxsize=1024)  # the calls of a session come one after another
def _attributed(items: tuple[tuple[str, str], ...], session: str | None, run: str | None) -> Row:
    known = dict(items)
    pairs = ((as_text(key[len(TAG) :]), as_text(value)) for key, value in items if key.startswith(TAG))
    tags = [f"{quoted(name)}:{quoted(value)}" for name, value in pairs]
    return (
        known.get("session", session),
        known.get("user"),
        known.get("run", run),
        known.get("step"),
        known.get("agent"),
        f"{{{','.join(tags)}}}" if tags else None,
    )


def insert(db: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Insert rows, inside the open transaction."""
    rows = list(rows)
    whole = len(rows) - len(rows) % _AT_ONCE
    for start in range(0, whole, _AT_ONCE):
        values = chain.from_iterable(rows[start : start + _AT_ONCE])
        db.execute(_INSERT_MANY, [_NULL if value is None else value for value in values])
    for row in rows[whole:]:
        db.execute(_INSERT, [_NULL if value is None else value for value in row])


_NULL: Final = float("nan")
"""SQLite stores NaN as NULL (sqlite.org/floatingpoint.html); binding None costs more than binding ten numbers."""


def _inserting(rows: int) -> str:
    row = f"({','.join('?' * len(COLUMNS))})"
    return f"INSERT INTO calls ({','.join(COLUMNS)}) VALUES {','.join([row] * rows)}"  # noqa: S608 - our own names


_INSERT: Final = _inserting(1)
_INSERT_MANY: Final = _inserting(_AT_ONCE)


def call_of(row: Mapping[str, Any]) -> Call:
    """Return the call of a row, given by column names."""
    detail = read_json(row["detail"], {})
    attribution = {name: row[name] for name in ATTRIBUTED if row[name] is not None}
    attribution.update({TAG + name: value for name, value in read_json(row["tags"], {}).items()})
    counts = {name: row[f"{name}_tokens"] for name in _MAIN}
    metered = "usage" in detail or any(count is not None for count in counts.values())
    return Call(
        **{name: row[name] for name in _CALL},
        **{name: detail.get(name, usual) for name, usual in _USUAL.items()},
        operation_id=row["operation_id"] or row["id"],
        time_to_first_chunk=row["first_chunk"],
        time_to_first_token=row["first_token"],
        billable=bool(row["billable"]),
        pending=row["pending"] is not None,  # also if it was settled since: the record does not change
        stream=bool(row["stream"]),
        finish_reasons=tuple(read_json(row["finish_reasons"], ())),
        price_labels=tuple(read_json(row["price_labels"], ())),
        usage=_usage_of(counts | detail.get("usage", {})) if metered else None,
        parts=tuple(_part_of(part) for part in detail.get("parts", ())),
        cost=cost_of(row),
        avoided=amount_of(row["avoided_nano"], row["avoided_rest"]),
        attribution=attribution,
        refusal=None if row["refusal"] is None else Refusal.of(json.loads(row["refusal"])),
    )


def cost_of(row: Mapping[str, Any]) -> Cost:
    """Return the cost of a row, given by column names."""
    detail = read_json(row["detail"], {})
    amount = amount_of(row["cost_nano"], row["cost_rest"])
    rare = {name: detail.get(name, usual) for name, usual in _USUAL_COST.items()}
    return Cost(
        amount=amount,
        savings=amount_of(row["savings_nano"], row["savings_rest"]) or 0,
        breakdown=read_json(row["breakdown"], {}),
        computed=detail.get("computed", amount),
        **{name: row[name] for name in _COST},
        **(rare | {"missing": tuple(rare["missing"])}),
    )


def amount_of(nano: int | None, rest: int | None) -> int | None:
    """Return the two parts of an amount as atto-dollars, or None if there is no amount."""
    return None if nano is None else nano * NANO + (rest or 0)


def read_json(text: str | None, default: Any) -> Any:
    """Return the value of a JSON column, or the default for NULL."""
    return default if text is None else json.loads(text)


def _usage_of(counts: dict[str, Any]) -> Usage:
    """Return the usage of counts. A string in its units is a Decimal, which JSON has no type for."""
    units = counts.pop("units", {})
    exact = {name: Decimal(value) if isinstance(value, str) else value for name, value in units.items()}
    return Usage(**counts, units=exact)


def _part_of(part: dict[str, Any]) -> Part:
    return Part(kind=part["kind"], model=part["model"], usage=_usage_of(part["usage"]))
