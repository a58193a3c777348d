"""What a call may use and cost at most, before it is sent; and what it will probably use, by what its model did before.

The upper bound, side by side:

- Input: one token per byte of the request. Tokenizers of text work on bytes and never make more tokens than there are
  bytes; what formats add around a message is shorter than the JSON around it. What the bytes do not show is added by
  the allowances below: an image by URL, a stored file, a stored conversation, what a server-side tool reads.
- Output: the request's own limit, times the answers asked for; else the model's limit in the price table; else
  `OUTPUT`.
- Rates: the dearest that may apply: a cache write, a modality the request names, the price above a threshold, the tier
  asked for or the base tier, on or off peak.
- Server-side tools: their charge, times the uses that the request allows, else `TOOL_USES`.

An allowance is not a proof: it is what the README says `strict` rests on. Pure: no clock, no I/O.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.model.records import Billable, Usage
from tollspan.prices import price
from tollspan.wire.dialects.fields import texts_wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tollspan.budget.policy.budget import Assumed
    from tollspan.model.records import Call, Facts
    from tollspan.prices import PriceTable

CounterState = Any
"""A level of a tariff; the price engine's own type."""

OUTPUT: Final = 131_072
"""Output tokens assumed of a model whose limit neither the request nor the price table tells."""
CONTEXT: Final = 1_048_576
"""Input tokens assumed of what the provider keeps (a conversation, prompt, file or cache), unless it is known."""
IMAGE: Final = 10_000
"""Input tokens assumed of an image; `IMAGES` has the models that count more."""
IMAGES: Final = {"gpt-4o-mini": 50_000}
TOOL_USES: Final = 10
"""Uses of a server-side tool assumed where the request sets no limit."""
TOOL_INPUT: Final = 25_000
"""Input tokens assumed per use of a server-side tool: what it read is billed as input."""
MESSAGE: Final = 1024
"""Input tokens that providers add of their own: instructions for tools, forms of answers."""

_HELD: Final = re.compile(
    rb'"(?:previous_response_id|conversation|cachedContent|cached_content|file_id|fileUri|file_uri|file_url|document|'
    rb'input_file|container|prompt_id)"\s*:\s*[^\s"n]*["{\[]|"type"\s*:\s*"(?:document|file|input_file|container_upload)"'
)
_IMAGE: Final = re.compile(
    rb'"(?:image|image_url|input_image|inlineData|inline_data|video|video_url)"\s*:|"type"\s*:\s*"image"'
)
_TOOLS: Final = (
    ("web_search", "web_searches"),
    ("google_search", "web_searches"),
    ("googleSearch", "web_searches"),
    ("googleMaps", "maps_groundings"),
    ("google_maps", "maps_groundings"),
    ("code_interpreter", "code_sessions"),
    ("file_search", "file_searches"),
    ("web_fetch", None),
    ("url_context", None),
    ("urlContext", None),
    ("mcp", None),
)
"""Words in a tool's type that tell a server-side tool, and the unit that it is charged by."""
_DEARER: Final = (b"audio", b"AUDIO", b"video", b"VIDEO", b'"1h"')
"""What a request contains that may be charged at the rates of sound, moving pictures, or a cache for an hour."""
_PLAIN_SIDES: Final = ("input", "cache_write", "input_image"), ("output", "reasoning", "output_image")
_DEAR_SIDES: Final = (
    (*_PLAIN_SIDES[0], "cache_write_1h", "input_audio", "input_video"),
    (*_PLAIN_SIDES[1], "output_audio", "output_video"),
)
_SILENT: Final = frozenset({"embeddings", "rerank"})
"""Operations without output tokens."""
_SLOWEST_AUDIO: Final = 500  # bytes per second: no speech is sent with fewer
_RATES_FOR: Final = 60.0  # seconds that rates are kept before the table is asked again: prices may be dated
_KEPT: Final = 4096


class Bound(NamedTuple):
    """What one call may use at most: tokens in and out, and atto-dollars; `cost` None = no price is known."""

    input: int
    output: int
    cost: int | None

    @property
    def tokens(self) -> int:
        """Return all tokens."""
        return self.input + self.output


class Rates(NamedTuple):
    """Dearest rates of one model and terms, atto-dollars per token, as (above this many input tokens, in, out)."""

    levels: tuple[tuple[int, int, int], ...]
    max_output: int | None
    by_unit: bool

    def cost(self, tokens_in: int, tokens_out: int) -> int:
        """Return what so many tokens cost at most."""
        levels = self.levels
        if len(levels) == 1 and tokens_in > levels[0][0]:
            return tokens_in * levels[0][1] + tokens_out * levels[0][2]
        rate_in = rate_out = 0
        for floor, level_in, level_out in levels:
            if tokens_in > floor:
                rate_in, rate_out = max(rate_in, level_in), max(rate_out, level_out)
        return tokens_in * rate_in + tokens_out * rate_out


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestShape:
    """A request that is about to be sent, as the bounds see it.

    `size` is None where the body streams. `stated` is the cost in atto-dollars where it is known beforehand.
    """

    facts: Facts
    prices: tuple[str, ...]
    body: Mapping[str, Any]
    content: bytes | None
    size: int | None
    stated: int | None = None


class Bounds:
    """Upper bounds of calls, and expectations that follow what calls turned out to use."""

    def __init__(self, table: Callable[[], PriceTable]) -> None:
        """Price by the table that `table` gives."""
        self._table = table
        self._rates: dict[tuple[object, ...], tuple[float, PriceTable, Rates | None, Rates | None]] = {}
        self._held: OrderedDict[str, int] = OrderedDict()
        self._habits: dict[tuple[str, str], _Habit] = {}

    # Strict

    def strict(self, shape: RequestShape, now: float, assumed: Assumed | None = None) -> Bound:
        """Return the upper bound of a call (see the module's text)."""
        if shape.stated is not None:
            return Bound(0, 0, shape.stated)
        facts = shape.facts
        content = shape.content or b""
        tokens_in = (shape.size if shape.size is not None else CONTEXT) + MESSAGE
        if content and not is_plain_text(shape.body):
            tokens_in += self._unseen(facts, content)
        units, uses = (
            _server_tools(shape.body) if "tools" in shape.body or "web_search_options" in shape.body else ({}, 0)
        )
        tokens_in += uses * TOOL_INPUT
        rates = self._rates_of(shape, content, now)
        tokens_out = facts.max_output
        if tokens_out is None or facts.choice_count is not None or facts.operation in _SILENT or "prompt" in shape.body:
            tokens_out = self._output(shape, rates)
        if rates is None:
            cost = None if assumed is None else tokens_in * assumed.input + tokens_out * assumed.output
        else:
            cost = rates.cost(tokens_in, tokens_out)
            if units or rates.by_unit:
                cost += self._units(shape, units, now)
        return Bound(tokens_in, tokens_out, cost)

    def _unseen(self, facts: Facts, content: bytes) -> int:
        """Return the tokens of what the provider has and the bytes only name."""
        tokens = 0
        if b"image" in content or b"inline" in content or b"video" in content:
            each = next((size for name, size in IMAGES.items() if name in (facts.request_model or "")), IMAGE)
            tokens += len(_IMAGE.findall(content)) * each
        held = facts.previous_response_id
        if held is not None:
            tokens += self._held.get(held, CONTEXT)
        elif _may_hold(content) and _HELD.search(content) is not None:
            tokens += CONTEXT
        return tokens

    def _output(self, shape: RequestShape, rates: Rates | None) -> int:
        facts = shape.facts
        if facts.operation in _SILENT:
            return 0
        limit = facts.max_output
        if limit is None:
            limit = rates.max_output if rates is not None and rates.max_output else OUTPUT
        return limit * texts_wanted(shape.body, facts.choice_count)

    def _billable(self, shape: RequestShape, usage: Usage, tier: str | None) -> Billable:
        facts = shape.facts
        return Billable(
            usage=usage,
            price_providers=shape.prices,
            model=facts.request_model,
            request_model=facts.request_model,
            operation=facts.operation,
            tier=tier,
            geography=facts.geography,
            speed=facts.speed,
            region=facts.region,
            search_context=facts.search_context or "high",
        )

    def _rates_of(self, shape: RequestShape, content: bytes, now: float) -> Rates | None:
        facts = shape.facts
        table = self._table()
        key = (shape.prices, facts.request_model, facts.request_tier, facts.geography, facts.speed, facts.region)
        known = self._rates.get(key)
        if known is None or known[0] <= now or known[1] is not table:
            if len(self._rates) >= _KEPT:
                self._rates.clear()
            rates = self._dearest(shape, table, datetime.fromtimestamp(now, UTC))
            known = self._rates[key] = (now + _RATES_FOR, table, *rates)
        plain, dear = known[2], known[3]
        if dear is None:
            return plain
        for mark in _DEARER:
            if mark in content:
                return dear
        return plain

    def _dearest(self, shape: RequestShape, table: PriceTable, at: datetime) -> tuple[Rates | None, Rates | None]:
        """Return the dearest rates of a plain request, and others of one that may be charged for more than that."""
        model = shape.facts.request_model
        tariffs = [
            tariff
            for tier in {shape.facts.request_tier, None}
            if (tariff := table.tariff(self._billable(shape, Usage(), tier), model, model, at)) is not None
        ]
        if not tariffs:
            return None, None
        limit = max(tariff.row.max_output or 0 for tariff in tariffs) or None
        by_unit = any(tariff.by_unit for tariff in tariffs)
        levels = [level for tariff in tariffs for level in (*tariff.levels, *tariff.off_peak_levels)]
        plain = Rates(tuple(_level(level, *_PLAIN_SIDES) for level in levels), limit, by_unit)
        dear = Rates(tuple(_level(level, *_DEAR_SIDES) for level in levels), limit, by_unit)
        return plain, None if dear == plain else dear

    def _units(self, shape: RequestShape, units: dict[str, int], now: float) -> int:
        """Return what a call's units may cost: tools, searches, characters, seconds, images, the request itself."""
        counts: dict[str, int | float] = {**units}
        operation, size = shape.facts.operation, shape.size or 0
        if operation == "rerank":
            documents = shape.body.get("documents")
            counts["search_units"] = 1 + (len(documents) if isinstance(documents, list) else size) // 100
        elif operation == "generate_content":
            answers = shape.body.get("n")
            counts["output_images"] = counts["input_images"] = answers if type(answers) is int else 1
            counts["input_characters"] = size
            counts["input_seconds"] = counts["output_seconds"] = size / _SLOWEST_AUDIO
        found = price(
            self._billable(shape, Usage(input=0, output=0, units=counts), shape.facts.request_tier),
            self._table(),
            datetime.fromtimestamp(now, UTC),
        )
        return found.amount or 0

    # Expected

    def expected(self, shape: RequestShape, bound: Bound, provider: str, now: float) -> Bound:
        """Return what a call will probably use, by what its model did before; `bound` before that, and never more."""
        if shape.stated is not None:
            return bound
        habit = self._habits.get((provider, shape.facts.request_model or ""))
        if habit is None or not habit.calls:
            return bound
        tokens_in = min(round(shape.size * habit.tokens_per_byte if shape.size else habit.input), bound.input)
        tokens_out = min(round(habit.output), bound.output)
        rates = self._rates_of(shape, shape.content or b"", now)
        if bound.cost is None or rates is None:
            whole = max(bound.tokens, 1)
            cost = None if bound.cost is None else -(-bound.cost * (tokens_in + tokens_out) // whole)
        else:
            cost = min(rates.cost(tokens_in, tokens_out), bound.cost)
        return Bound(tokens_in, tokens_out, cost)

    def learn(self, call: Call, size: int | None) -> None:
        """Remember what a call used, for expectations, and as the start of a conversation."""
        usage = call.usage
        if usage is None or not call.billable:
            return
        if call.response_id is not None and usage.input is not None:
            self._held[call.response_id] = usage.input + (usage.output or 0)
            if len(self._held) > _KEPT:
                self._held.popitem(last=False)
        key = call.provider, call.request_model or ""
        habit = self._habits.get(key)
        if habit is None:
            if len(self._habits) >= _KEPT:
                self._habits.clear()
            habit = self._habits.setdefault(key, _Habit())
        habit.add(usage, size)


class _Habit:
    """Running averages of one model; the last calls weigh most."""

    __slots__ = ("calls", "input", "output", "tokens_per_byte")

    def __init__(self) -> None:
        self.calls = 0
        self.input = self.output = 0.0
        self.tokens_per_byte = 0.25

    def add(self, usage: Usage, size: int | None) -> None:
        self.calls += 1
        weight = 0.1 if self.calls > 10 else 1 / self.calls  # noqa: PLR2004 - from there on the first calls weigh less
        read = usage.input or 0
        self.input += (read - self.input) * weight
        self.output += ((usage.output or 0) - self.output) * weight
        if size:
            self.tokens_per_byte += (read / size - self.tokens_per_byte) * weight


_HOLDERS: Final = frozenset(
    {"previous_response_id", "conversation", "cachedContent", "cached_content", "container", "prompt", "file", "image"}
)
_TEXTS: Final = ("messages", "input", "contents", "system", "instructions")


def is_plain_text(body: Mapping[str, Any]) -> bool:
    """Return whether a request is messages of text and nothing else, so its bytes need not be searched for more."""
    if not body or not _HOLDERS.isdisjoint(body):
        return False
    for key in _TEXTS:
        value = body.get(key)
        if value is None or type(value) is str:
            continue
        if type(value) is not list:
            return False
        for item in value:
            content = item.get("content") if type(item) is dict else item
            if type(content) is not str and not _are_texts(content):
                return False
    return True


def _are_texts(parts: object) -> bool:
    return type(parts) is list and all(
        type(part) is dict and part.get("type") in _TEXT_TYPES and type(part.get("text")) is str for part in parts
    )


_TEXT_TYPES: Final = ("text", "input_text", "output_text")  # no set: what a body has there may have no hash


def _may_hold(content: bytes) -> bool:
    """Return whether `_HELD` could find anything: looking for single words costs a tenth of it."""
    return (
        b"file" in content
        or b"document" in content
        or b"conversation" in content
        or b"cached" in content
        or b"container" in content
        or b"prompt_id" in content
    )


def _level(level: CounterState, side_in: Iterable[str], side_out: Iterable[str]) -> tuple[int, int, int]:
    """Return a level's threshold and dearest rates in whole atto-dollars, rounded up."""
    rates = [-(-max(0, *(getattr(level, name) for name in side)) // level.scale) for side in (side_in, side_out)]
    return level.floor, rates[0], rates[1]


def _server_tools(body: Mapping[str, Any]) -> tuple[dict[str, int], int]:
    """Return the units that a request's server-side tools may be charged, and how often they may run."""
    units: dict[str, int] = {}
    total = 0
    limit = body.get("max_tool_calls")
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        kind = str(tool.get("type") or " ".join(tool)) if isinstance(tool, dict) else ""
        for word, unit in _TOOLS:
            if word in kind:
                told = tool.get("max_uses", limit)
                uses = told if type(told) is int and told >= 0 else TOOL_USES
                total += uses
                if unit is not None:
                    units[unit] = units.get(unit, 0) + uses
                break
    if "web_search_options" in body:
        units["web_searches"], total = units.get("web_searches", 0) + 1, total + 1
    return units, total
