"""A call as a row of `calls`, and a row as the call again: nothing of the record is lost on the way.

What the ledger never gets is what was said: a call has no field for a prompt or a completion.
"""

from __future__ import annotations

import json
from decimal import Decimal
from functools import lru_cache
from itertools import chain, compress, repeat
from json.encoder import encode_basestring_ascii as quoted
from operator import attrgetter, is_not
from typing import TYPE_CHECKING, Any, Final

from tollspan.errors import LedgerError
from tollspan.ledger.schema import TOKENS
from tollspan.ledger.totals import NANO
from tollspan.usage import Call, Cost, Part, Usage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping

    Value = str | int | float | None
    Row = tuple[Value, ...]

ATTRIBUTED: Final = ("session", "user", "run", "step", "agent")
"""Attributions that have a column; all others are tags."""

TAG: Final = "tag."
"""What the key of a tag starts with in `Call.attribution`."""

_CALL: Final = (
    "id",
    "operation_id",
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
    "usage_quality",
    "http_status",
    "error_type",
    "resend_count",
    "server_address",
    "server_port",
    "tier",
    "geography",
    "speed",
    "region",
    "cached_by",
)
"""Columns that are fields of `Call` as they stand."""

_COST: Final = ("source", "quality", "currency", "price_key", "rule", "table_version", "note")
"""Columns that are fields of `Cost` as they stand."""

_MADE: Final = (
    "first_chunk",
    "first_token",
    "billable",
    "stream",
    "finish_reasons",
    *ATTRIBUTED,
    "tags",
    "metered",
    "units",
    "parts",
    "cost_nano",
    "cost_rest",
    "savings_nano",
    "savings_rest",
    "avoided_nano",
    "avoided_rest",
    "breakdown",
    "computed",
    "low",
    "high",
    "missing",
)
"""Columns that are made here."""

COLUMNS: Final = (*_CALL, *_COST, *(f"{name}_tokens" for name in TOKENS), *_MADE)
"""The columns of a row, in the order of `row_of`."""

SELECT: Final = f"SELECT n, {', '.join(COLUMNS)} FROM calls"  # noqa: S608 - our own names

LARGEST: Final = 10**15
"""A count beyond this is no count, and an amount beyond so many nano-dollars no amount: their sums would leave 64 bits."""

_AT_ONCE: Final = 50
"""Rows of one statement: fewer turns between SQLite and the interpreter, which other threads are waiting for."""

_NO_DEFAULTS: Final[Mapping[str, str]] = {}
_NO_TOKENS: Final[Row] = (None,) * len(TOKENS)
_call_values: Final[Callable[[Call], Row]] = attrgetter(*_CALL)
_cost_values: Final[Callable[[Cost], Row]] = attrgetter(*_COST)
_token_values: Final[Callable[[Usage], Row]] = attrgetter(*TOKENS)
_write: Final = json.JSONEncoder(separators=(",", ":"), default=str).encode


def row_of(call: Call, defaults: Mapping[str, str] = _NO_DEFAULTS) -> Row:
    """Give a call as a row.

    Args:
        call: The call.
        defaults: Session and run of a call whose attribution names none.

    Raises:
        LedgerError: when a count or an amount is so large that it cannot be true.
    """
    usage, cost = call.usage, call.cost
    nano, rest = (None, None) if cost.amount is None else divmod(cost.amount, NANO)
    saved = divmod(cost.savings, NANO)
    tokens = _NO_TOKENS if usage is None else _token_values(usage)
    _check(call, nano or 0, saved[0], *filter(None, tokens))
    return (
        *_call_values(call),
        *_cost_values(cost),
        *tokens,
        call.time_to_first_chunk,
        call.time_to_first_token,
        1 if call.billable else 0,  # SQLite's binding is slow for anything but an exact int, float or str
        1 if call.stream else 0,
        _texts(tuple(call.finish_reasons)) if call.finish_reasons else None,
        *_attributed(call.attribution, defaults),
        0 if usage is None else 1,
        _write(dict(usage.units)) if usage is not None and usage.units else None,
        _write([_part(part) for part in call.parts]) if call.parts else None,
        nano,
        rest,
        *saved,
        *((None, None) if call.avoided is None else divmod(call.avoided, NANO)),
        f"{{{','.join([f'{_key(kind)}:{part}' for kind, part in cost.breakdown.items()])}}}"
        if cost.breakdown
        else None,
        None if cost.computed is None else str(cost.computed),
        None if cost.low is None else str(cost.low),
        None if cost.high is None else str(cost.high),
        _texts(tuple(cost.missing)) if cost.missing else None,
    )


def _check(call: Call, *numbers: Any) -> None:
    if max(numbers) > LARGEST or min(numbers) < -LARGEST:
        raise LedgerError(
            f"a call of {call.provider} {call.model} says a number that cannot be true and is not kept", "impossible"
        )


@lru_cache(maxsize=256)
def _texts(texts: tuple[str, ...]) -> str:
    return _write(texts)


@lru_cache(maxsize=256)
def _key(text: str) -> str:
    return quoted(text)


def _attributed(attribution: Mapping[str, str], defaults: Mapping[str, str]) -> Row:
    get, default = attribution.get, defaults.get
    if not attribution:
        return (default("session"), None, default("run"), None, None, None)
    tags = [f"{_key(key[len(TAG) :])}:{quoted(value)}" for key, value in attribution.items() if key.startswith(TAG)]
    return (
        get("session") or default("session"),
        get("user"),
        get("run") or default("run"),
        get("step"),
        get("agent"),
        f"{{{','.join(tags)}}}" if tags else None,
    )


def _part(part: Part) -> dict[str, Any]:
    usage = {name: count for name in TOKENS if (count := getattr(part.usage, name)) is not None}
    return {"kind": part.kind, "model": part.model, "usage": usage, "units": dict(part.usage.units)}


def insert(db: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Add rows, inside the transaction that is open.

    A statement names only the columns that its rows have, for binding a NULL costs more than ten numbers do.
    """
    groups: dict[tuple[bool, ...], list[Row]] = {}
    for row in rows:
        present = tuple(map(is_not, row, repeat(None)))
        groups.setdefault(present, []).append(tuple(compress(row, present)))
    for present, group in groups.items():
        columns = tuple(compress(COLUMNS, present))
        whole = len(group) - len(group) % _AT_ONCE
        for start in range(0, whole, _AT_ONCE):
            db.execute(_insert(columns, _AT_ONCE), tuple(chain.from_iterable(group[start : start + _AT_ONCE])))
        if whole < len(group):
            db.executemany(_insert(columns, 1), group[whole:])


@lru_cache(maxsize=64)
def _insert(columns: tuple[str, ...], rows: int) -> str:
    row = f"({','.join('?' * len(columns))})"
    return f"INSERT INTO calls ({','.join(columns)}) VALUES {','.join([row] * rows)}"  # noqa: S608 - our own names


def call_of(row: Mapping[str, Any]) -> Call:
    """Give the call that a row (by column names) was made from."""
    attribution = {name: row[name] for name in ATTRIBUTED if row[name] is not None}
    attribution.update({TAG + name: value for name, value in read_json(row["tags"], {}).items()})
    counts = {name: row[f"{name}_tokens"] for name in TOKENS}
    return Call(
        **{name: row[name] for name in _CALL},
        time_to_first_chunk=row["first_chunk"],
        time_to_first_token=row["first_token"],
        billable=bool(row["billable"]),
        stream=bool(row["stream"]),
        finish_reasons=tuple(read_json(row["finish_reasons"], ())),
        usage=Usage(**counts, units=_units(read_json(row["units"], {}))) if row["metered"] else None,
        parts=tuple(_part_of(part) for part in read_json(row["parts"], ())),
        cost=cost_of(row),
        avoided=amount_of(row["avoided_nano"], row["avoided_rest"]),
        attribution=attribution,
    )


def cost_of(row: Mapping[str, Any]) -> Cost:
    """Give the cost that a row (by column names) keeps."""
    return Cost(
        amount=amount_of(row["cost_nano"], row["cost_rest"]),
        savings=row["savings_nano"] * NANO + row["savings_rest"],
        breakdown=read_json(row["breakdown"], {}),
        computed=_whole(row["computed"]),
        low=_whole(row["low"]),
        high=_whole(row["high"]),
        missing=tuple(read_json(row["missing"], ())),
        **{name: row[name] for name in _COST},
    )


def amount_of(nano: int | None, rest: int | None) -> int | None:
    """Give the two parts of an amount as atto-dollars; None where there is none."""
    return None if nano is None else nano * NANO + (rest or 0)


def read_json(text: str | None, default: Any) -> Any:
    """Read a column of JSON; NULL is the default."""
    return default if text is None else json.loads(text)


def _whole(text: str | None) -> int | None:
    return None if text is None else int(text)


def _units(units: dict[str, Any]) -> dict[str, int | float | Decimal]:
    """Read units: a text is a Decimal, which JSON cannot say."""
    return {name: Decimal(value) if isinstance(value, str) else value for name, value in units.items()}


def _part_of(part: dict[str, Any]) -> Part:
    return Part(kind=part["kind"], model=part["model"], usage=Usage(**part["usage"], units=_units(part["units"])))
