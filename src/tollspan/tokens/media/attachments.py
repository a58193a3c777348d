"""The most that one attachment of a request counts: `weigh(source, media_type, model) -> Weight`.

| kind | counted by | if its header cannot be read |
|---|---|---|
| image | its size, by the formula of its model (`image_tokens.py`) | the largest image, or `image_tokens.ALLOWANCE` |
| sound | its seconds, times `SOUND` tokens | `SLOWEST_SOUND` bytes for each second |
| PDF | its pages: `PAGE_TEXT` tokens and an image of `PAGE_SIZE` | `PAGE_BYTES` for each page, up to `MOST_PAGES` |
| text | one token for each byte | |
| video | its seconds, times `VIDEO` tokens | `SLOWEST_VIDEO` bytes for each second |
| anything else | one token for each byte | |

Sizes and lengths are facts, and so is text by its bytes: no tokenizer makes more tokens than there are bytes. The rest
are allowances (docs/explanation/budgets-guarantees.md). What the bytes are decides, not what the request calls them.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final, NamedTuple

from tollspan.tokens.media.audio import audio_seconds
from tollspan.tokens.media.documents import page_count
from tollspan.tokens.media.image_tokens import image_tokens
from tollspan.tokens.media.images import image_size

if TYPE_CHECKING:
    from tollspan.tokens.media.source import Source

SOUND: Final = (("gemini", 32), ("gpt-", 10), ("voxtral", 13))
"""Tokens per second of sound, by what a model's name contains.

https://ai.google.dev/gemini-api/docs/audio, https://developers.openai.com/api/docs/guides/realtime-costs (one for each
100 ms), https://docs.mistral.ai/capabilities/audio
"""
OTHER_SOUND: Final = 50
"""Tokens per second of sound of other models."""
SLOWEST_SOUND: Final = 500
"""Bytes per second of sound whose length cannot be read: no speech is encoded with fewer."""
VIDEO: Final = 300
"""Tokens per second of video: 258 for a frame and 32 for the sound (https://ai.google.dev/gemini-api/docs/tokens)."""
SLOWEST_VIDEO: Final = 2_500
"""Bytes per second of video: 20 kbit/s."""
PAGE_TEXT: Final = 3_000
"""Tokens of the text of a PDF's page (https://platform.claude.com/docs/en/build-with-claude/pdf-support)."""
PAGE_SIZE: Final = (1_700, 2_200)
"""Pixels of the image of a PDF's page: Letter at 200 dots per inch."""
PAGE_BYTES: Final = 4_000
"""Bytes of a page of a PDF whose pages cannot be counted."""
MOST_PAGES: Final = 1_000
"""Pages of a PDF whose pages cannot be counted, at most: what providers accept (Gemini 1,000, Anthropic 600)."""

_SOUNDS: Final = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xfa")
_IMAGES: Final = (b"\x89PNG", b"GIF8", b"\xff\xd8", b"RIFF")
_TEXTS: Final = ("text/", "application/json", "application/xml", "application/x-ndjson")
# fmt: off
_SHORT: Final = {
    "png": "image", "jpeg": "image", "jpg": "image", "gif": "image", "webp": "image", "heic": "image", "avif": "image",
    "wav": "audio", "mp3": "audio", "mpeg": "audio", "mpga": "audio", "flac": "audio", "ogg": "audio", "opus": "audio",
    "m4a": "audio", "aac": "audio", "pcm16": "audio",
    "mp4": "video", "mov": "video", "mkv": "video", "webm": "video", "three_gp": "video",
    "pdf": "application/pdf", "txt": "text/plain", "md": "text/plain", "csv": "text/csv", "html": "text/html",
}
# fmt: on
"""Formats that requests name without a media type, as Bedrock and OpenAI do, and the endings of files."""


class Weight(NamedTuple):
    """The most that an attachment counts: tokens, and seconds of sound or video; `kind` is what it is."""

    kind: str
    tokens: int
    seconds: float = 0.0


def weigh(source: Source, media_type: str, model: str | None, *, low: bool = False) -> Weight:
    """Return the most that an attachment counts.

    Args:
        source: its bytes.
        media_type: its media type, format or ending, as the request states it; empty if it does not.
        model: the requested model.
        low: the request wants low detail.
    """
    head = source.read(0, 16)
    if head.startswith(_IMAGES) and (size := image_size(source)) is not None:
        return Weight("image", image_tokens(model, size, low=low))
    is_mp4 = head[4:8] == b"ftyp"
    if (is_mp4 or head.startswith(_SOUNDS)) and (seconds := audio_seconds(source)) is not None:
        is_sound = not is_mp4 or head[8:11] == b"M4A" or _SHORT.get(media_type, media_type).startswith("audio")
        return _sound(seconds, model) if is_sound else _video(seconds)
    return _unread(source, head, media_type, model, low=low)


def _unread(source: Source, head: bytes, media_type: str, model: str | None, *, low: bool) -> Weight:
    """Return the weight of an attachment whose header states no size and no length."""
    if head.startswith(b"%PDF") or "pdf" in media_type:
        return _pdf(source, model)
    kind = _SHORT.get(media_type, media_type)
    if kind.startswith("image"):
        return Weight("image", image_tokens(model, None, low=low))
    if kind.startswith("audio"):
        return _sound(source.size / SLOWEST_SOUND, model)
    if kind.startswith("video"):
        return _video(source.size / SLOWEST_VIDEO)
    return Weight("text" if kind.startswith(_TEXTS) else "document", source.size)


def _video(seconds: float) -> Weight:
    return Weight("video", ceil(seconds * VIDEO), seconds)


def _sound(seconds: float, model: str | None) -> Weight:
    rate = next((rate for name, rate in SOUND if name in (model or "")), OTHER_SOUND)
    return Weight("audio", ceil(seconds * rate), seconds)


def _pdf(source: Source, model: str | None) -> Weight:
    pages = page_count(source) or min(source.size // PAGE_BYTES + 1, MOST_PAGES)
    return Weight("document", pages * (PAGE_TEXT + image_tokens(model, PAGE_SIZE)))


def is_media(source: Source) -> bool:
    """Return whether bytes are an image, a sound or a PDF, by their header."""
    head = source.read(0, 16)
    if head.startswith(b"%PDF") or (head.startswith(_IMAGES) and image_size(source) is not None):
        return True
    return head.startswith(_SOUNDS) and audio_seconds(source) is not None
