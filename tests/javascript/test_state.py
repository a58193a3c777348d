"""The page's types are true: what the server sends has the keys and types that state.js declares, and no others."""

from __future__ import annotations

import re
import time
from decimal import Decimal
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.cli.written_ledgers import write
from tests.ledger.call_factory import DENIED, FAILED, UNPRICED, made
from tollspan.budget.api import Status
from tollspan.cli.live import server as ui
from tollspan.cli.live.budget_reader import BudgetReader
from tollspan.cli.live.server import View
from tollspan.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

_SOURCE: Final = files(ui.__package__ or "").joinpath("page", "state.js").read_text(encoding="utf-8")
_TYPEDEF: Final = re.compile(r"@typedef \{(?:object|(\w+) & \{(.*)\})\} (\w+)")
_PROPERTY: Final = re.compile(r"@property \{(.+?)\} (\w+)")
_PLAIN: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def declared() -> dict[str, dict[str, str]]:
    """Return the types that state.js declares: for each, its keys with their types."""
    types: dict[str, dict[str, str]] = {}
    for comment in re.findall(r"/\*\*.*?\*/", _SOURCE, re.DOTALL):
        header = _TYPEDEF.search(comment)
        assert header is not None, comment
        extended, added, name = header.groups()
        inherited = types[extended] if extended else {}
        own = re.findall(r"(\w+): (\w+)", added or "")
        types[name] = inherited | dict(own) | {key: kind for kind, key in _PROPERTY.findall(comment)}
    return types


TYPES: Final = declared()


def differences(value: Any, kind: str, path: str, seen: set[str]) -> list[str]:
    """Return where a value is not of a type; `seen` collects the names of the declared types that were compared."""
    if kind.endswith("[]"):
        element = kind[:-2].removeprefix("(").removesuffix(")")
        parts = [(item, element, f"{path}[]") for item in value]
    elif " | " in kind:
        options = [differences(value, option, path, seen) for option in kind.split(" | ")]
        return [] if [] in options else [f"{path} is not {kind}: {value!r}"]
    elif record := re.fullmatch(r"Record<string, (.+)>", kind):
        parts = [(item, record[1], f"{path}.{key}") for key, item in value.items()]
    elif kind in _PLAIN:
        fits = isinstance(value, _PLAIN[kind]) and (kind == "boolean") == isinstance(value, bool)
        return [] if fits else [f"{path} is not a {kind}: {value!r}"]
    else:
        seen.add(kind)
        if not isinstance(value, dict):
            return [f"{path} is not a {kind}: {value!r}"]
        if odd := set(value) ^ set(TYPES[kind]):
            return [f"{path} differs from {kind} by the keys {sorted(odd)}"]
        parts = [(value[key], own, f"{path}.{key}") for key, own in TYPES[kind].items()]
    return [each for part, own, place in parts for each in differences(part, own, place, seen)]


def test_state_is_as_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state with calls of every outcome, tiers and budgets is what the page's types say, down to the last key."""
    counter = {"uncertain": 0, "reserved": 0}
    budgets = (
        Status(
            budget="day",
            counter="day/1",
            unit="usd",
            limit=Decimal(2),
            spent=Decimal(1),
            remaining=Decimal(1),
            **counter,
        ),
        Status(budget="calls", counter="calls/1", unit="calls", limit=None, spent=3, remaining=None, **counter),
    )
    monkeypatch.setattr(BudgetReader, "_read", lambda _self: budgets)
    monkeypatch.setattr(time, "time_ns", lambda: made().started_at + 600 * 10**9)
    calls = [made(0, attribution={"session": "s", "tag.tier": "1"}, time_to_first_token=0.2), made(1, **FAILED)]
    write(tmp_path / "ledger.db", *calls, made(2, **UNPRICED), made(3, **DENIED, attribution={"session": "s"}))
    seen: set[str] = set()
    for session in (None, "s"):
        view = View(tmp_path / "ledger.db", Settings(tags={"tier": ("1", "2")}), "24h", session)
        state = view.look()
        view.close()
        assert differences(state, "State", "state", seen) == []
    assert seen == set(TYPES) - {"Problem"}


def test_problem_is_as_declared(tmp_path: Path) -> None:
    """A ledger that cannot be read is sent as a problem, and as nothing else."""
    path = tmp_path / "ledger.db"
    path.write_text("this is not a database, although it is long enough to be one")
    view = View(path, Settings(), "24h", None)
    assert differences(view.look(), "Problem", "problem", set()) == []
    view.close()


@pytest.mark.parametrize(
    ("value", "kind", "difference"),
    [
        (True, "number", "x is not a number: True"),
        (1, "boolean", "x is not a boolean: 1"),
        (None, "string", "x is not a string: None"),
        ([1, "2"], "(number | null)[]", "x[] is not number | null: '2'"),
        ({"p50": 1}, "Percentiles", "x differs from Percentiles by the keys ['p95']"),
        ({"a": [1]}, "Record<string, string[]>", "x.a[] is not a string: 1"),
    ],
)
def test_differences_are_noticed(value: Any, kind: str, difference: str) -> None:
    """The comparison notices a wrong type, a missing key and a wrong element."""
    assert differences(value, kind, "x", set()) == [difference]
