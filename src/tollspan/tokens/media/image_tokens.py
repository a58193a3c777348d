"""The most tokens that an image is billed for, by the formula that the provider of its model documents.

- OpenAI, in tiles: scaled into 2048 x 2048, then to a short side of 768; a base, and more for each 512 x 512. In
  patches: one for each 32 x 32, up to a limit, times a factor. https://developers.openai.com/api/docs/guides/images-vision
- Anthropic: width x height / 750, scaled down to 1,568 or 2,576 pixels on the long side and 1,600 or 4,784 tokens.
  https://platform.claude.com/docs/en/build-with-claude/vision
- Gemini: 258 for each tile of up to 768 x 768 before Gemini 3; since then 1,120, and `GEMINI_ULTRA` more where a
  request sets the highest resolution.
  https://ai.google.dev/gemini-api/docs/tokens, https://ai.google.dev/gemini-api/docs/media-resolution
- All others: `ALLOWANCE`. Llama 3.2 counts 6,400 at most, Qwen one for each 28 x 28 pixels.

An image whose size is not known, as one by URL, is taken at the largest that the model accepts, or at `ALLOWANCE` where
no limit is documented.
"""

from __future__ import annotations

from math import ceil
from typing import Final, NamedTuple

ALLOWANCE: Final = 10_000
"""Tokens of an image of a model whose formula is not known: an assumption, not a proof."""
_LARGE: Final = ((8_000, 8_000), (8_000, 3_000), (8_000, 1_000))
"""Pixels of images of which one reaches the limit of each formula."""

_TILE: Final = 512
_TILES: Final = 8  # 2048 x 768 at most
_PATCH: Final = 32
_PATCH_28: Final = 28


class _Tiles(NamedTuple):
    base: int
    each: int


class _Patches(NamedTuple):
    factor: float
    most: int


_OPENAI: Final[tuple[tuple[str, _Tiles | _Patches], ...]] = (
    ("gpt-4o-mini", _Tiles(2833, 5667)),
    ("gpt-4.1-mini", _Patches(1.62, 1536)),
    ("gpt-4.1-nano", _Patches(2.46, 1536)),
    ("o4-mini", _Patches(1.72, 1536)),
    ("gpt-5-mini", _Patches(1.62, 1536)),
    ("gpt-5-nano", _Patches(2.46, 1536)),
    ("gpt-5.4-mini", _Patches(1.62, 1536)),
    ("gpt-5.4-nano", _Patches(2.46, 1536)),
    ("gpt-5.4", _Patches(1.2, 10_000)),
    ("gpt-5.5", _Patches(1.2, 10_000)),
    ("gpt-5-chat", _Tiles(70, 140)),
    ("gpt-4o", _Tiles(85, 170)),
    ("chatgpt-4o", _Tiles(85, 170)),
    ("gpt-4.1", _Tiles(85, 170)),
    ("gpt-4.5", _Tiles(85, 170)),
    ("gpt-4-", _Tiles(85, 170)),
    ("o1", _Tiles(75, 150)),
    ("o3", _Tiles(75, 150)),
    ("computer-use", _Tiles(65, 129)),
)
"""Models by the beginning of their names, the longer one first."""
_OPENAI_OTHER: Final = _Patches(2.46, 30_000)
"""The highest factor, and more patches than any model is known to take: other models of OpenAI."""
_IS_OPENAI: Final = ("gpt-3", "gpt-4", "gpt-5", "gpt-6", "o1", "o3", "o4", "chatgpt-", "computer-use")

# fmt: off
_SMALL_CLAUDES: Final = (
    "claude-2", "claude-3", "claude-haiku-4", "claude-sonnet-4",
    "claude-opus-4-0", "claude-opus-4-1", "claude-opus-4-2", "claude-opus-4-5", "claude-opus-4-6",
)
# fmt: on
_CLAUDE: Final = ((1_568, 1_600), (2_576, 4_784))
"""Pixels of the long side and tokens: of the models above, and of those since Claude Opus 4.7."""

_GEMINI_TILE: Final = 258
_GEMINI_CROP: Final = (256, 768)
_GEMINI_SIDE: Final = 3_072
_GEMINI_3: Final = 1_120
GEMINI_ULTRA: Final = 1_120
"""Tokens that the resolution ULTRA_HIGH adds to those of an image."""


def image_tokens(model: str | None, size: tuple[int, int] | None, *, low: bool = False) -> int:
    """Return the most tokens that an image is billed for.

    Args:
        model: the requested model; a vendor before a slash and a cloud's prefix before a dot are left out.
        size: width and height in pixels; None if they are not known.
        low: the request wants low detail, which models that count in tiles bill at their base.
    """
    name = _bare(model or "")
    if size is None:
        return max(_tokens(name, *large, low=low, known=False) for large in _LARGE)
    return _tokens(name, *size, low=low, known=True)


def _tokens(name: str, width: int, height: int, *, low: bool, known: bool) -> int:
    if "claude" in name:
        return _claude(name, width, height)
    if name.startswith("gemini"):
        return _gemini(width, height)
    if name.startswith(_IS_OPENAI):
        return _openai(name, width, height, low=low, known=known)
    return ALLOWANCE


def _bare(model: str) -> str:
    name = model.lower().rpartition("/")[2]
    before, claude, rest = name.partition("claude")
    del before  # anthropic. and us.anthropic. on Bedrock
    return claude + rest if claude else name


def _openai(name: str, width: int, height: int, *, low: bool, known: bool) -> int:
    rule = next((rule for prefix, rule in _OPENAI if name.startswith(prefix)), _OPENAI_OTHER)
    if rule is _OPENAI_OTHER and not known:
        return ALLOWANCE
    if isinstance(rule, _Patches):
        return ceil(min(ceil(width / _PATCH) * ceil(height / _PATCH), rule.most) * rule.factor)
    if low:
        return rule.base
    short, long = sorted((width, height))
    # Whether a small image is scaled up is not documented: it is taken at the larger of both.
    long = min(ceil(long * 768 / short), 2048)
    return rule.base + rule.each * min(2 * ceil(long / _TILE), _TILES)


def _claude(name: str, width: int, height: int) -> int:
    side, most = _CLAUDE[not name.startswith(_SMALL_CLAUDES)]
    width, height = _scaled_down(width, height, side)
    in_patches = ceil(width / _PATCH_28) * ceil(height / _PATCH_28)
    return min(max(ceil(width * height / 750), in_patches), most)


def _scaled_down(width: int, height: int, side: int) -> tuple[int, int]:
    """Return a size whose long side is `side` at most, rounded up."""
    longest = max(width, height)
    return (width, height) if longest <= side else (-(-width * side // longest), -(-height * side // longest))


def _gemini(width: int, height: int) -> int:
    width, height = _scaled_down(width, height, _GEMINI_SIDE)
    least, most = _GEMINI_CROP
    crop = min(max(int(min(width, height) / 1.5), least), most)
    tiles = ceil(width / crop) * ceil(height / crop)
    return max(_GEMINI_TILE * tiles, _GEMINI_3)
