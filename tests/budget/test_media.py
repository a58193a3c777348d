"""What attachments weigh: sizes and lengths out of headers, whatever the bytes are."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.budget import media_bytes as made
from tollspan.tokens.media.attachments import (
    MOST_PAGES,
    PAGE_BYTES,
    PAGE_SIZE,
    PAGE_TEXT,
    SLOWEST_SOUND,
    VIDEO,
    is_media,
    weigh,
)
from tollspan.tokens.media.audio import audio_seconds
from tollspan.tokens.media.documents import page_count
from tollspan.tokens.media.image_tokens import ALLOWANCE, image_tokens
from tollspan.tokens.media.images import image_size
from tollspan.tokens.media.source import Base64, Plain

IMAGES = {
    "png": made.png(640, 480),
    "jpeg": made.jpeg(640, 480, segments=3),
    "gif": made.gif(640, 480),
    "webp": made.webp(640, 480),
    "webp lossless": made.webp(640, 480, b"VP8L"),
    "webp lossy": made.webp(640, 480, b"VP8 "),
}
SOUNDS = {
    "wav": (made.wav(30), 30.0),
    "wav of a pipe": (made.wav(30, stated=0xFFFFFFFF), 30.0),
    "wav without a length": (made.wav(30, stated=0), 30.0),
    "mp3": (made.mp3(1000), 1000 * 417 * 8 / 128_000),
    "mp3 without a tag": (made.mp3(1000, tagged=False), 1000 * 417 * 8 / 128_000),
    "mp3 that counts": (made.mp3(10, counted=5000), 5000 * 1152 / 44_100),
    "opus": (made.ogg(30, padded=200_000), 30.0),
    "vorbis": (made.ogg(30, opus=False), 30.0),
    "flac": (made.flac(30), 30.0),
    "m4a": (made.mp4(30), 30.0),
    "mp4 of long times": (made.mp4(30, version=1, brand=b"isom"), 30.0),
}
ALL = [*IMAGES.values(), *(sound for sound, _ in SOUNDS.values()), made.pdf(3), made.pdf(3, packed=True)]


def encoded(data: bytes) -> Base64:
    """Return bytes as a data URL has them."""
    text = "data:any/thing;base64," + base64.b64encode(data).decode()
    return Base64(text, text.index(",") + 1)


@pytest.mark.parametrize("name", IMAGES)
def test_size_of_images(name: str) -> None:
    """The size of an image is in its header: in memory, in base64 of either alphabet, with or without line ends."""
    data = IMAGES[name]
    broken = base64.encodebytes(data).decode()
    url_safe = base64.urlsafe_b64encode(data).decode().rstrip("=")
    for source in (Plain(data), encoded(data), Base64(broken), Base64(url_safe)):
        assert image_size(source) == (640, 480)


@pytest.mark.parametrize("name", SOUNDS)
def test_length_of_sounds(name: str) -> None:
    """The length of a sound is in its header, or follows from its size and its bitrate."""
    data, seconds = SOUNDS[name]
    for source in (Plain(data), encoded(data)):
        assert audio_seconds(source) == pytest.approx(seconds, rel=0.01)


def test_bitrate_that_changes() -> None:
    """An MP3 of several bitrates is taken at the lowest of them: it may be as long as that."""
    data = made.mp3(3) + (made.FRAME_64 + bytes(204)) * 3
    assert audio_seconds(Plain(data)) == pytest.approx((len(data) - 266) * 8 / 64_000)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("padded", [0, 300_000])
def test_pages_of_documents(packed: bool, padded: int) -> None:
    """The pages of a PDF are counted at the root of its tree, also in an object stream; bookmarks are no pages."""
    for pages in (1, 3, 120):
        data = made.pdf(pages, packed=packed, padded=padded)
        assert page_count(Plain(data)) == page_count(encoded(data)) == pages


def test_pages_of_other_documents() -> None:
    """Without a root the pages themselves are counted; a linearized file states them; a part of a tree is no root."""
    pages = b"%PDF-1.4\n" + b"<< /Type /Page /Parent 1 0 R >>\n" * 7
    assert page_count(Plain(pages)) == 7
    linear = b"%PDF-1.4\n1 0 obj << /Linearized 1 /L 9 /H [ 1 2 ] /O 4 /E 5 /N 42 /T 6 >>\n" + bytes(300_000)
    assert page_count(Plain(linear)) == 42
    part = b"%PDF-1.4\n<< /Type /Pages /Kids [1 0 R] /Count 5 /Parent 9 0 R >>" + bytes(300_000)
    assert page_count(Plain(part)) is None
    assert page_count(Plain(b"%PDF-1.4\n<< /Type /Pages /Kids [1 0 R] /Count 5 0 R >>")) is None
    assert page_count(Plain(b"no PDF")) is None


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        # Tiles, as OpenAI's guide works out: https://developers.openai.com/api/docs/guides/images-vision
        ("gpt-4o", (1024, 1024), 765),
        ("gpt-4o", (2048, 4096), 1105),
        ("gpt-4o-mini", (1024, 1024), 25_501),
        ("openai/gpt-4.1", (1024, 1024), 765),
        # Patches
        ("gpt-4.1-mini", (1024, 1024), 1659),
        ("gpt-4.1-mini", (1800, 2400), 2489),
        ("o4-mini", (1024, 1024), 1762),
        ("gpt-5.5", (1024, 1024), 1229),
        # Anthropic's table: https://platform.claude.com/docs/en/build-with-claude/vision
        ("claude-sonnet-4-5", (200, 200), 64),
        ("claude-sonnet-4-5", (1000, 1000), 1334),
        ("claude-sonnet-4-5", (8000, 8000), 1600),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", (1092, 1092), 1590),
        ("claude-opus-4-8", (1920, 1080), 2765),
        ("claude-opus-4-8", (8000, 8000), 4784),
        # Gemini: tiles before Gemini 3, 1,120 since then
        ("gemini-2.5-pro", (3072, 3072), 16 * 258),
        ("gemini-2.5-pro", (960, 540), 6 * 258),
        ("gemini-3.5-flash", (300, 300), 1120),
        ("llama-4-maverick", (1024, 1024), ALLOWANCE),
    ],
)
def test_formulas_of_images(model: str, size: tuple[int, int], tokens: int) -> None:
    """An image counts what its provider documents, or a little more where the documentation leaves a choice."""
    counted = image_tokens(model, size)
    assert tokens <= counted <= tokens * 1.1


def test_images_of_low_detail() -> None:
    """Models that count in tiles bill an image of low detail at the base; others bill its patches nevertheless."""
    assert image_tokens("gpt-4o", (1024, 1024), low=True) == 85
    assert image_tokens("gpt-5-mini", (1024, 1024), low=True) == image_tokens("gpt-5-mini", (1024, 1024))


@given(st.sampled_from(["gpt-4o", "gpt-5.5", "gpt-6", "claude-opus-5", "gemini-2.5-pro", "x"]), st.data())
def test_an_unknown_size_is_the_largest(model: str, data: st.DataObject) -> None:
    """An image of unknown size counts at least as much as any that Anthropic accepts, or the allowance."""
    size = data.draw(st.tuples(st.integers(1, 8000), st.integers(1, 8000)))
    assert image_tokens(model, size) <= image_tokens(model, None) or image_tokens(model, None) == ALLOWANCE


def test_bytes_decide_what_an_attachment_is() -> None:
    """What a request calls an attachment does not matter if its header says what it is."""
    assert weigh(Plain(made.png(1024, 1024)), "application/pdf", "gpt-4o") == ("image", 765, 0.0)
    assert weigh(Plain(made.wav(30)), "text/plain", "gemini-2.5-pro") == ("audio", 960, 30.0)
    assert weigh(Plain(made.wav(30)), "", "gpt-audio") == ("audio", 300, 30.0)
    assert weigh(Plain(made.mp4(30)), "video/mp4", "gemini-2.5-pro") == ("audio", 960, 30.0)
    assert weigh(Plain(made.mp4(30, brand=b"isom")), "audio/mp4", "gemini-2.5-pro") == ("audio", 960, 30.0)
    assert weigh(Plain(made.mp4(30, brand=b"isom")), "", "gemini-2.5-pro") == ("video", 30 * VIDEO, 30.0)
    page = PAGE_TEXT + image_tokens("gpt-5.5", PAGE_SIZE)
    assert weigh(Plain(made.pdf(3)), "", "gpt-5.5") == ("document", 3 * page, 0.0)


def test_allowances() -> None:
    """What cannot be read is counted by its size, at the rates that the documentation states."""
    data = bytes(100_000)
    assert weigh(Plain(data), "image/heic", "gpt-4o").tokens == image_tokens("gpt-4o", None)
    assert weigh(Plain(data), "m4a", "gemini-2.5-pro").seconds == 100_000 / SLOWEST_SOUND
    assert weigh(Plain(data), "video/mp4", "gemini-2.5-pro").tokens == 40 * VIDEO
    page = PAGE_TEXT + image_tokens("gpt-5.5", PAGE_SIZE)
    assert weigh(Plain(data), "application/pdf", "gpt-5.5").tokens == (100_000 // PAGE_BYTES + 1) * page
    assert weigh(Plain(bytes(10**7)), "application/pdf", "gpt-5.5").tokens == MOST_PAGES * page
    assert weigh(Plain(b"a,b\n1,2\n"), "text/csv", "gpt-5.5") == ("text", 8, 0.0)
    assert weigh(Plain(data), "application/vnd.openxmlformats", "gpt-5.5") == ("document", 100_000, 0.0)


@given(st.binary(max_size=300), st.sampled_from(["", "image/png", "audio/mpeg", "application/pdf", "video/mp4", "x"]))
def test_any_bytes_can_be_weighed(data: bytes, media_type: str) -> None:
    """Nothing that an application may send raises, in memory or in what it calls base64."""
    for source in (Plain(data), encoded(data), Base64(data.decode("latin-1"))):
        assert weigh(source, media_type, "gpt-5.5").tokens >= 0
        assert is_media(source) in {True, False}


@given(st.sampled_from(ALL), st.data())
def test_broken_headers_can_be_weighed(whole: bytes, data: st.DataObject) -> None:
    """Nothing raises where a header is cut off, or says something else in any byte."""
    head = bytearray(whole[:4096])
    for at in data.draw(st.lists(st.integers(0, min(len(head), 80) - 1), max_size=4)):
        head[at] = data.draw(st.integers(0, 255))
    weight = weigh(Plain(bytes(head[: data.draw(st.integers(0, len(head)))])), "", "gemini-2.5-pro")
    assert weight.tokens >= 0
    assert weight.seconds >= 0


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xe0\0\2" * 250_000,
        b"\xff\xd8" + b"\xff" * 1_000_000,
        b"RIFF\0\0\0\0WAVE" + b"LIST\0\0\0\0" * 100_000,
        b"\xff\xfb\x90\x00" * 250_000,
        b"ID3\4\0\0\0\0\0\0" + b"\xff" * 1_000_000,
        b"OggS" * 250_000,
        b"%PDF-" + b"/Type /ObjStm" * 80_000,
        b"%PDF-" + b"<</Type/ObjStm>>stream\n" * 40_000,
        b"%PDF-" + b"/Count 1" * 120_000,
        b"%PDF-" + b"/Linearized" * 90_000,
        b"%PDF-" + b"/Type        " * 80_000,
        b"\0\0\0\x08ftyp" * 100_000,
        b"\0\0\0\x10ftyp        \0\0\0\0moov" + b"\0\0\0\x08free" * 100_000,
    ],
    ids=range(13),
)
def test_hostile_bytes_take_no_time(data: bytes) -> None:
    """A megabyte that is made to be slow is weighed in some milliseconds: no more than a bounded part is read."""
    source = encoded(data)
    start = time.perf_counter()
    weigh(source, "", "gpt-5.5")
    assert time.perf_counter() - start < 0.1
