"""The vocabulary of a price row: what is priced, above which input size, and at which service tier.

A price field is written `NAME`, `NAME>SIZE`, `NAME/TIER` or `NAME>SIZE/TIER`: `cache_read>272k/flex` is what a cached
token costs in the flex tier once the call has more than 272,000 input tokens. Names follow `Usage` and
`UNITS` of `model.records`. Prices are held as whole yocto-dollars (10**-24 USD) per token or unit: finer than any
published price, so that multipliers and sums stay exact.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final

from tollspan.model.errors import PriceTableError

YOCTO: Final = 10**24
"""Yocto-dollars in one dollar: the unit of every price held in memory."""

YOCTO_PER_ATTO: Final = 10**6
"""Prices are finer than amounts (`model.money.ATTO`) by this factor."""

_LEAST, _MOST = -24, 5
"""Exponents of a price's first digit: from one yocto-dollar to less than a million dollars."""

TOKEN_FIELDS: Final = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "cache_write_12h",
    "reasoning",
    "input_audio",
    "input_image",
    "input_video",
    "output_audio",
    "output_image",
    "output_video",
    "cache_read_audio",
    "cache_read_image",
)
"""Fields priced per token."""

UNIT_FIELDS: Final = (
    "web_searches",
    "maps_groundings",
    "queries",
    "requests",
    "pages",
    "annotated_pages",
    "input_seconds",
    "output_seconds",
    "input_characters",
    "output_characters",
    "input_images",
    "output_images",
    "output_pixels",
    "citation_tokens",
    "code_sessions",
    "file_searches",
    "web_search_previews",
)
"""Fields priced per unit. `search_units` of a usage are `queries` here: both are one search of a reranker."""

TOOL_UNITS: Final = frozenset(
    {"web_searches", "web_search_previews", "maps_groundings", "code_sessions", "file_searches", "citation_tokens"}
)
"""Units of server-side tools; a call that does not report them did not use them."""

LEAST: Final = ".least"
"""Ends the name of a tool's fee that is charged at least, where the wire does not say how long the tool ran."""

SHORTEST_SECONDS: Final = {"groq": 10}
"""Seconds of audio that a provider label bills at least for a request: https://console.groq.com/docs/speech-to-text"""

THINKING_LABELS: Final = frozenset({"dashscope"})
"""Labels that bill all output of a response with reasoning at the price of reasoning: Alibaba's models have one price
of output with thinking and one without (https://www.alibabacloud.com/help/en/model-studio/model-pricing)."""

SIZED_UNITS: Final = ("web_searches", "requests")
"""Units whose price may depend on the search context: `web_searches.low`, `.medium`, `.high`."""

CONTEXT_SIZES: Final = ("low", "medium", "high")

TIERS: Final = ("batches", "priority", "flex", "balanced", "ultrafast", "decisions")
"""Service tiers with prices of their own."""

BATCHES: Final = "batches"

_TIER_WORDS: Final = {
    "batch": "batches",
    "batches": "batches",
    "priority": "priority",
    "fast": "priority",  # OpenAI serves `fast` as `priority` and bills it so (rule 6)
    "on_demand_priority": "priority",
    "flex": "flex",
    "on_demand_flex": "flex",
    "balanced": "balanced",
    "ultrafast": "ultrafast",
    "decisions": "decisions",
}

_GOOGLE: Final = ("gemini", "vertex_ai")


def tiers_of(word: str | None, label: str) -> tuple[str, ...]:
    """Return the price tiers of a provider's word for a tier, best first; none for the base price (rule 6).

    `default`, `standard`, `auto`, `on_demand` and unknown words mean the base price. Google bills BATCH as flex; for
    models without a flex price, such as embeddings, the table has a batch price.
    """
    tier = _TIER_WORDS.get(word.lower()) if word else None
    if tier == BATCHES and label.startswith(_GOOGLE):
        return "flex", BATCHES
    return () if tier is None else (tier,)


def yocto(text: str) -> int:
    """Return a price, a decimal string in US dollars, in yocto-dollars.

    Raises:
        PriceTableError: It is not a number, negative, or implausible.
    """
    try:
        exact = Decimal(text)
    except InvalidOperation:
        raise PriceTableError(f"price {text!r} is not a number") from None
    if not exact.is_finite() or exact < 0:
        raise PriceTableError(f"price {text!r} is negative or not finite")
    # Bounds before arithmetic: an exponent of a billion must not fill the memory.
    if exact and not _LEAST <= exact.adjusted() <= _MOST:
        raise PriceTableError(f"price {text!r} is implausible")
    return round(exact.scaleb(24)) if exact else 0
