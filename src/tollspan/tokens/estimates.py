"""Tokens where no provider has counted them: `input_tokens` and `output_tokens` give a value between two bounds.

A request is taken apart into what its model reads (text, tools, schemas, media), and each part is counted as the family
of the model writes it (`families.py`). That is nearer than a ratio of characters: half of all answers come out within a
seventh, where characters miss by a third. `benchmarks/estimates.py` reports the error on a file of recordings, by
provider. What cannot be seen in a request (a stored conversation, what a provider's tools searched) is not guessed at,
but for the system prompt of a provider that is known to add one.

Pure: no I/O, nothing kept. Long texts are measured by samples, so that an estimate takes milliseconds at most.
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
    """An estimate, and between what it very likely lies (about nine times out of ten on recorded traffic)."""

    low: int
    value: int
    high: int


@dataclass(slots=True)
class Sizes:
    """What a request is made of: text, tools and schemas of answers as JSON, messages, tools, media by kind.

    `is_chat`: there are messages, which a template stands around, and no bare prompt. `of_messages`: they are a chat
    completion's. `tool_choice`: "any" where a tool must be used, "none" where none may be. `is_json`: the answer must
    be JSON. `thoughts` are the characters of encrypted thoughts that are sent back.
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
"""Where requests keep what the model reads, in whatever format."""

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
"""What stands beside content and is none."""

_THINKING: Final = ("reasoning", "redacted_thinking", "thinking")
"""Types of a block, or an item, that is a thought."""

_THOUGHTS: Final = ("reasoning_content", "reasoning", "reasoning_details")
"""Keys of a message for what the model thought; some servers send the same under two of them."""

_DATA: Final = frozenset({"args", "arguments", "input", "json", "response", "output", "result"})
"""Keys whose objects the model reads as JSON: arguments of a tool call, and what the tool gave back."""

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
"""Blocks of content that are no text; where the kind is empty, the block's media type tells."""


def sizes(body: Mapping[str, Any]) -> Sizes:
    """Take stock of a request's JSON body."""
    found = Sizes()
    texts: list[str] = []
    for key in _CONTENT:
        if key in body:
            _collect(body[key], found, texts)
    found.text = "\n".join(texts)
    tools = list(_tools(body))
    found.tool_count = len(tools)
    found.tools = _written(tools)
    forms = list(_forms(body))
    found.is_json = bool(forms)
    found.forms = _written(form for form in forms if "type" not in form or form["type"] not in _ANY_JSON)
    found.tool_choice = _tool_choice(body)
    found.is_chat = type(body.get("prompt")) not in {str, list}
    found.of_messages = "messages" in body
    found.messages += sum(type(body.get(key)) is str for key in _SAID)
    found.thoughts = sum(_thoughts_sent_back(body))
    return found


_SAID: Final = ("input", "inputText", "message")
"""Keys of a message that is sent as bare text."""
_ANY_JSON: Final = ("json_object", "application/json")
"""Forms of an answer that ask for JSON, and for none in particular."""


def _written(values: Iterable[Any]) -> str:
    return "\n".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values)


def _collect(value: Any, found: Sizes, texts: list[str]) -> None:
    """Gather the texts of a content value, and count messages and media; without recursion, for bodies nest at will."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is str:
            if item.startswith("data:") and ";base64," in item[:_HEADER]:
                found.media.append(_kind_of(item[5:]))
            else:
                texts.append(item)
        elif type(item) is int:
            found.tokens += 1  # embeddings and completions take texts as arrays of tokens
        elif type(item) is list:
            waiting.extend(item)
        elif type(item) is dict:
            found.messages += "role" in item or "call_id" in item
            found.calls += item.get("type") in _CALLS or "functionCall" in item or "toolUse" in item
            waiting.extend(_parts(item, found, texts))


def _parts(item: dict[str, Any], found: Sizes, texts: list[str]) -> Iterator[Any]:
    kind = item.get("type")
    if kind in _THINKING and not found.with_thoughts:
        return  # a model is not given what it thought in turns before; of this turn its seal tells
    thoughts = None if not found.with_thoughts else next((key for key in _THOUGHTS if item.get(key)), None)
    for key, value in item.items():
        if key in _THOUGHTS and key != thoughts:
            continue  # of turns before it a model is not given its thoughts; of its answer they come under two names
        if key in _MEDIA and value:
            found.media.extend(_media(key, value))
        elif key == "source" and kind in ("image", "document"):
            if type(value) is dict and value.get("type") in ("text", "content"):
                yield value.get("data") or value.get("content")
            else:
                found.media.append(str(kind))
        elif key in _DATA and type(value) in {dict, list} and not _is_content(value):
            texts.append(json.dumps(value, ensure_ascii=False))
        elif key not in _BESIDE:
            yield value


def _is_content(value: Any) -> bool:
    """Return whether a list is one of content blocks, as the output of a tool may be."""
    return type(value) is list and all(type(item) is dict and "type" in item for item in value)


def _media(key: str, value: Any) -> list[str]:
    kind = _MEDIA[key]
    if not kind and type(value) is dict:
        kind = _kind_of(str(value.get("mimeType") or value.get("mime_type") or ""))
    if kind == "image" and type(value) is dict and value.get("detail") == "low":
        kind = "thumbnail"
    return [kind] * (len(value) if type(value) is list else 1)


def _kind_of(media_type: str) -> str:
    """Return the kind of media that a type is of: `image/png` is an image, `application/pdf` a document."""
    kind = media_type.partition("/")[0]
    return kind if kind in {"image", "audio", "video"} else "document"


_HEADER: Final = 200
"""Characters in which a data URL has told its type."""


def _tools(body: Mapping[str, Any]) -> Iterator[Any]:
    """Return the definitions of tools, one by one, from where each format keeps them."""
    config = body.get("toolConfig")
    for tool in (
        *_array(body, "tools"),
        *_array(body, "functions"),
        *(_array(config, "tools") if type(config) is dict else ()),
    ):
        declared = _array(tool, "functionDeclarations") or _array(tool, "function_declarations")
        yield from declared or [tool]


def _forms(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the schemas that the answer is to follow, and what asks for JSON without one."""
    for path in _FORMS:
        inside: Any = body
        for key in path:
            inside = inside.get(key) if type(inside) is dict else None
        if type(inside) is dict:
            yield inside
    asked = body.get("response_format")
    if type(asked) is dict and asked.get("type") in _ANY_JSON:
        yield asked


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
"""Where each format keeps the schema of the answer."""


def _tool_choice(body: Mapping[str, Any]) -> str:
    """Return whether a tool must be used ("any"), none may be ("none"), or it is for the model to choose ("auto")."""
    config = body.get("toolConfig")
    choice = body.get("tool_choice") or (config.get("toolChoice") if type(config) is dict else None)
    if type(choice) is dict:
        choice = choice.get("type") or next(iter(choice), None)
    return _CHOICES.get(choice, "auto") if type(choice) is str else "auto"


_CHOICES: Final = {"any": "any", "function": "any", "none": "none", "required": "any", "tool": "any"}


def _thoughts_sent_back(body: Mapping[str, Any]) -> Iterator[int]:
    """Return the characters of each encrypted thought since the user last said something: older ones are dropped."""
    said = next((body[key] for key in ("messages", "contents", "input") if type(body.get(key)) is list), ())
    for message in reversed(said):
        if type(message) is not dict:
            return
        blocks = message.get("content") or message.get("parts")
        parts = [part for part in blocks if type(part) is dict] if type(blocks) is list else []
        if message.get("role") == "user" and not any(_is_result(part) for part in parts):
            return
        for part in (message, *parts):
            yield from (len(part[key]) for key in _SEALED if type(part.get(key)) is str)


_SEALED: Final = ("thoughtSignature", "thought_signature", "signature", "encrypted_content")
"""Keys of a thought that only its maker can read."""


def _array(value: Any, key: str) -> list[Any]:
    found = value.get(key) if type(value) is dict else None
    return found if type(found) is list else []


_MEDIA_TOKENS: Final = {"thumbnail": 85, "audio": 150, "video": 3000, "document": 1600}
"""By rule, for length and resolution are not read: an image scaled down, half a minute of sound, a short document."""


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
        family: of the model it is for.
        chat: whether a template stands around the text, as for everything but embeddings.
        count: the model's own tokenizer, where it is at hand.
        by: what the provider is known to make of a chat's prompt, if anything.

    Returns:
        None where the request holds nothing that could be counted.
    """
    found = sizes(body)
    if not (found.text or found.tokens or found.media):
        return None
    exact = found.tokens + (count(found.text) if count is not None else 0)
    guessed = 0.0 if count is not None else family.tokens(measure(found.text))
    if chat and found.is_chat:
        unseen, counted = (0, 1.0) if by is None else by  # else the prompt is passed on as it is, and all of it counts
        guessed += unseen + _around(found, family, counted)
    media = sum(family.image if kind == "image" else _MEDIA_TOKENS.get(kind, family.image) for kind in found.media)
    return Bounds(
        exact + int(LOW_INPUT * guessed),
        exact + round(guessed) + media,
        exact + math.ceil(HIGH_INPUT * guessed) + HIGH_MEDIA * media,
    )


def _around(found: Sizes, family: Family, counted: float) -> float:
    """Return the tokens of what a template puts around a chat's text."""
    tokens = family.start + family.message * found.messages + family.called * found.calls
    tokens += found.thoughts / family.thoughts
    if found.is_json:
        tokens += family.json + family.form * family.tokens(measure(found.forms))
    if found.tool_count and not (family.drops_tools and found.tool_choice == "none"):
        forced = family.forced if found.tool_choice == "any" else None
        told = family.tools if forced is None else forced
        told += family.tools_of_messages if found.of_messages else 0
        tokens += counted * (told + family.definition * family.tokens(measure(found.tools)))
    return tokens


def output_tokens(received: Received, family: Family, *, count: Count | None = None) -> Bounds:
    """Estimate the tokens of a received text; `count` is the model's own tokenizer, where it is at hand."""
    calls = received.calls * family.call + (family.answer if received else 0)
    if count is not None and (text := received.text()) is not None:
        exact = count(text)
        return Bounds(exact, exact + calls, exact + 2 * calls + ENDS)
    tokens = family.tokens(received.pieces()) + calls
    return Bounds(int(LOW_OUTPUT * tokens), round(tokens), math.ceil(HIGH_OUTPUT * tokens) + ENDS)


# How far about nine of ten estimates were off, at most, on recorded traffic.
LOW_INPUT: Final = 0.6
HIGH_INPUT: Final = 1.6
HIGH_MEDIA: Final = 4
LOW_OUTPUT: Final = 0.7
HIGH_OUTPUT: Final = 1.5
ENDS: Final = 2
"""Tokens that mark where an answer ends; some providers bill them."""


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
"""Where plain answers keep what the model wrote, in whatever format."""
_CALLS: Final = ("custom_tool_call", "function", "function_call", "tool_use")


def has_response_text(body: Mapping[str, Any]) -> bool:
    """Return whether a plain response's JSON body has a key under which the known formats keep text."""
    return any(key in body for key in _ANSWER)


def response_text(body: Mapping[str, Any]) -> Received:
    """Return what the model wrote in a plain response's JSON body."""
    found, texts = Sizes(with_thoughts=True), list[str]()
    for key in _ANSWER:
        # What the provider's own tools gave back stands among an answer's blocks; the model did not write it.
        value = body.get(key)
        blocks = value if type(value) is list else [value]
        _collect([block for block in blocks if not _is_result(block)], found, texts)
    received = Received()
    received.calls = found.calls
    received.raw = [json.dumps(text)[1:-1].encode() for text in texts if text]
    received.settle()
    return received


def _is_result(block: Any) -> bool:
    """Return whether a block is what a tool gave back."""
    if type(block) is not dict:
        return False
    return str(block.get("type")).endswith("_result") or any(key in block for key in _RESULTS)


_RESULTS: Final = ("functionResponse", "function_response", "toolResult")


class Received:
    """The output text of an answer, as it stood in JSON strings; measured when somebody asks, or when it grows long.

    Most answers come with a count, and their text is never looked at. At most `KEPT` bytes are held. `told` is what of
    its size the wire had counted when it last told the usage.
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
        """Join what was appended to `raw`; the reader calls it once for each batch."""
        if len(self.raw) > 1:
            text = b"".join(self.raw)
            self.raw = [text]
            if len(text) > KEPT:
                self._fold()

    @property
    def size(self) -> int:
        """Return the bytes of all the text so far, kept or not."""
        return self._folded + sum(map(len, self.raw))

    def _fold(self) -> None:
        self._folded = self.size
        for kind, number in measure(unescaped(b"".join(self.raw))).items():
            self._pieces[kind] = self._pieces.get(kind, 0.0) + number
        self.raw = []

    def text(self) -> str | None:
        """Return the whole text, or None where it was too long to be kept."""
        return None if self._pieces else unescaped(b"".join(self.raw))

    def pieces(self) -> dict[str, float]:
        """Count the pieces of the text so far."""
        if self.raw:
            self._fold()
        return self._pieces


KEPT: Final = 64 * 1024


def unescaped(raw: bytes) -> str:
    """Return the text of one or more JSON strings' insides, put together."""
    if b"\\" in raw:
        try:
            return str(json.loads(b'"' + raw + b'"', strict=False))
        except ValueError:  # cut in the middle of an escape
            pass
    return raw.decode("utf-8", "replace")
