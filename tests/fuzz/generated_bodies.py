"""Makes JSON out of bytes, so that a fuzzer's every input is a body that a format can read.

Keys and texts are the words of the formats' own code: a format finds any key that it looks for, with a value of any
type.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from tests.fuzz.targets import DIALECTS

if TYPE_CHECKING:
    from types import CodeType

NUMBERS: Final = (0, 1, 7, 1024, -1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e300, float("inf"), float("nan"))
DEPTH: Final = 6
_WORD: Final = re.compile(r"[A-Za-z][\w.:-]{0,40}")
_SHARED: Final = (
    "fields",
    "paths",
    "anthropic_tokens",
    "gemini_tokens",
    "openai_tokens",
    "openai_choices",
    "bedrock_tokens",
)


@cache
def words() -> tuple[str, ...]:
    """Return the words that the formats' code holds: keys, states, names of events."""
    found: set[str] = set()
    for name in (*DIALECTS, *_SHARED):
        module = import_module(f"tollspan.wire.dialects.{name}")
        with open(str(module.__file__), encoding="utf-8") as file:  # noqa: PTH123 - a module's own path, and a text
            _collect(compile(file.read(), name, "exec", optimize=2), found)
    return tuple(sorted(found))


def _collect(code: CodeType, found: set[str]) -> None:
    for constant in code.co_consts:
        values = constant if isinstance(constant, (tuple, frozenset)) else (constant,)
        for value in values:
            if isinstance(value, str) and _WORD.fullmatch(value):
                found.add(value)
            elif hasattr(value, "co_consts"):
                _collect(value, found)


class Maker:
    """Takes bytes one after another as decisions; when they run out, everything is as small as can be."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def spent(self) -> bool:
        """Return whether there is nothing left to decide by."""
        return self._at >= len(self._data)

    def byte(self) -> int:
        """Return the next decision."""
        at, self._at = self._at, self._at + 1
        return self._data[at] if at < len(self._data) else 0

    def word(self) -> str:
        """Return one of the formats' words."""
        known = words()
        return known[(self.byte() << 8 | self.byte()) % len(known)]

    def value(self, depth: int = 0) -> Any:  # noqa: PLR0911 - one for each kind of JSON
        """Return a JSON value."""
        kind = self.byte() % 10
        if depth >= DEPTH:
            kind %= 6
        match kind:
            case 0:
                return None
            case 1:
                return self.byte() % 2 == 0
            case 2 | 3:
                return NUMBERS[self.byte() % len(NUMBERS)]
            case 4:
                return self.word()
            case 5:
                return 'ä"\\\n\ud83d'[: self.byte() % 6]
            case 6:
                return [self.value(depth + 1) for _ in range(self.byte() % 4)]
        return self.object(depth)

    def object(self, depth: int = 0) -> dict[str, Any]:
        """Return a JSON object."""
        return {self.word(): self.value(depth + 1) for _ in range(1 + self.byte() % 5)}


STYLES: Final[tuple[dict[str, Any], ...]] = ({"separators": (",", ":")}, {}, {"ensure_ascii": True, "indent": 1})


def body(data: bytes) -> bytes:
    """Return an input for the targets whose body is a document, or events, of known words (see `targets.py`)."""
    maker = Maker(data)
    dialect = DIALECTS[maker.byte() % len(DIALECTS)]
    style, size, kind = STYLES[maker.byte() % 2], 1 + maker.byte(), maker.byte() % 5
    values = [maker.object()]
    while not maker.spent and len(values) < 20:
        values.append(maker.object())
    texts = [json.dumps(value, **style).encode("utf-8", "surrogatepass") for value in values]
    if kind == 0:
        return f"{dialect} application/json - {size}\n".encode() + texts[0]
    if kind == 1:
        return f"{dialect} application/x-ndjson - {size}\n".encode() + b"\n".join(texts)
    if kind == 2:
        return f"{dialect} application/json - {size}\n".encode() + b"[" + b",\r\n".join(texts) + b"]"
    end = (b"\n\n", b"\r\n\r\n")[maker.byte() % 2]
    lines = [(f"event: {maker.word()}\n".encode() if kind == 3 else b"") + b"data: " + text for text in texts]
    return f"{dialect} text/event-stream - {size}\n".encode() + end.join([*lines, b"data: [DONE]", b""])
