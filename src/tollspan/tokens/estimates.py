"""Estimates of tokens that no provider has counted: `input_tokens` and `output_tokens` return a value with bounds.

A request is taken apart into what its model reads (text, tools, schemas, media), and each part is counted in the way of
the model's family (`model_families.py`). That is more precise than a ratio of characters: half of all estimates are
within a seventh of the provider's count, while characters miss by a third. `python -m benchmarks.estimates` reports the
errors on a file of recordings, by provider. What a request does not show (a stored conversation, what a provider's
tools searched) is not guessed, except the system prompt of a provider that is known to add one
(docs/explanation/estimates.md).

Pure: no I/O, no state. Long texts are measured by samples, so that an estimate takes milliseconds at most.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.tokens.model_families import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tollspan.tokens.model_families import Family
    from tollspan.tokens.prompting import Prompting

    Count = Callable[[str], int]


class Bounds(NamedTuple):
    """An estimate, and the bounds of a range that holds the true count about nine times in ten on recorded traffic."""

    low: int
    value: int
    high: int


@dataclass(slots=True)
class Sizes:
    """The parts of a request that its model reads.

    Attributes:
        text: all text.
        tools: the definitions of tools, as JSON.
        forms: the schemas of the response, as JSON.
        messages: the number of messages.
        calls: the number of tool calls in them.
        with_thoughts: whether reasoning counts as text, as in a response.
        tool_count: the number of tools.
        tokens: the number of tokens in texts that are sent as arrays of tokens.
        thoughts: the characters of encrypted thoughts that are sent back.
        is_chat: there are messages, which a template surrounds, and not a bare prompt.
        of_messages: they are those of a chat completion.
        tool_choice: "any" if a tool must be used, "none" if none may be, else "auto".
        is_json: the response must be JSON.
        media: each image, sound, video or document, by kind.
    """

    text: str = ""
    tools: str = ""
    forms: str = ""
    messages: int = 0
    calls: int = 0
    with_thoughts: bool = False
    tool_count: int = 0
    tokens: int = 0
    thoughts: int = 0
    is_chat: bool = True
    of_messages: bool = False
    tool_choice: str = "auto"
    is_json: bool = False
    media: list[str] = field(default_factory=list)


_CONTENT: Final = (
    "messages",
    "input",
    "system",
    "contents",
    "content",
    "systemInstruction",
    "system_instruction",
    "instructions",
    "prompt",
    "suffix",
    "inputs",
    "inputText",
    "texts",
    "message",
    "chat_history",
    "preamble",
    "query",
    "documents",
    "requests",
    "instances",
    "text",
)
"""Keys of a request, in any format, whose values the model reads."""

_BESIDE: Final = frozenset(
    {
        "annotations",
        "avgLogprobs",
        "cachePoint",
        "cache_control",
        "call_id",
        "content_filter_results",
        "detail",
        "encrypted_content",
        "finishReason",
        "finish_reason",
        "format",
        "id",
        "index",
        "logprobs",
        "metadata",
        "mimeType",
        "mime_type",
        "media_type",
        "model",
        "name",
        "obfuscation",
        "phase",
        "providerMetadata",
        "provider_metadata",
        "role",
        "safetyRatings",
        "signature",
        "status",
        "stopReason",
        "stop_reason",
        "stop_sequence",
        "thoughtSignature",
        "thought_signature",
        "toolUseId",
        "tool_call_id",
        "tool_use_id",
        "type",
        "usage",
        "verbosity",
    }
)
"""Keys beside content whose values are not content."""

_THINKING: Final = ("reasoning", "redacted_thinking", "thinking")
"""Types of a block, or an item, that holds a thought."""

_THOUGHTS: Final = ("reasoning_content", "reasoning", "reasoning_details")
"""Keys of a message for the model's thoughts; some servers send the same text under two of them."""

_DATA: Final = frozenset({"args", "arguments", "input", "json", "response", "output", "result"})
"""Keys whose objects the model reads as JSON: arguments of a tool call, and its result."""

_MEDIA: Final = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "images": "image",
    "input_audio": "audio",
    "audio": "audio",
    "video": "video",
    "video_url": "video",
    "document": "document",
    "document_url": "document",
    "input_file": "document",
    "file": "document",
    "inlineData": "",
    "inline_data": "",
    "fileData": "",
    "file_data": "",
}
"""Blocks of content that are not text, by kind; empty if the kind is in the block's media type."""


def sizes(body: Mapping[str, Any]) -> Sizes:
    """Return the parts of a request's JSON body that its model reads."""
    measured = Sizes()
    texts: list[str] = []
    for key in _CONTENT:
        if key in body:
            _collect(body[key], measured, texts)
    measured.text = "\n".join(texts)
    tools = list(_tools(body))
    measured.tool_count = len(tools)
    measured.tools = _written(tools)
    forms = list(_forms(body))
    measured.is_json = bool(forms)
    measured.forms = _written(form for form in forms if "type" not in form or form["type"] not in _ANY_JSON)
    measured.tool_choice = _tool_choice(body)
    measured.is_chat = type(body.get("prompt")) not in {str, list}
    measured.of_messages = "messages" in body
    measured.messages += sum(type(body.get(key)) is str for key in _BARE)
    measured.thoughts = sum(_thoughts_sent_back(body))
    return measured


_BARE: Final = ("input", "inputText", "message")
"""Keys of a message that is sent as bare text."""
_ANY_JSON: Final = ("json_object", "application/json")
"""Response formats that require JSON, without a schema."""


def _written(values: Iterable[Any]) -> str:
    return "\n".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values)


def _collect(value: Any, measured: Sizes, texts: list[str]) -> None:
    """Gather the texts of a content value, and count messages and media; without recursion, for bodies nest deeply."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is str:
            if item.startswith("data:") and ";base64," in item[:_HEADER]:
                measured.media.append(_media_kind(item[5:]))
            else:
                texts.append(item)
        elif type(item) is int:
            measured.tokens += 1  # embeddings and completions accept texts as arrays of tokens
        elif type(item) is list:
            waiting.extend(item)
        elif type(item) is dict:
            measured.messages += "role" in item or "call_id" in item
            measured.calls += item.get("type") in _CALLS or "functionCall" in item or "toolUse" in item
            waiting.extend(_parts(item, measured, texts))


def _parts(item: dict[str, Any], measured: Sizes, texts: list[str]) -> Iterator[Any]:
    kind = item.get("type")
    if kind in _THINKING and not measured.with_thoughts:
        return  # a model does not read its thoughts of earlier turns; those of this turn are counted by their seal
    thoughts = None if not measured.with_thoughts else next((key for key in _THOUGHTS if item.get(key)), None)
    for key, value in item.items():
        if key in _THOUGHTS and key != thoughts:
            continue  # thoughts of earlier turns are not read; those of a response may come under two names
        if key in _MEDIA and value:
            measured.media.extend(_media(key, value))
        elif key == "source" and kind in ("image", "document"):
            if type(value) is dict and value.get("type") in ("text", "content"):
                yield value.get("data") or value.get("content")
            else:
                measured.media.append(str(kind))
        elif key in _DATA and type(value) in {dict, list} and not _is_content(value):
            texts.append(json.dumps(value, ensure_ascii=False))
        elif key not in _BESIDE:
            yield value


def _is_content(value: Any) -> bool:
    """Return whether a list holds content blocks, as the result of a tool may."""
    return type(value) is list and all(type(item) is dict and "type" in item for item in value)


def _media(key: str, value: Any) -> list[str]:
    kind = _MEDIA[key]
    if not kind and type(value) is dict:
        kind = _media_kind(str(value.get("mimeType") or value.get("mime_type") or ""))
    if kind == "image" and type(value) is dict and value.get("detail") == "low":
        kind = "thumbnail"
    return [kind] * (len(value) if type(value) is list else 1)


def _media_kind(media_type: str) -> str:
    """Return the kind of a media type: `image/png` is an image, `application/pdf` a document."""
    kind = media_type.partition("/")[0]
    return kind if kind in {"image", "audio", "video"} else "document"


_HEADER: Final = 200
"""Characters of a data URL that have its type."""


def _tools(body: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the definitions of tools, in any format."""
    config = body.get("toolConfig")
    for tool in (
        *_array(body, "tools"),
        *_array(body, "functions"),
        *(_array(config, "tools") if type(config) is dict else ()),
    ):
        declared = _array(tool, "functionDeclarations") or _array(tool, "function_declarations")
        yield from declared or [tool]


def _forms(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the schemas of the response, and a response format that requires JSON without a schema."""
    for path in _FORMS:
        inside: Any = body
        for key in path:
            inside = inside.get(key) if type(inside) is dict else None
        if type(inside) is dict:
            yield inside
    wanted = body.get("response_format")
    if type(wanted) is dict and wanted.get("type") in _ANY_JSON:
        yield wanted


_FORMS: Final = (
    ("response_format", "json_schema"),
    ("text", "format"),
    ("output_config", "format"),
    ("output_format",),
    ("outputConfig", "textFormat", "structure", "jsonSchema"),
    ("generationConfig", "responseSchema"),
    ("generationConfig", "responseJsonSchema"),
    ("generationConfig", "response_json_schema"),
    ("format",),
)
"""The keys under which each format keeps the schema of the response."""


def _tool_choice(body: Mapping[str, Any]) -> str:
    """Return whether a tool must be used ("any"), none may be ("none"), or the model chooses ("auto")."""
    config = body.get("toolConfig")
    choice = body.get("tool_choice") or (config.get("toolChoice") if type(config) is dict else None)
    if type(choice) is dict:
        choice = choice.get("type") or next(iter(choice), None)
    return _CHOICES.get(choice, "auto") if type(choice) is str else "auto"


_CHOICES: Final = {"any": "any", "function": "any", "none": "none", "required": "any", "tool": "any"}


def _thoughts_sent_back(body: Mapping[str, Any]) -> Iterator[int]:
    """Yield the characters of each encrypted thought since the user's last message: older ones are dropped."""
    messages = next((body[key] for key in ("messages", "contents", "input") if type(body.get(key)) is list), ())
    for message in reversed(messages):
        if type(message) is not dict:
            return
        blocks = message.get("content") or message.get("parts")
        parts = [part for part in blocks if type(part) is dict] if type(blocks) is list else []
        if message.get("role") == "user" and not any(_is_result(part) for part in parts):
            return
        for part in (message, *parts):
            yield from (len(part[key]) for key in _SEALED if type(part.get(key)) is str)


_SEALED: Final = ("thoughtSignature", "thought_signature", "signature", "encrypted_content")
"""Keys of a thought that only the provider can read."""


def _array(value: Any, key: str) -> list[Any]:
    array = value.get(key) if type(value) is dict else None
    return array if type(array) is list else []


_MEDIA_TOKENS: Final = {"thumbnail": 85, "audio": 150, "video": 3000, "document": 1600}
"""Typical sizes, for length and resolution are not read: a small image, half a minute of sound, a short document."""


def input_tokens(
    body: Mapping[str, Any],
    family: Family,
    *,
    chat: bool = True,
    count: Count | None = None,
    by: Prompting | None = None,
) -> Bounds | None:
    """Estimate the tokens of a request.

    Args:
        body: the request's JSON object.
        family: that of the requested model.
        chat: whether a template surrounds the text, as for everything but embeddings.
        count: the model's own tokenizer, if it is available.
        by: what the provider is known to add to a chat's prompt, and to count of its tools.

    Returns:
        The estimate, or None if the request has nothing that could be counted.
    """
    measured = sizes(body)
    if not (measured.text or measured.tokens or measured.media):
        return None
    exact = measured.tokens + (count(measured.text) if count is not None else 0)
    guessed = 0.0 if count is not None else family.tokens(measure(measured.text))
    if chat and measured.is_chat:
        unseen, counted = (0, 1.0) if by is None else by  # else the prompt is passed on unchanged, and counted in full
        guessed += unseen + _around(measured, family, counted)
    media = sum(family.image if kind == "image" else _MEDIA_TOKENS.get(kind, family.image) for kind in measured.media)
    return Bounds(
        exact + int(LOW_INPUT * guessed),
        exact + round(guessed) + media,
        exact + math.ceil(HIGH_INPUT * guessed) + HIGH_MEDIA * media,
    )


def _around(measured: Sizes, family: Family, counted: float) -> float:
    """Return the tokens that a template adds to a chat's text."""
    tokens = family.start + family.message * measured.messages + family.called * measured.calls
    tokens += measured.thoughts / family.thoughts
    if measured.is_json:
        tokens += family.json + family.form * family.tokens(measure(measured.forms))
    if measured.tool_count and not (family.drops_tools and measured.tool_choice == "none"):
        forced = family.forced if measured.tool_choice == "any" else None
        instructions = family.tools if forced is None else forced
        instructions += family.tools_of_messages if measured.of_messages else 0
        tokens += counted * (instructions + family.definition * family.tokens(measure(measured.tools)))
    return tokens


def output_tokens(received: Received, family: Family, *, count: Count | None = None) -> Bounds:
    """Estimate the tokens of a received text; `count` is the model's own tokenizer, if it is available."""
    calls = received.calls * family.call + (family.answer if received else 0)
    if count is not None and (text := received.text()) is not None:
        exact = count(text)
        return Bounds(exact, exact + calls, exact + 2 * calls + ENDS)
    tokens = family.tokens(received.pieces()) + calls
    return Bounds(int(LOW_OUTPUT * tokens), round(tokens), math.ceil(HIGH_OUTPUT * tokens) + ENDS)


# The largest errors of about nine in ten estimates on recorded traffic.
LOW_INPUT: Final = 0.6
HIGH_INPUT: Final = 1.6
HIGH_MEDIA: Final = 4
LOW_OUTPUT: Final = 0.7
HIGH_OUTPUT: Final = 1.5
ENDS: Final = 2
"""Tokens that mark the end of a response; some providers bill them."""

_ANSWER: Final = (
    "candidates",
    "choices",
    "completion",
    "content",
    "generated_text",
    "generation",
    "generations",
    "message",
    "output",
    "outputText",
    "response",
    "result",
    "results",
    "text",
)
"""Keys of a plain response, in any format, for what the model wrote."""

_CALLS: Final = ("custom_tool_call", "function", "function_call", "tool_use")


def has_response_text(body: Mapping[str, Any]) -> bool:
    """Return whether a plain response's JSON body has a key under which the known formats keep text."""
    return any(key in body for key in _ANSWER)


def response_text(body: Mapping[str, Any]) -> Received:
    """Return what the model wrote in a plain response's JSON body."""
    measured, texts = Sizes(with_thoughts=True), list[str]()
    for key in _ANSWER:
        # Results of the provider's own tools are among the blocks of a response; the model did not write them.
        value = body.get(key)
        blocks = value if type(value) is list else [value]
        _collect([block for block in blocks if not _is_result(block)], measured, texts)
    received = Received()
    received.calls = measured.calls
    received.raw = [json.dumps(text)[1:-1].encode() for text in texts if text]
    received.settle()
    return received


def _is_result(block: Any) -> bool:
    """Return whether a block is the result of a tool."""
    if type(block) is not dict:
        return False
    return str(block.get("type")).endswith("_result") or any(key in block for key in _RESULTS)


_RESULTS: Final = ("functionResponse", "function_response", "toolResult")


class Received:
    """The output text of a response, as in its JSON strings; it is measured when needed, or when it grows long.

    Most responses come with a count, so their text is never measured. At most `MAX_TEXT` bytes are held.

    Attributes:
        raw: the insides of the strings that are not measured yet; the reader appends to it.
        calls: the number of tool calls.
        reported_size: the size of the text when the wire last stated the usage.
    """

    __slots__ = ("_folded", "_pieces", "calls", "raw", "reported_size")

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.calls = 0
        self.reported_size = 0
        self._pieces: dict[str, float] = {}
        self._folded = 0

    def __bool__(self) -> bool:
        return bool(self.raw or self._pieces or self.calls)

    def settle(self) -> None:
        """Join the strings in `raw`; the reader calls it once for the bytes that it reads together."""
        if len(self.raw) > 1:
            text = b"".join(self.raw)
            self.raw = [text]
            if len(text) > MAX_TEXT:
                self._fold()

    @property
    def size(self) -> int:
        """Return the bytes of all the text so far, held or not."""
        return self._folded + sum(map(len, self.raw))

    def _fold(self) -> None:
        self._folded = self.size
        for piece, number in measure(unescaped(b"".join(self.raw))).items():
            self._pieces[piece] = self._pieces.get(piece, 0.0) + number
        self.raw = []

    def text(self) -> str | None:
        """Return the whole text, or None if it was too long to be held."""
        return None if self._pieces else unescaped(b"".join(self.raw))

    def pieces(self) -> dict[str, float]:
        """Count the pieces of the text so far."""
        if self.raw:
            self._fold()
        return self._pieces


MAX_TEXT: Final = 64 * 1024
"""Bytes of text that are held; of a longer text only its pieces are counted."""


def unescaped(raw: bytes) -> str:
    """Return the text of the insides of one or more JSON strings, joined."""
    if b"\\" in raw:
        try:
            return str(json.loads(b'"' + raw + b'"', strict=False))
        except ValueError:  # cut in the middle of an escape
            pass
    return raw.decode("utf-8", "replace")
