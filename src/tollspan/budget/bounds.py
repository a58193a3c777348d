"""What a call may use and cost at most, before it is sent (`expectations` says what it will probably use).

The upper bound consists of:

- Input: one token per byte of the request. Tokenizers of text work on bytes and never produce more tokens than there
  are bytes; what formats add around a message is shorter than the JSON around it. The allowances below add what the
  bytes do not show: an image by URL, a stored file, a stored conversation, what a server-side tool reads.
- Output: the request's own limit, times the number of requested choices; else the model's limit in the price table;
  else `OUTPUT`.
- Rates: the most expensive that may apply: a cache write, a modality that the request names, the price above a
  threshold, the requested tier or the base tier, on or off peak.
- Server-side tools: their charge, times the uses that the request allows, else `TOOL_USES`.

An allowance is an assumption, not a proof (docs/explanation/budgets-guarantees.md). There is no clock here, and no I/O.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.model.records import Billable, Usage
from tollspan.prices import price
from tollspan.wire.batch_requests import TIER
from tollspan.wire.dialects.fields import texts_wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tollspan.budget.policy.budget import Assumed
    from tollspan.model.records import Call, Facts
    from tollspan.prices import PriceTable
    from tollspan.prices.tariff import Level

OUTPUT: Final = 131_072
"""Output tokens assumed for a model whose limit is neither in the request nor in the price table."""
CONTEXT: Final = 1_048_576
"""Input tokens assumed for what the provider stores (a conversation, prompt, file or cache), unless it is known."""
IMAGE: Final = 10_000
"""Input tokens assumed for an image; `IMAGES` has the models that count more."""
IMAGES: Final = {"gpt-4o-mini": 50_000}
TOOL_USES: Final = 10
"""Uses of a server-side tool assumed if the request sets no limit."""
TOOL_INPUT: Final = 25_000
"""Input tokens assumed per use of a server-side tool: what it reads is billed as input."""
MESSAGE: Final = 1024
"""Input tokens that providers add: instructions for tools, response formats."""

_STORED: Final = re.compile(
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
"""Words in the type of a server-side tool, and the unit that it is charged by."""
_EXPENSIVE: Final = (b"audio", b"AUDIO", b"video", b"VIDEO", b'"1h"')
"""Marks of a request that may be charged at the rates of audio, video, or a cache for an hour."""
_PLAIN_SIDES: Final = ("input", "cache_write", "input_image"), ("output", "reasoning", "output_image")
_EXPENSIVE_SIDES: Final = (
    (*_PLAIN_SIDES[0], "cache_write_1h", "input_audio", "input_video"),
    (*_PLAIN_SIDES[1], "output_audio", "output_video"),
)
_NO_OUTPUT: Final = frozenset({"embeddings", "rerank"})
"""Operations without output tokens."""
_SLOWEST_AUDIO: Final = 500  # bytes per second: no speech is encoded with fewer
_RATES_EXPIRE: Final = 60.0  # seconds until the table is read again: prices may be dated
_MAX_REMEMBERED: Final = 4096


class Rates(NamedTuple):
    """The most expensive rates of one model and its terms.

    Attributes:
        levels: (threshold in input tokens, input rate, output rate), rates in atto-dollars per token.
        max_output: the model's output limit in tokens; None if it is not known.
        by_unit: whether the model is charged by units other than tokens.
    """

    levels: tuple[tuple[int, int, int], ...]
    max_output: int | None
    by_unit: bool

    def cost(self, tokens_in: int, tokens_out: int) -> int:
        """Return the highest cost of these tokens, in atto-dollars."""
        levels = self.levels
        if len(levels) == 1 and tokens_in > levels[0][0]:
            return tokens_in * levels[0][1] + tokens_out * levels[0][2]
        rate_in = rate_out = 0
        for floor, level_in, level_out in levels:
            if tokens_in > floor:
                rate_in, rate_out = max(rate_in, level_in), max(rate_out, level_out)
        return tokens_in * rate_in + tokens_out * rate_out


class Bound(NamedTuple):
    """What one call uses at most, or will probably use.

    Attributes:
        input: input tokens.
        output: output tokens of all requested texts.
        cost: atto-dollars; None = no price is known.
        rates: the prices of tokens; None if the cost is not computed from them.
        units: the part of the cost that is for other units than tokens.
        is_text: whether the request has only messages of text.
    """

    input: int
    output: int
    cost: int | None
    rates: Rates | None = None
    units: int = 0
    is_text: bool = True

    @property
    def tokens(self) -> int:
        """Return input and output tokens together."""
        return self.input + self.output

    def with_output(self, output: int) -> Bound:
        """Return the bound with another number of output tokens."""
        if self.rates is None:
            return self._replace(output=output)
        return self._replace(output=output, cost=self.rates.cost(self.input, output) + self.units)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestShape:
    """The parts of a request that its bounds depend on.

    Attributes:
        facts: what its dialect has read of it.
        prices: the price table's labels of its provider.
        body: its JSON body; empty if there is none.
        content: its bytes; None if the body streams.
        size: the length of its body in bytes; None if it is not known.
        stated: its cost in atto-dollars, if that is known beforehand.
    """

    facts: Facts
    prices: tuple[str, ...]
    body: Mapping[str, Any]
    content: bytes | None
    size: int | None
    stated: int | None = None


class Bounds:
    """Upper bounds of calls."""

    def __init__(self, table: Callable[[], PriceTable]) -> None:
        """Price by the table that `table` returns."""
        self._table = table
        self._rates: dict[tuple[object, ...], tuple[float, PriceTable, Rates | None, Rates | None]] = {}
        self._conversations: OrderedDict[str, int] = OrderedDict()

    def strict(self, shape: RequestShape, now: float, assumed: Assumed | None = None) -> Bound:
        """Return the upper bound of a call (see the module's text)."""
        if shape.stated is not None:
            return Bound(0, 0, shape.stated)
        facts = shape.facts
        content = shape.content or b""
        tokens_in = (shape.size if shape.size is not None else CONTEXT) + MESSAGE
        is_text = not content or is_plain_text(shape.body)
        if not is_text:
            tokens_in += self._unseen(facts, content)
        units, uses = (
            _server_tools(shape.body) if "tools" in shape.body or "web_search_options" in shape.body else ({}, 0)
        )
        tokens_in += uses * TOOL_INPUT
        rates = self._rates_of(shape, content, now)
        tokens_out = facts.max_output
        if (
            tokens_out is None
            or facts.choice_count is not None
            or facts.operation in _NO_OUTPUT
            or "prompt" in shape.body
        ):
            tokens_out = self._output(shape, rates)
        if rates is None:
            if assumed is None:
                return Bound(tokens_in, tokens_out, None, is_text=is_text)
            rates = Rates(((-1, assumed.input, assumed.output),), None, by_unit=False)
        other = self._units(shape, units, now) if units or rates.by_unit else 0
        return Bound(tokens_in, tokens_out, rates.cost(tokens_in, tokens_out) + other, rates, other, is_text)

    def _unseen(self, facts: Facts, content: bytes) -> int:
        """Return the tokens of what the provider stores and the bytes only name."""
        tokens = 0
        if b"image" in content or b"inline" in content or b"video" in content:
            each = next((size for name, size in IMAGES.items() if name in (facts.request_model or "")), IMAGE)
            tokens += len(_IMAGE.findall(content)) * each
        previous = facts.previous_response_id
        if previous is not None:
            tokens += self._conversations.get(previous, CONTEXT)
        elif _may_name_stored(content) and _STORED.search(content) is not None:
            tokens += CONTEXT
        return tokens

    def _output(self, shape: RequestShape, rates: Rates | None) -> int:
        facts = shape.facts
        if facts.operation in _NO_OUTPUT:
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
            if len(self._rates) >= _MAX_REMEMBERED:
                self._rates.clear()
            rates = self._rates_at(shape, table, datetime.fromtimestamp(now, UTC))
            known = self._rates[key] = (now + _RATES_EXPIRE, table, *rates)
        plain, expensive = known[2], known[3]
        if expensive is None:
            return plain
        for mark in _EXPENSIVE:
            if mark in content:
                return expensive
        return plain

    def _rates_at(self, shape: RequestShape, table: PriceTable, at: datetime) -> tuple[Rates | None, Rates | None]:
        """Return the most expensive rates of a plain request, and of one with `_EXPENSIVE` parts if they differ."""
        model = shape.facts.request_model
        tariffs = [
            tariff
            for tier in ({TIER} if shape.facts.request_tier == TIER else {shape.facts.request_tier, None})
            if (tariff := table.tariff(self._billable(shape, Usage(), tier), model, model, at)) is not None
        ]
        if not tariffs:
            return None, None
        limit = max(tariff.row.max_output or 0 for tariff in tariffs) or None
        by_unit = any(tariff.by_unit for tariff in tariffs)
        levels = [level for tariff in tariffs for level in (*tariff.levels, *tariff.off_peak_levels)]
        plain = Rates(tuple(_level(level, *_PLAIN_SIDES) for level in levels), limit, by_unit)
        expensive = Rates(tuple(_level(level, *_EXPENSIVE_SIDES) for level in levels), limit, by_unit)
        return plain, None if expensive == plain else expensive

    def _units(self, shape: RequestShape, units: dict[str, int], now: float) -> int:
        """Return the highest cost of a call's units: tools, searches, characters, seconds, images or requests."""
        counts: dict[str, int | float] = {**units}
        operation, size = shape.facts.operation, shape.size or 0
        if operation == "rerank":
            documents = shape.body.get("documents")
            counts["search_units"] = 1 + (len(documents) if isinstance(documents, list) else size) // 100
        elif operation == "generate_content":
            choices = shape.body.get("n")
            counts["output_images"] = counts["input_images"] = choices if type(choices) is int else 1
            counts["input_characters"] = size
            counts["input_seconds"] = counts["output_seconds"] = size / _SLOWEST_AUDIO
        cost = price(
            self._billable(shape, Usage(input=0, output=0, units=counts), shape.facts.request_tier),
            self._table(),
            datetime.fromtimestamp(now, UTC),
        )
        return cost.amount or 0

    def learn(self, call: Call) -> None:
        """Remember what a call used, as the size of its conversation."""
        usage = call.usage
        if usage is None or not call.billable:
            return
        if call.response_id is not None and usage.input is not None:
            self._conversations[call.response_id] = usage.input + (usage.output or 0)
            if len(self._conversations) > _MAX_REMEMBERED:
                self._conversations.popitem(last=False)


_NOT_PLAIN: Final = frozenset(
    {"previous_response_id", "conversation", "cachedContent", "cached_content", "container", "prompt", "file", "image"}
)
_TEXT_FIELDS: Final = ("messages", "input", "contents", "system", "instructions")


def is_plain_text(body: Mapping[str, Any]) -> bool:
    """Return whether a request has only messages of text, so that its bytes need not be searched for other parts."""
    if not body or not _NOT_PLAIN.isdisjoint(body):
        return False
    for key in _TEXT_FIELDS:
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


_TEXT_TYPES: Final = ("text", "input_text", "output_text")  # not a set: the value in a body may be unhashable


def _may_name_stored(content: bytes) -> bool:
    """Return whether `_STORED` can match: to search for single words takes a tenth of its time."""
    return (
        b"file" in content
        or b"document" in content
        or b"conversation" in content
        or b"cached" in content
        or b"container" in content
        or b"prompt_id" in content
    )


def _level(level: Level, side_in: Iterable[str], side_out: Iterable[str]) -> tuple[int, int, int]:
    """Return a level's threshold and its most expensive rates in atto-dollars, rounded up."""
    rates = [-(-max(0, *(getattr(level, name) for name in side)) // level.scale) for side in (side_in, side_out)]
    return level.floor, rates[0], rates[1]


def _server_tools(body: Mapping[str, Any]) -> tuple[dict[str, int], int]:
    """Return the units that a request's server-side tools may be charged, and the number of times they may run."""
    units: dict[str, int] = {}
    total = 0
    limit = body.get("max_tool_calls")
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        tool_type = str(tool.get("type") or " ".join(tool)) if isinstance(tool, dict) else ""
        for word, unit in _TOOLS:
            if word in tool_type:
                max_uses = tool.get("max_uses", limit)
                uses = max_uses if type(max_uses) is int and max_uses >= 0 else TOOL_USES
                total += uses
                if unit is not None:
                    units[unit] = units.get(unit, 0) + uses
                break
    if "web_search_options" in body:
        units["web_searches"], total = units.get("web_searches", 0) + 1, total + 1
    return units, total
