"""A small price file made for the tests: made-up models at round prices, in LiteLLM's spelling."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.money import usd
from tollspan.model.records import Billable, Usage
from tollspan.prices import PriceTable, price
from tollspan.prices.litellm_file import read_json, rows_of, snapshot

if TYPE_CHECKING:
    from decimal import Decimal

    from tollspan.model.records import Cost

NOON: Final = datetime(2026, 11, 18, 12, tzinfo=UTC)  # a Wednesday

# US dollars per token unless the key says otherwise. Written as text: what a test works out by hand is what is meant.
FILE: Final[dict[str, dict[str, Any]]] = {
    "gpt-round": {
        "litellm_provider": "openai",
        "input_cost_per_token": 2e-6,
        "output_cost_per_token": 1e-5,
        "cache_read_input_token_cost": 5e-7,
        "input_cost_per_token_priority": 4e-6,
        "input_cost_per_token_flex": 1e-6,
        "output_cost_per_token_flex": 5e-6,
        "input_cost_per_token_above_272k_tokens": 4e-6,
        "output_cost_per_token_above_272k_tokens": 1.5e-5,
        "cache_read_input_token_cost_above_272k_tokens": 1e-6,
        "input_cost_per_token_above_272k_tokens_flex": 2e-6,
        "regional_processing_uplift_multiplier_eu": 1.1,
        "search_context_cost_per_query": {
            "search_context_size_low": 0.01,
            "search_context_size_medium": 0.02,
            "search_context_size_high": 0.03,
        },
    },
    "gpt-round-mini": {
        "litellm_provider": "openai",
        "input_cost_per_token": 1e-7,
        "output_cost_per_token": 4e-7,
    },
    "gpt-ear": {
        "litellm_provider": "openai",
        "input_cost_per_token": 1e-6,
        "output_cost_per_token": 2e-6,
        "input_cost_per_audio_token": 1e-5,
        "output_cost_per_audio_token": 2e-5,
        "cache_read_input_token_cost": 2e-7,
        "cache_read_input_audio_token_cost": 4e-7,
        "output_cost_per_reasoning_token": 3e-6,
    },
    "gpt-free": {"litellm_provider": "openai", "input_cost_per_token": 0, "output_cost_per_token": 0},
    "gpt-unlisted": {
        "litellm_provider": "openai",
        "mode": "chat",
        "max_input_tokens": 128_000,
        "max_output_tokens": 4096,
    },
    "ft:gpt-round-2026-01-02": {
        "litellm_provider": "openai",
        "input_cost_per_token": 8e-6,
        "output_cost_per_token": 4e-5,
    },
    "scribe-1": {
        "litellm_provider": "openai",
        "mode": "audio_transcription",
        "input_cost_per_second": 1e-4,
        "output_cost_per_second": 1e-4,
    },
    "azure/gpt-round": {"litellm_provider": "azure", "input_cost_per_token": 3e-6, "output_cost_per_token": 1.2e-5},
    "azure/eu/gpt-round": {
        "litellm_provider": "azure",
        "input_cost_per_token": 3.3e-6,
        "output_cost_per_token": 1.32e-5,
    },
    "claude-round-5": {
        "litellm_provider": "anthropic",
        "input_cost_per_token": 4e-6,
        "output_cost_per_token": 2e-5,
        "cache_read_input_token_cost": 4e-7,
        "cache_creation_input_token_cost": 5e-6,
        "cache_creation_input_token_cost_above_1hr": 8e-6,
        "input_cost_per_token_batches": 2e-6,
        "output_cost_per_token_batches": 1e-5,
        "search_context_cost_per_query": {"search_context_size_medium": 0.01},
        "provider_specific_entry": {"us": 1.1, "fast": 2},
    },
    "claude-grand-5": {
        "litellm_provider": "anthropic",
        "input_cost_per_token": 1e-5,
        "output_cost_per_token": 5e-5,
    },
    "anthropic.claude-round-5-20260101-v1:0": {
        "litellm_provider": "bedrock_converse",
        "input_cost_per_token": 4e-6,
        "output_cost_per_token": 2e-5,
    },
    "us.anthropic.claude-round-5-20260101-v1:0": {
        "litellm_provider": "bedrock_converse",
        "input_cost_per_token": 4.4e-6,
        "output_cost_per_token": 2.2e-5,
    },
    "bedrock/us-gov-west-1/anthropic.claude-round-5-20260101-v1:0": {
        "litellm_provider": "bedrock",
        "input_cost_per_token": 4.8e-6,
        "output_cost_per_token": 2.4e-5,
    },
    "vertex_ai/claude-round-5": {
        "litellm_provider": "vertex_ai-anthropic_models",
        "input_cost_per_token": 4e-6,
        "output_cost_per_token": 2e-5,
        "regional_endpoint_uplift_multiplier": 1.1,
    },
    "gemini/gemini-round": {
        "litellm_provider": "gemini",
        "input_cost_per_token": 1e-6,
        "output_cost_per_token": 5e-6,
        "input_cost_per_token_flex": 5e-7,
        "input_cost_per_token_batches": 4e-7,
        "search_context_cost_per_query": {"search_context_size_medium": 0.035},
    },
    "gemini/gemini-query": {
        "litellm_provider": "gemini",
        "input_cost_per_token": 1e-6,
        "output_cost_per_token": 5e-6,
        "search_context_cost_per_query": {"search_context_size_medium": 0.014},
        "web_search_billing_unit": "per_query",
        "google_maps_grounding_cost_per_query": 0.025,
    },
    "xai/grok-round": {
        "litellm_provider": "xai",
        "input_cost_per_token": 2e-6,
        "output_cost_per_token": 6e-6,
        "cache_read_input_token_cost": 5e-7,
        "input_cost_per_token_above_200k_tokens": 4e-6,
        "output_cost_per_token_above_200k_tokens": 1.2e-5,
        "cache_read_input_token_cost_above_200k_tokens": 1e-6,
    },
    "deepseek-night": {
        "litellm_provider": "deepseek",
        "input_cost_per_token": 4e-7,
        "output_cost_per_token": 2e-6,
        "cache_read_input_token_cost": 4e-8,
        "off_peak_pricing": {
            "input_cost_per_token": 2e-7,
            "output_cost_per_token": 1e-6,
            "cache_read_input_token_cost": 2e-8,
            "windows": [
                {"hours_utc": ["00:00-01:00", "10:00-00:00"], "weekdays": [1, 2, 3, 4, 5]},
                {"hours_utc": "00:00-00:00", "weekdays": [6, 7]},
            ],
            "weekday_timezone": "Asia/Shanghai",
        },
    },
    "dashscope/qwen-steps": {
        "litellm_provider": "dashscope",
        "tiered_pricing": [
            {"input_cost_per_token": 1e-6, "output_cost_per_token": 5e-6, "range": [0, 32000.0]},
            {"input_cost_per_token": 2e-6, "output_cost_per_token": 9e-6, "range": [32000.0, 128000.0]},
        ],
    },
    "rerank-round": {
        "litellm_provider": "cohere",
        "mode": "rerank",
        "input_cost_per_query": 0.002,
        "input_cost_per_token": 0.0,
        "output_cost_per_token": 0.0,
    },
    "mistral/ocr-round": {
        "litellm_provider": "mistral",
        "mode": "ocr",
        "ocr_cost_per_page": 0.004,
        "ocr_cost_per_page_batches": 0.002,
        "annotation_cost_per_page": 0.005,
    },
    "perplexity/sonar-deep": {
        "litellm_provider": "perplexity",
        "input_cost_per_token": 2e-6,
        "output_cost_per_token": 8e-6,
        "output_cost_per_reasoning_token": 3e-6,
        "citation_cost_per_token": 2e-6,
        "search_context_cost_per_query": {"search_context_size_medium": 0.005},
    },
    "fal_ai/painter": {"litellm_provider": "fal_ai", "mode": "image_generation", "output_cost_per_image": 0.04},
}


def table(file: dict[str, dict[str, Any]] | None = None, **changes: dict[str, Any] | None) -> PriceTable:
    """Make a table of the file, or of another one; `changes` replace entries, None takes one away."""
    entries = {**(FILE if file is None else file), **changes}
    text = json.dumps({key: entry for key, entry in entries.items() if entry is not None}).encode()
    rows, refused = rows_of(read_json(text))
    assert not refused
    return PriceTable.parse(snapshot(rows, {"version": "made"}))


TABLE: Final = table()


def cost(model: str, label: str = "openai", **terms: Any) -> Cost:
    """Price a call of a made model. `terms` are fields of the usage or of the billable, `usage`, `prices` and `at`."""
    given = {name: terms.pop(name) for name in list(terms) if name in Usage.__slots__}
    usage = terms.pop("usage", None)
    at, prices = terms.pop("at", NOON), terms.pop("prices", TABLE)
    return price(Billable(usage=usage or Usage(**given), price_providers=(label,), model=model, **terms), prices, at)


def dollars(priced: Cost) -> Decimal | None:
    """Return the amount of a cost in dollars, after checking that the breakdown adds up to what was computed."""
    assert sum(priced.breakdown.values()) == (priced.computed or 0)
    return None if priced.amount is None else usd(priced.amount)
