"""The parts of a request that are not text: `read_parts(body, files, ...) -> Parts`.

A body is walked once, by its objects and not by its bytes: ten megabytes of base64 take as long as ten. Where a format
expects an attachment (`image_url`, `inlineData`, `source`, `file` and so on), base64 and data URLs are weighed by what
they hold (`tokens/media`); so is a data URL anywhere else but in text. In text (`text`, `content`, arguments of a
tool), base64 is text: that is how providers bill it.

What the provider stores, and the request only names, is returned by its id; what cannot be bounded by its first reason.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tollspan.tokens.media.attachments import weigh
from tollspan.tokens.media.image_tokens import GEMINI_ULTRA, image_tokens
from tollspan.tokens.media.source import Base64, Plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tollspan.tokens.media.source import Source

MOST_PARTS: Final = 50_000
"""Objects and arrays of a body that are looked at; what is behind them counts as text."""


MOST_EFFORT: Final = 2_000
"""Images of a request whose headers are read, or fewer sounds and documents; more count as text."""
_EFFORT: Final = {"audio": 5, "document": 50}
"""How many images take as long to read, by what an attachment is."""


class Unbounded(NamedTuple):
    """What cannot be bounded in a request, and what to change (both for the message of a refusal)."""

    what: str
    remedy: str


class Attachment(NamedTuple):
    """A file of a form, or the whole body of a request that is one."""

    source: Source
    media_type: str


IMAGE_BY_URL: Final = Unbounded("an image by URL", "Send the image itself, in base64")
FILE_BY_URL: Final = Unbounded("a file by URL", "Send the file itself, in base64")
TOO_MANY: Final = Unbounded("a request with so many parts", "Send fewer in a request")

FILE_TOKENS: Final = 100_000
"""Input tokens of a file by URL, unless it is an image: an assumption, not a proof."""

_KINDS: Final = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "images": "image",
    "image_base64": "image",
    "image_generation_call": "image",
    "computer_screenshot": "image",
    "input_audio": "audio",
    "audio": "audio",
    "audio_url": "audio",
    "input_video": "video",
    "video": "video",
    "video_url": "video",
    "document": "document",
    "document_url": "document",
    "input_file": "document",
    "file": "document",
    "container_upload": "document",
    "inlineData": "document",
    "inline_data": "document",
    "fileData": "document",
    "file_data": "document",
}
"""Keys of an attachment, and types of the objects that hold one, by what it is."""

_INSIDE: Final = frozenset(
    {
        "source", "data", "bytes", "url", "uri", "file_url", "result", "s3Location", "bytesBase64Encoded", "gcsUri",
        "b64_json",
    }
)  # fmt: skip
"""Keys inside of an attachment that have its bytes or say where they are."""

_STORED: Final = frozenset({"file_id", "file_ids", "fileUri", "file_uri"})
"""Keys of the ids of files."""
_RESOLUTIONS: Final = ("level", "resolution")
"""Keys of the resolution that Gemini reads an image in."""
_TEXTS: Final = frozenset(
    {
        "arguments", "args", "content", "contents", "encrypted_content", "input", "instructions", "message", "messages",
        "output", "prompt", "query", "reasoning", "reasoning_content", "refusal", "signature", "system", "text",
        "thinking", "thoughtSignature",
    }
)  # fmt: skip
"""Keys whose strings are text, whatever they look like."""
_OPAQUE: Final = frozenset(
    {
        "action", "annotations", "arguments", "args", "citations", "generationConfig", "generation_config",
        "input_schema", "json", "logprobs", "metadata", "parameters", "response", "response_format", "results",
        "schema", "tools",
    }
)  # fmt: skip
"""Keys whose objects have no attachments: the model reads them as JSON, or they are settings."""
_TOOL_CALLS: Final = ("tool_use", "server_tool_use", "mcp_tool_use")
_TYPES: Final = ("media_type", "mimeType", "mime_type", "format")
_REMOTE: Final = ("http://", "https://", "gs://", "s3://")
_SHORTEST: Final = 32  # characters of base64: a shorter string is a name
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_=\r\n-]+")


class Parts:
    """What a request has besides text.

    Attributes:
        encoded: the characters and bytes of its body that hold attachments, and so are not text.
        tokens: the most tokens that the attachments count.
        seconds: seconds of sound and video.
        is_expensive: there is sound or video, or a cache for an hour, which have prices of their own.
        stored: the ids of what the provider stores.
        unbounded: the first thing that cannot be bounded.
    """

    __slots__ = ("_effort", "_model", "encoded", "is_expensive", "seconds", "stored", "tokens", "unbounded")

    def __init__(self, model: str | None) -> None:
        """Start with nothing; `model` is the requested one."""
        self._model = model
        self._effort = MOST_EFFORT
        self.encoded = 0
        self.tokens = 0
        self.seconds = 0.0
        self.is_expensive = False
        self.stored: list[str] = []
        self.unbounded: Unbounded | None = None

    @property
    def is_text(self) -> bool:
        """Return whether nothing but text was found."""
        return not (self.encoded or self.tokens or self.stored or self.unbounded)

    def attach(self, source: Source, media_type: str, sent: int, *, low: bool = False) -> None:
        """Add an attachment that takes `sent` bytes of the body."""
        if self._effort <= 0:
            self.unbounded = self.unbounded or TOO_MANY
            return  # it counts as text
        weight = weigh(source, media_type, self._model, low=low)
        self._effort -= _EFFORT.get(weight.kind, 1)
        self.encoded += sent
        self.tokens += weight.tokens
        self.seconds += weight.seconds
        self.is_expensive = self.is_expensive or bool(weight.seconds)

    def point(self, kind: str) -> None:
        """Add an attachment that the provider fetches from a URL."""
        is_image = kind == "image"
        self.unbounded = self.unbounded or (IMAGE_BY_URL if is_image else FILE_BY_URL)
        self.tokens += image_tokens(self._model, None) if is_image else FILE_TOKENS
        self.is_expensive = self.is_expensive or not is_image

    def walk(self, body: Mapping[str, Any]) -> None:
        """Add what a JSON body has."""
        waiting: list[tuple[Any, str]] = [(body, "")]
        seen = 0
        while waiting:
            value, kind = waiting.pop()
            seen += 1
            if seen > MOST_PARTS:
                self.unbounded = self.unbounded or TOO_MANY
                return
            if type(value) is dict:
                self._look(value, kind, waiting)
            elif value and type(value[0]) not in {int, float}:  # else an array of tokens
                if len(value) + len(waiting) > MOST_PARTS:
                    self.unbounded = self.unbounded or TOO_MANY
                    return
                for item in value:
                    if type(item) in {dict, list}:
                        waiting.append((item, kind))
                    elif kind and type(item) is str:
                        self._read(item, kind, {})

    def _look(self, part: dict[str, Any], kind: str, waiting: list[tuple[Any, str]]) -> None:
        """Look at one object: `kind` is that of the attachment it is inside of."""
        part_type = part.get("type")
        if type(part_type) is str:
            kind = _KINDS.get(part_type, kind)
        for key, value in part.items():
            if type(value) is str:
                self._look_at_text(part, key, value, kind)
            elif type(value) in {dict, list} and value and key not in _OPAQUE:
                if key == "input" and part_type in _TOOL_CALLS:
                    continue
                if key in _STORED:
                    self.stored += [item for item in value if type(item) is str]
                    continue
                inner = _KINDS.get(key) or (kind if key in _INSIDE else "")
                waiting.append((value, inner))

    def _look_at_text(self, part: dict[str, Any], key: str, value: str, kind: str) -> None:
        if part.get("type") == "text":
            return  # also a document that is sent as text
        if key in _STORED:
            self.stored.append(value)
        elif key == "ttl" and value == "1h":
            self.is_expensive = True
        elif key in _RESOLUTIONS and value.lower().endswith("ultra_high"):
            self.tokens += GEMINI_ULTRA
        elif key in _KINDS:
            self._read(value, _KINDS[key], part)
        elif kind and key in _INSIDE:
            self._read(value, kind, part)
        elif kind == "audio" and key == "id":
            self.stored.append(value)  # a sound that the model has made before
        elif key not in _TEXTS and len(value) > _SHORTEST and value.startswith("data:"):
            self._read(value, "document", part)

    def _read(self, value: str, kind: str, part: dict[str, Any]) -> None:
        """Read the string that holds an attachment, or says where it is."""
        low = part.get("detail") == "low"
        if value.startswith("data:"):
            header, comma, _ = value[:512].partition(",")
            is_base64 = header.lower().endswith(";base64")
            start = len(header) + len(comma)
            source: Source = Base64(value, start) if is_base64 else Plain(value[start:].encode(errors="replace"))
            self.attach(source, header[5:].partition(";")[0], len(value), low=low)
        elif value.startswith(_REMOTE):
            self.point(_kind_of(part, kind))
        elif len(value) > _SHORTEST and _BASE64.fullmatch(value[:64]) and _BASE64.fullmatch(value[-64:]):
            self.attach(Base64(value), _media_type(part) or kind, len(value), low=low)


def _media_type(part: Mapping[str, Any]) -> str:
    return next((value for key in _TYPES if type(value := part.get(key)) is str), "")


def _kind_of(part: Mapping[str, Any], kind: str) -> str:
    """Return the kind of an attachment by its media type, if that is stated."""
    return "image" if _media_type(part).startswith("image/") else kind


def read_parts(body: Mapping[str, Any], files: Iterable[Attachment], model: str | None) -> Parts:
    """Return what a request has besides text.

    Args:
        body: its JSON object, or the fields of its form.
        files: the files of its form.
        model: the requested model.
    """
    parts = Parts(model)
    for file in files:
        parts.attach(file.source, file.media_type, file.source.size)
    parts.walk(body)
    parts.stored += _named(body)
    return parts


def _named(body: Mapping[str, Any]) -> list[str]:
    """Return the ids of stored context that a body names at its top."""
    named = []
    for key in _CONTEXT:
        value = body.get(key)
        value = value.get("id") if type(value) is dict else value if key != "prompt" else None
        if type(value) is str and value:
            named.append(value)
    return named


_CONTEXT: Final = (
    "previous_response_id",
    "previous_interaction_id",
    "conversation",
    "prompt",
    "cachedContent",
    "cached_content",
    "container",
)
"""Keys of a body that name stored context: an id, or an object with one. A `prompt` that is a string is text."""
