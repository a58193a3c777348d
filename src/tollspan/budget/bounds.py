"""What a call may use and cost at most, before it is sent (`expectations` says what it will probably use).

The upper bound consists of:

- Input: one token per byte of text. Tokenizers of text work on bytes and never produce more tokens than there are
  bytes; what formats add around a message is shorter than the JSON around it. Images, sounds and documents are counted
  by what their headers say (`request_parts.py`, `tokens/media`), and never as text. What the provider stores is counted
  by what calls with it have used here, else by the model's context.
- Output: the request's own limit, times the number of requested choices; else the model's limit in the price table;
  else `OUTPUT`.
- Rates: the most expensive that may apply (`rates.py`).
- Server-side tools: their charge, times the uses that the request allows (`server_tools.py`).
- Speech is bounded by its characters, transcription by its seconds (`sound_bounds.py`); embeddings by their input.

An allowance is an assumption, not a proof (docs/explanation/budgets-guarantees.md); where not even that is possible,
`Bound.unbounded` says what it is, and a budget that is `hard` refuses the call. There is no clock here, and no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.budget.rates import RateBook, Rates
from tollspan.budget.request_parts import Attachment, Parts, Unbounded, read_parts
from tollspan.budget.server_tools import NO_TOOLS, TOOL_INPUT, server_tools
from tollspan.budget.sound_bounds import SOUND_DIALECTS, sound_of
from tollspan.budget.stored_context import StoredContext
from tollspan.tokens.media.attachments import SLOWEST_SOUND, is_media
from tollspan.tokens.media.source import Plain
from tollspan.wire.dialects.fields import digits, texts_wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tollspan.budget.policy.budget import Assumed
    from tollspan.budget.server_tools import ToolUse
    from tollspan.model.records import Call, Facts
    from tollspan.prices import PriceTable

OUTPUT: Final = 131_072
"""Output tokens assumed for a model whose limit is neither in the request nor in the price table."""
CONTEXT: Final = 1_048_576
"""Input tokens assumed for what the provider stores, of a model whose context is not in the price table."""
IMAGE_OUTPUT: Final = 20_000
"""Output tokens assumed for an image that is drawn: three times the largest that OpenAI documents."""
MESSAGE: Final = 1024
"""Input tokens that providers add: instructions for tools, response formats."""

STORED: Final = Unbounded("stored context of unknown size", "Send the messages and files themselves")
STREAMED: Final = Unbounded("a body that is sent as a stream", "Send it as a whole, with its length")

_EXPENSIVE: Final = (b"audio", b"AUDIO", b"video", b"VIDEO", b'"1h"')
"""Marks of a request that may be charged at the rates of audio, video, or a cache for an hour."""
_NO_OUTPUT: Final = frozenset({"decisions", "embeddings", "rerank"})
"""Operations without output tokens, or that are not billed for them."""
_SCANNED: Final = 32_768
"""Bytes of a body that may be searched; of a longer one its parts are looked at."""


class Bound(NamedTuple):
    """The upper bound of one call.

    Attributes:
        input: input tokens.
        output: output tokens.
        cost: atto-dollars; None = no price is known.
        rates: the prices of tokens; None if the cost is not computed from them.
        units: the part of the cost that is for other units than tokens.
        is_text: whether the request has only text.
        unbounded: what cannot be bounded in the request, and is only assumed; None = everything is bounded.
        stored: the ids of stored context that the request names.
    """

    input: int
    output: int
    cost: int | None
    rates: Rates | None = None
    units: int = 0
    is_text: bool = True
    unbounded: Unbounded | None = None
    stored: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """Return input and output tokens together."""
        return self.input + self.output

    def with_output(self, output: int) -> Bound:
        """Return the bound with another number of output tokens."""
        if self.rates is None:
            return self._replace(output=output)
        return self._replace(output=output, cost=self.rates.cost(self.input, output) + self.units)

    def with_input(self, tokens: int) -> Bound:
        """Return the bound with another number of input tokens."""
        if self.rates is None:
            return self._replace(input=tokens)
        return self._replace(input=tokens, cost=self.rates.cost(tokens, self.output) + self.units)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestShape:
    """The parts of a request that its bounds depend on.

    Attributes:
        facts: what its dialect has read of it.
        prices: the price table's labels of its provider.
        body: its JSON body, or the fields of its form; empty if there is none.
        content: its bytes; None if the body streams.
        size: the length of its body in bytes; None if it is not known.
        dialect: the name of its format.
        files: the files of its form.
        stated: its cost in atto-dollars, if that is known beforehand.
    """

    facts: Facts
    prices: tuple[str, ...]
    body: Mapping[str, Any]
    content: bytes | None
    size: int | None
    dialect: str = ""
    files: tuple[Attachment, ...] = ()
    stated: int | None = None


class Bounds:
    """Upper bounds of calls.

    Attributes:
        stored: what is known of context that the provider stores.
    """

    def __init__(self, table: Callable[[], PriceTable]) -> None:
        """Price by the table that `table` returns."""
        self._rates = RateBook(table)
        self.stored = StoredContext()

    def strict(self, shape: RequestShape, now: float, assumed: Assumed | None = None) -> Bound:
        """Return the upper bound of a call (see the module's text)."""
        if shape.stated is not None:
            return Bound(0, 0, shape.stated)
        facts, body = shape.facts, shape.body
        parts = None if _is_small_text(shape) else _parts_of(shape)
        rates = self._rates_of(shape, parts, now)
        if rates is None and assumed is not None:
            rates = Rates(((0, assumed.input, assumed.output),))
        if shape.dialect in SOUND_DIALECTS:
            return self._sound(shape, parts, rates, now)
        tokens_in = (CONTEXT if shape.size is None else shape.size) + MESSAGE
        unbounded: Unbounded | None = None
        stored: tuple[str, ...] = ()
        if parts is not None:
            tokens_in += parts.tokens - parts.encoded
            unbounded = parts.unbounded
            if parts.stored:
                stored = tuple(parts.stored)
                size, unknown = self._stored_size(stored, rates)
                tokens_in, unbounded = tokens_in + size, unbounded or unknown
        tools = server_tools(body) if "tools" in body or "web_search_options" in body else NO_TOOLS
        tokens_in += tools.uses * TOOL_INPUT
        tokens_out = facts.max_output
        if tokens_out is None or facts.choice_count is not None or facts.operation in _NO_OUTPUT or "prompt" in body:
            tokens_out = _output(shape, rates)
        is_text, unbounded = parts is None or parts.is_text, unbounded or tools.unlimited
        if rates is None:
            return Bound(tokens_in, tokens_out, None, None, 0, is_text, unbounded, stored)
        units = self._units(shape, tools, now) if tools.units or rates.by_unit else 0
        cost = rates.cost(tokens_in, tokens_out) + units
        return Bound(tokens_in, tokens_out, cost, rates, units, is_text, unbounded, stored)

    def _stored_size(self, stored: Iterable[str], rates: Rates | None) -> tuple[int, Unbounded | None]:
        """Return the tokens of stored context, and what cannot be bounded of it."""
        context = None if rates is None else rates.max_input
        known = self.stored.size(stored)
        if known is not None:
            return known if context is None else min(known, context), None
        return (CONTEXT, STORED) if context is None else (context, None)

    def _rates_of(self, shape: RequestShape, parts: Parts | None, now: float) -> Rates | None:
        plain, expensive = self._rates.of(shape.facts, shape.prices, now)
        if expensive is None:
            return plain
        content = shape.content
        if parts is not None:
            is_expensive = parts.is_expensive or shape.facts.output_type == "speech" or "modalities" in shape.body
            if is_expensive or content is None or len(content) > _SCANNED:
                return expensive if is_expensive else plain
        for mark in _EXPENSIVE:
            if mark in (content or b""):
                return expensive
        return plain

    def _sound(self, shape: RequestShape, parts: Parts | None, rates: Rates | None, now: float) -> Bound:
        """Return the bound of speech, or of a transcription."""
        sound = sound_of(shape.dialect, shape.body, shape.size, parts)
        if rates is None:
            return Bound(sound.input, sound.output, None, unbounded=sound.unbounded)
        units = self._rates.units(shape.facts, shape.prices, sound.units, now) if rates.by_unit else 0
        if not rates.counts_tokens:
            return Bound(0, 0, units, units=units, is_text=False, unbounded=sound.unbounded)
        tokens_out = min(sound.output, rates.max_output or sound.output)
        cost = rates.cost(sound.input, tokens_out)  # the provider states tokens or units, and is paid for one of them
        priced = rates if cost >= units else None
        return Bound(sound.input, tokens_out, max(cost, units), priced, is_text=False, unbounded=sound.unbounded)

    def _units(self, shape: RequestShape, tools: ToolUse, now: float) -> int:
        """Return the highest cost of a call's units: tools, searches, images or requests."""
        counts: dict[str, int | float] = {**tools.units}
        operation, size = shape.facts.operation, shape.size or 0
        if operation == "rerank":
            documents = shape.body.get("documents")
            counts["search_units"] = 1 + (len(documents) if isinstance(documents, list) else size) // 100
        elif operation == "generate_content":
            counts["output_images"] = counts["input_images"] = _images_wanted(shape.body)
            counts["input_characters"] = size
            counts["input_seconds"] = counts["output_seconds"] = size / SLOWEST_SOUND
        return self._rates.units(shape.facts, shape.prices, counts, now)

    def learn(self, call: Call, stored: Iterable[str] = ()) -> None:
        """Remember what a call used as the size of its conversation, and of the `stored` context that it named."""
        if call.billable:
            self.stored.learn(call, stored)


def _parts_of(shape: RequestShape) -> Parts:
    """Return what a request has besides text."""
    content, files, is_sound = shape.content, shape.files, shape.dialect in SOUND_DIALECTS
    if content and not shape.body and not files and (is_sound or is_media(Plain(content))):
        files = (Attachment(Plain(content), ""),)  # the whole body is an image, or a sound
    if is_sound:
        files = tuple([file._replace(media_type="audio") for file in files])  # whatever the form calls it
    parts = read_parts(shape.body, files, shape.facts.request_model)
    if shape.size is None or (content is None and not shape.body):
        parts.unbounded = STREAMED
    return parts


def _output(shape: RequestShape, rates: Rates | None) -> int:
    facts = shape.facts
    if facts.operation in _NO_OUTPUT:
        return 0
    if shape.dialect == "openai_images":
        return IMAGE_OUTPUT * _images_wanted(shape.body)
    limit = facts.max_output
    if limit is None:
        limit = rates.max_output if rates is not None and rates.max_output else OUTPUT
    return limit * texts_wanted(shape.body, facts.choice_count)


def _images_wanted(body: Mapping[str, Any]) -> int:
    """Return the number of images that a request orders; in a form it is text."""
    wanted = body.get("n")
    return (wanted if type(wanted) is int else digits(wanted) if type(wanted) is str else None) or 1


_TEXT_FIELDS: Final = frozenset({"messages", "input", "contents", "system", "instructions"})
_SETTINGS: Final = frozenset(
    {
        "cache_control", "generationConfig", "logit_bias", "metadata", "output_config", "reasoning", "response_format",
        "safetySettings", "stop", "stop_sequences", "stream_options", "systemInstruction", "text", "thinking",
        "tool_choice", "toolConfig", "tools", "web_search_options",
    }
)  # fmt: skip
"""Keys of a body whose values have no attachments, and name nothing that is stored."""
_PLAIN_KEYS: Final = frozenset(
    {
        "arguments", "call_id", "content", "function_call", "id", "name", "output", "parts", "refusal", "role",
        "status", "tool_call_id", "tool_calls", "type",
    }
)  # fmt: skip
"""Keys of a message of text, of a call of a tool and of its result."""
_CALLS: Final = frozenset({"arguments", "function_call", "output", "tool_calls"})
_ROLE_AND_CONTENT: Final = 2  # keys of nearly all messages
_ROLES: Final = ("user", "assistant", "system", "tool", "developer", "model")  # of nearly all messages
_TEXT_TYPES: Final = ("text", "input_text", "output_text")  # not a set: the value in a body may be unhashable
_SHORT: Final = 256  # characters of a setting


def _is_small_text(shape: RequestShape) -> bool:
    """Return whether a request is short and has only messages of text, so that nothing in it needs to be looked at."""
    content = shape.content
    return content is not None and len(content) <= _SCANNED and not shape.files and is_plain_text(shape.body)


def is_plain_text(body: Mapping[str, Any]) -> bool:
    """Return whether a request has only messages of text."""
    for key, value in body.items():
        if key in _TEXT_FIELDS:
            if type(value) is not str and not _are_messages(value):
                return False
        elif key in _STORES or not (key in _SETTINGS or _is_setting(value)):
            return False
    return bool(body)


_STORES: Final = frozenset(
    {
        "cachedContent", "cached_content", "container", "conversation", "file", "image", "previous_interaction_id",
        "previous_response_id", "prompt",
    }
)  # fmt: skip


def _is_setting(value: object) -> bool:
    """Return whether the value of an unknown key is no attachment."""
    if type(value) is str:
        return len(value) <= _SHORT and not value.startswith("data:")
    return type(value) not in {list, dict}


def _are_messages(items: object) -> bool:
    if type(items) is not list:
        return items is None
    for item in items:
        if type(item) is dict:
            content = item.get("content")
            if type(content) is str and len(item) == _ROLE_AND_CONTENT and item.get("role") in _ROLES:
                continue
            if _has_data_url(item) or not item.keys() <= _PLAIN_KEYS or type(item.get("output", "")) is not str:
                return False
            content = content or item.get("parts")
            if content is None and not _CALLS.isdisjoint(item):
                continue  # a message that only calls tools, or the result of one
        else:
            content = item
        if type(content) is not str and not _are_texts(content):
            return False
    return True


def _are_texts(parts: object) -> bool:
    return type(parts) is list and all(type(part) is dict and _is_text(part) for part in parts)


def _has_data_url(item: Mapping[str, Any]) -> bool:
    return any(type(value) is str and value.startswith("data:") for value in item.values())


def _is_text(part: Mapping[str, Any]) -> bool:
    if _has_data_url(part):
        return False
    if type(part.get("text")) is str:
        return part.get("type") in _TEXT_TYPES if "type" in part else len(part) == 1
    match part.get("type"):
        case "tool_use":
            return True  # its input is JSON, which the model reads
        case "tool_result":
            content = part.get("content")
            return type(content) is str or _are_texts(content)
    return False
