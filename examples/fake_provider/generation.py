"""How answers and their token counts are made up: from the text of the request alone, so that a test can work them out.

- Input: a text costs one token per four characters, rounded up; each message (tool, system prompt) costs 4 more.
- Output: a reply is a list of pieces (a word with its space), each of which is one token. Its length is drawn from the
  text of the request, 12 to 48 pieces, or set by `x-fake: output=N`; a limit on tokens cuts it.
- Reasoning: by the effort or the budget asked for (`EFFORT`, `thought`), or `x-fake: reasoning=N`; billed as output.
- A tool call is made when tools are offered and the last word is the user's: 8 tokens and its arguments' pieces.
- Caches never expire and hold the last 10,000 entries.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from examples.fake_provider.exchange import Ask

PER_MESSAGE: Final = 4
PER_TOOL_CALL: Final = 8
PER_IMAGE: Final = 85
EFFORT: Final = {"minimal": 16, "low": 64, "medium": 256, "high": 1024, "xhigh": 2048}
THINKING_SHARE: Final = 8
"""An eighth of the budget for thinking is used, at most `EFFORT["medium"]`."""
CACHE_BLOCK: Final = 128
CACHE_LEAST: Final = 1024
"""Tokens: OpenAI and Anthropic cache nothing shorter, and OpenAI counts in steps of 128."""
CACHE_ENTRIES: Final = 10_000

WORDS: Final = re.findall(
    r"\s*\S+",
    " No model wrote this: it is the fake provider of the demo. It counts its words as tokens, keeps its own books,"
    " and charges nobody. Ask it anything and the answer is the same paragraph, begun at another place and stopped"
    " after another while, so that two honest meters can be compared to the last token.",
)
THOUGHTS: Final = ("The", " user", " asks,", " a", " fake", " provider", " thinks.")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool, with arguments as JSON text in pieces."""

    name: str
    pieces: list[str]

    @property
    def arguments(self) -> str:
        """Return the arguments in one text."""
        return "".join(self.pieces)

    @property
    def values(self) -> object:
        """Return the arguments as an object."""
        return json.loads(self.arguments)


@dataclass(frozen=True, slots=True)
class Draft:
    """What is answered: text or a tool call, `thinking` tokens before it, and whether a limit cut it."""

    pieces: list[str]
    thinking: int
    call: ToolCall | None
    cut: bool

    @property
    def text(self) -> str:
        """Return the reply in one text."""
        return "".join(self.pieces)

    @property
    def visible(self) -> int:
        """Return the output tokens of the reply without the thinking."""
        return len(self.pieces) + (PER_TOOL_CALL + len(self.call.pieces) if self.call else 0)

    @property
    def output(self) -> int:
        """Return all output tokens."""
        return self.thinking + self.visible


def tokens(text: str) -> int:
    """Count the tokens of a text: a made rule, see the head of this module."""
    return -(-len(text) // 4)


def text_of(content: Any) -> str:
    """Return the text of a message's content, in any of the formats; a picture counts as `PER_IMAGE` tokens of text."""
    match content:
        case None | str():
            return content or ""
        case list():
            return "".join(map(text_of, content))
        case {"text": str(text)} | {"thinking": str(text)}:
            return text
        case {"type": "image_url" | "image" | "input_image"}:
            return "\0" * 4 * PER_IMAGE
        case {"content": inner}:
            return text_of(inner)
        case _:
            return json.dumps(content, separators=(",", ":"))


def counted(texts: Iterable[str]) -> int:
    """Count the input tokens of messages."""
    return sum(PER_MESSAGE + tokens(text) for text in texts)


def thought(effort: str | None = None, budget: int | None = None) -> int:
    """Return the thinking tokens for an effort or for a budget."""
    return EFFORT.get(effort or "", 0) if budget is None else min(budget // THINKING_SHARE, EFFORT["medium"])


def draft(ask: Ask, prompt: str, *, thinking: int, limit: int | None, call: ToolCall | None = None) -> Draft:
    """Make up the answer to the last text of a request, no longer than `limit` tokens with its thinking."""
    seed = crc32(prompt.encode())
    wanted = ask.wish("output")
    asked = ask.wish("reasoning")
    thinking = thinking if asked is None else asked
    room = (limit or 1 << 30) - thinking
    if call and room >= PER_TOOL_CALL + len(call.pieces):
        return Draft([], thinking, call, cut=False)
    length = 12 + seed % 37 if wanted is None else max(wanted - thinking, 0)
    start = seed % len(WORDS)
    pieces = [WORDS[(start + step) % len(WORDS)] for step in range(min(length, max(room, 0)))]
    if pieces:
        pieces[0] = pieces[0].lstrip()
    return Draft(pieces, min(thinking, limit or thinking), None, cut=length > room)


def call_of(tools: Iterable[tuple[str, Mapping[str, Any]]], wanted: str | None) -> ToolCall | None:
    """Call the wanted tool, or the first of (name, JSON schema), with arguments made up after its schema."""
    offered = dict(tools)
    name = wanted if wanted in offered else next(iter(offered), None)
    if name is None:
        return None
    required = offered[name].get("properties") or {}
    arguments = json.dumps({key: _MADE_UP.get(str(rule.get("type")), "fake") for key, rule in required.items()})
    return ToolCall(name, [arguments[at : at + 4] for at in range(0, len(arguments), 4)])


_MADE_UP: Final[Mapping[str, object]] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}


@dataclass(slots=True)
class Memory:
    """The prompt caches of all models: which beginnings of prompts were seen before."""

    _seen: dict[tuple[str, int], None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def prefix(self, model: str, prompt: str, total: int) -> tuple[int, int]:
        """Cache a prompt by itself, as OpenAI does; give (tokens read, tokens written) in steps of 128."""
        if total < CACHE_LEAST:
            return 0, 0
        read, mark, known = 0, 0, True
        blocks = min(total // CACHE_BLOCK, len(prompt) // (4 * CACHE_BLOCK))
        for block in range(blocks):
            mark = hash((mark, prompt[block * 512 : block * 512 + 512]))
            known = self._known(model, mark) and known
            read += known
        read = read * CACHE_BLOCK if read * CACHE_BLOCK >= CACHE_LEAST else 0
        return read, blocks * CACHE_BLOCK - read

    def marked(self, model: str, blocks: Iterable[tuple[str, int, str | None]]) -> tuple[int, int, int]:
        """Cache up to the marks that a client set, as Anthropic does; give (read, written for 5m, written for 1h).

        A block is (text, tokens, "5m" | "1h" | None). What lies before a mark that was seen before is read; what lies
        between it and the last mark is written, for as long as the mark after it says.
        """
        mark, at, read, written = 0, 0, 0, {"5m": 0, "1h": 0}
        since = 0
        for text, size, ttl in blocks:
            mark, at = hash((mark, text)), at + size
            if ttl is None or at < CACHE_LEAST:
                continue
            if self._known(model, mark):
                read, written = at, {"5m": 0, "1h": 0}
            else:
                written[ttl] += at - since
            since = at
        return read, written["5m"], written["1h"]

    def _known(self, model: str, mark: int) -> bool:
        """Return whether a prefix was seen before, and remember it."""
        with self._lock:
            known = (model, mark) in self._seen
            self._seen[model, mark] = None
            if len(self._seen) > CACHE_ENTRIES:
                del self._seen[next(iter(self._seen))]
        return known
