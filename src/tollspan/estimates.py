"""Tokens where no provider has counted them: `input_tokens` and `output_tokens` give a value between two bounds.

Text is counted by its pieces (words, numbers, marks, characters of scripts without spaces), each with the tokens that
it takes in a family of tokenizers. That is nearer than a ratio of characters: half of all answers come out within a
seventh, where characters miss by a third. The weights were calibrated on recorded traffic; `benchmarks/estimates.py`
reports their error on a file of recordings, by provider. What cannot be seen in a request (a stored conversation, a
provider's own system prompt, what its tools searched) is not guessed at.

Pure: no I/O, nothing kept. Long texts are measured by samples, so that an estimate takes milliseconds at most.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Count = Callable[[str], int]


class Bounds(NamedTuple):
    """An estimate, and between what it very likely lies (about nine times out of ten on recorded traffic)."""

    low: int
    value: int
    high: int


_PIECES: Final = {
    "words": r"[A-Za-z\u00c0-\u024f']{1,10}",  # a longer word is more than one piece
    "accents": r"[\u00c0-\u024f]",  # words of languages that tokenizers saw less of break into more tokens
    "numbers": r"\d{1,3}",
    "wide": (  # Chinese, Japanese, Korean
        r"[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
        r"\U00020000-\U0003ffff]"
    ),
    "foreign": r"[\u0250-\u10ff\u1200-\u1dff\ua000-\ua95f\ua980-\uabff]",  # every other script
    "symbols": r"[\u2190-\u2bff\U0001f000-\U0001faff]",  # emoji, arrows, mathematics
    "lines": r"\n+",
    "marks": r"[!-&(-/:-@\[-`{-~\u2010-\u2027]+",
}
_ASCII: Final = ("words", "numbers", "lines", "marks")
_COMPILED: Final = {name: re.compile(pattern) for name, pattern in _PIECES.items()}

SAMPLES: Final = 16
SAMPLE: Final = 4096
"""Characters of each of the samples by which a longer text is measured."""


def measure(text: str) -> dict[str, float]:
    """Count the pieces of a text, by kind; a long one by evenly spread samples."""
    length = len(text)
    if length <= SAMPLES * SAMPLE:
        return _pieces(text)
    step = length // SAMPLES
    sample = "".join(text[at : at + SAMPLE] for at in range(0, step * SAMPLES, step))
    return {kind: number * length / len(sample) for kind, number in _pieces(sample).items()}


def _pieces(text: str) -> dict[str, float]:
    kinds = _ASCII if text.isascii() else _PIECES
    return {kind: float(len(_COMPILED[kind].findall(text))) for kind in kinds}


@dataclass(slots=True)
class Sizes:
    """What a request is made of: text, tools and schemas of answers as JSON, messages, tools, media by kind."""

    text: str = ""
    tools: str = ""
    forms: str = ""
    messages: int = 0
    calls: int = 0
    with_thoughts: bool = False
    tool_count: int = 0
    tokens: int = 0
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
    found.forms = _written(_forms(body))
    return found


def _written(values: Iterable[Any]) -> str:
    return "\n".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values)


def _collect(value: Any, found: Sizes, texts: list[str]) -> None:
    """Gather the texts of a content value, and count messages and media; without recursion, for bodies nest at will."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is str:
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
    """Tell whether a list is one of content blocks, as the output of a tool may be."""
    return type(value) is list and all(type(item) is dict and "type" in item for item in value)


def _media(key: str, value: Any) -> list[str]:
    kind = _MEDIA[key]
    if not kind and type(value) is dict:
        told = str(value.get("mimeType") or value.get("mime_type") or "")
        kind = told.partition("/")[0]
    if kind == "image" and type(value) is dict and value.get("detail") == "low":
        kind = "thumbnail"
    return [kind] * (len(value) if type(value) is list else 1)


def _tools(body: Mapping[str, Any]) -> Iterator[Any]:
    """Give the definitions of tools, one by one, from where each format keeps them."""
    config = body.get("toolConfig")
    for tool in (
        *_array(body, "tools"),
        *_array(body, "functions"),
        *(_array(config, "tools") if type(config) is dict else ()),
    ):
        declared = _array(tool, "functionDeclarations") or _array(tool, "function_declarations")
        yield from declared or [tool]


def _forms(body: Mapping[str, Any]) -> Iterator[Any]:
    """Give the schemas that the answer is to follow."""
    for key, inner in (
        ("response_format", "json_schema"),
        ("text", "format"),
        ("output_config", "format"),
        ("generationConfig", "responseSchema"),
        ("generationConfig", "responseJsonSchema"),
        ("generationConfig", "response_json_schema"),
    ):
        outer = body.get(key)
        if type(outer) is dict and type(outer.get(inner)) is dict:
            yield outer[inner]


def _array(value: Any, key: str) -> list[Any]:
    found = value.get(key) if type(value) is dict else None
    return found if type(found) is list else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that share a tokenizer and a template: tokens for each piece of text, and for what stands around it.

    `start` is what the shortest request has besides its text, `message` what each message has, `tools` what is added
    once there are tools (some models are then given a page of instructions), `call` what a tool call has besides its
    arguments. Of the tokens of a tool's JSON, the share `definition` is left when it has been written out for the
    model; of those of a schema for the answer, the share `form`. `answer` is what an answer has besides its text.
    """

    words: float = 0.96
    accents: float = 0.7
    numbers: float = 1.35
    wide: float = 0.65
    foreign: float = 0.45
    symbols: float = 2.0
    lines: float = 1.2
    marks: float = 1.2
    start: int = 2
    message: float = 4
    tools: int = 60
    definition: float = 1.0
    form: float = 0.7
    call: int = 18
    answer: int = 1
    image: int = 800

    def tokens(self, pieces: Mapping[str, float]) -> float:
        """Give the tokens of a text by its pieces."""
        return sum(float(getattr(self, kind)) * number for kind, number in pieces.items())


_GPT: Final = Family(
    numbers=1.3, lines=0.4, start=4, message=4.5, tools=16, definition=0.45, call=9, answer=2, image=765
)
_GEMINI: Final = Family(
    words=0.97, numbers=2.1, marks=1.1, start=0, message=1, tools=9, form=0, call=2, answer=0, image=258
)
_QWEN: Final = Family(start=8, tools=130)
_MISTRAL: Final = Family(start=0, message=5, tools=0, definition=1.4)
_CLAUDE: Final = Family(
    words=0.92,
    numbers=1.9,
    wide=1.0,
    lines=0.6,
    marks=1.9,
    start=0,
    message=8,
    tools=480,
    definition=0.9,
    form=1.0,
    call=36,
    answer=3,
    image=1500,
)
_FAMILIES: Final = (
    # A word in the model's name, and the family; the first that is found counts.
    ("gpt-oss", replace(_GPT, start=58, message=8, tools=33)),
    ("claude", _CLAUDE),
    ("gemini", _GEMINI),
    ("gemma", replace(_GEMINI, start=10, message=4, tools=20, form=1.0)),
    ("deepseek", Family(start=3, message=3, tools=265)),
    ("qwen3.5", replace(_QWEN, tools=200)),
    ("qwen3-coder", replace(_QWEN, tools=200)),
    ("qwen-3-coder", replace(_QWEN, tools=200)),
    ("qwen", _QWEN),
    ("qwq", _QWEN),
    ("llama", Family(start=26, tools=165, definition=0.7)),
    ("mistral", _MISTRAL),
    ("ministral", _MISTRAL),
    ("mixtral", _MISTRAL),
    ("grok", Family(start=186, tools=20)),
    ("glm", Family(start=4, message=2, tools=97)),
    ("kimi", Family(start=0, message=5, tools=0, definition=1.2)),
    ("nova", Family(start=0, tools=390)),
    ("gpt", _GPT),
    ("davinci", _GPT),
    ("codex", _GPT),
    ("text-embedding", _GPT),
)
_REASONERS: Final = re.compile(r"(^|/)o[1-9](-|$)")
_DEFAULT: Final = Family()

_MEDIA_TOKENS: Final = {"thumbnail": 85, "audio": 150, "video": 3000, "document": 1600}
"""By rule, for length and resolution are not read: an image scaled down, half a minute of sound, a short document."""


def family_of(*models: str | None) -> Family:
    """Give the family of a model, by the first of the names given that tells one."""
    for model in models:
        name = (model or "").lower()
        for word, family in _FAMILIES:
            if word in name:
                return family
        if _REASONERS.search(name):
            return _GPT
    return _DEFAULT


def input_tokens(
    body: Mapping[str, Any], family: Family, *, chat: bool = True, count: Count | None = None
) -> Bounds | None:
    """Estimate the tokens of a request.

    Args:
        body: the request's JSON object.
        family: of the model it is for.
        chat: whether a template stands around the text, as for everything but embeddings.
        count: the model's own tokenizer, where it is at hand.

    Returns:
        None where the request holds nothing that could be counted.
    """
    found = sizes(body)
    if not (found.text or found.tokens or found.media):
        return None
    exact = found.tokens + (count(found.text) if count is not None else 0)
    guessed = 0.0 if count is not None else family.tokens(measure(found.text))
    if chat:
        guessed += family.start + family.message * found.messages
        guessed += family.form * family.tokens(measure(found.forms))
        if found.tool_count:
            guessed += family.tools + family.definition * family.tokens(measure(found.tools))
    media = sum(family.image if kind == "image" else _MEDIA_TOKENS.get(kind, family.image) for kind in found.media)
    return Bounds(
        exact + int(LOW_INPUT * guessed),
        exact + round(guessed) + media,
        exact + math.ceil(HIGH_INPUT * guessed) + HIGH_MEDIA * media,
    )


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


def answer_of(body: Mapping[str, Any]) -> Received:
    """Gather what the model wrote in a plain answer's JSON body."""
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
    return type(block) is dict and str(block.get("type")).endswith("_result")


class Received:
    """The output text of an answer, as it stood in JSON strings; measured when somebody asks, or when it grows long.

    Most answers come with a count, and their text is never looked at. At most `KEPT` bytes are held.
    """

    __slots__ = ("_folded", "_pieces", "calls", "raw")

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.calls = 0
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
        """Give the bytes of all the text so far, kept or not."""
        return self._folded + sum(map(len, self.raw))

    def _fold(self) -> None:
        self._folded = self.size
        for kind, number in measure(unescaped(b"".join(self.raw))).items():
            self._pieces[kind] = self._pieces.get(kind, 0.0) + number
        self.raw = []

    def text(self) -> str | None:
        """Give the whole text, or None where it was too long to be kept."""
        return None if self._pieces else unescaped(b"".join(self.raw))

    def pieces(self) -> dict[str, float]:
        """Count the pieces of the text so far."""
        if self.raw:
            self._fold()
        return self._pieces


KEPT: Final = 64 * 1024


def unescaped(raw: bytes) -> str:
    """Give the text of one or more JSON strings' insides, put together."""
    if b"\\" in raw:
        try:
            return str(json.loads(b'"' + raw + b'"', strict=False))
        except ValueError:  # cut in the middle of an escape
            pass
    return raw.decode("utf-8", "replace")
