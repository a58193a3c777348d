"""What a call costs, worked out by hand from the rules for made-up models at round prices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.prices.price_rows import NOON, TABLE, cost, dollars, table
from tollspan.model.money import ATTO, usd
from tollspan.model.records import Billable, Cost, Part, Usage
from tollspan.prices import EMPTY, price
from tollspan.prices.engine import _computed
from tollspan.prices.snapshot import bundled


def test_input_and_output() -> None:
    """1,000 in at 2 USD per million and 100 out at 10 are 0.002 + 0.001."""
    priced = cost("gpt-round", input=1000, output=100)
    assert dollars(priced) == Decimal("0.003")
    assert priced.breakdown == {"input": 2 * ATTO // 1000, "output": ATTO // 1000}
    assert (priced.source, priced.quality, priced.currency) == ("local", "measured", "USD")
    assert (priced.price_key, priced.rule) == ("gpt-round", "exact")
    assert priced.table_version == TABLE.version


def test_cached_tokens_are_inside_the_input() -> None:
    """Of 1,000 in, 800 read from the cache: 200 x 2 + 800 x 0.5 per million; nothing is added on top."""
    priced = cost("gpt-round", input=1000, cache_read=800, output=0)
    assert dollars(priced) == Decimal("0.0008")
    assert priced.savings == 800 * (2 * 10**12 - 5 * 10**11)


def test_a_cache_read_without_a_price_costs_the_input_rate() -> None:
    """Rule 2: where no cache price is known, a cached token is a token."""
    assert dollars(cost("gpt-round-mini", input=1000, cache_read=800)) == Decimal("0.0001")


def test_an_explicit_zero_is_a_price() -> None:
    """Rule 2: a cache read listed at 0 is free, it does not fall back to the input rate."""
    made = table(free_reads={**_OPENAI, "cache_read_input_token_cost": 0})
    assert dollars(cost("free_reads", input=1000, cache_read=1000, prices=made)) == Decimal(0)


_OPENAI = {"litellm_provider": "openai", "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"cache_write": 1000}, "0.005"),
        ({"cache_write": 1000, "cache_write_5m": 1000}, "0.005"),
        ({"cache_write": 1000, "cache_write_30m": 1000}, "0.005"),
        ({"cache_write": 1000, "cache_write_1h": 1000}, "0.008"),
        ({"cache_write": 1000, "cache_write_5m": 100, "cache_write_1h": 400}, "0.0062"),
        ({"cache_write_5m": 600, "cache_write_1h": 400}, "0.0062"),
        ({"cache_write": 1000, "cache_write_12h": 1000}, "0.005"),
    ],
)
def test_cache_writes_by_their_lifetime(written: dict[str, int], expected: str) -> None:
    """Rule 3: 5m and 30m at the base write rate, 1h at its own, what is not attributed at base."""
    assert dollars(cost("claude-round-5", "anthropic", input=1000, **written)) == Decimal(expected)


def test_cache_savings_count_reads_less_what_writes_cost_extra() -> None:
    """1,000 reads save 3.6 USD per million each, 1,000 1h writes cost 4 more: minus 0.0004 USD."""
    priced = cost("claude-round-5", "anthropic", input=2000, cache_read=1000, cache_write=1000, cache_write_1h=1000)
    assert priced.savings == -4 * ATTO // 10_000


def test_reasoning_is_inside_output_and_has_its_own_rate_where_there_is_one() -> None:
    """Rule 4: of 1,000 out, 400 thought: 600 x 2 + 400 x 3 per million; without such a rate all cost the same."""
    assert dollars(cost("gpt-ear", output=1000, reasoning=400)) == Decimal("0.0024")
    assert dollars(cost("gpt-round", output=1000, reasoning=400)) == Decimal("0.01")


def test_modalities_are_billed_once_and_cached_ones_at_their_own_rate() -> None:
    """Rule 5: 1,000 in, 500 audio, of it 200 cached; 300 text cached: 200 x 1 + 300 x 10 + 300 x 0.2 + 200 x 0.4."""
    priced = cost("gpt-ear", input=1000, input_audio=500, cache_read=500, cache_read_audio=200)
    assert dollars(priced) == Decimal("0.00334")
    assert set(priced.breakdown) == {"input", "input_audio", "cache_read", "cache_read_audio"}


def test_audio_out() -> None:
    """Of 100 out, 60 are audio at 20 and 40 text at 2 USD per million."""
    assert dollars(cost("gpt-ear", output=100, output_audio=60)) == Decimal("0.00128")


@pytest.mark.parametrize(
    "counts",
    [
        {"input": 100, "cache_read": 150},
        {"input": 100, "cache_read": 80, "cache_write": 50},
        {"input": 100, "input_audio": 150},
        {"input": 100, "input_audio": 80, "input_image": 80},
        {"input": 1, "output": 100, "output_audio": 90, "reasoning": 90},
    ],
)
def test_details_that_exceed_their_total_are_clamped_and_noted(counts: dict[str, int]) -> None:
    """Inconsistent details never raise, and never bill more tokens than the totals say."""
    priced = cost("gpt-ear", "openai", **counts)
    dearest = counts.get("input", 0) * Decimal("1e-5") + counts.get("output", 0) * Decimal("2e-5")
    assert Decimal(0) < (dollars(priced) or 0) <= dearest
    assert "clamped" in str(priced.note)


@pytest.mark.parametrize(
    ("tokens", "cached", "expected"),
    [
        (272_000, 0, "0.554"),  # at the threshold: below it, 272,000 x 2 + 1,000 x 10
        (272_001, 0, "1.103004"),  # above: every token at the higher rates, output included
        (300_000, 295_000, "0.33"),  # cached tokens count: 5,000 x 4 + 295,000 x 1 + 1,000 x 15
    ],
)
def test_thresholds_are_a_cliff(tokens: int, cached: int, expected: str) -> None:
    """Rule 1: the highest threshold crossed reprices all tokens; the total input counts, strictly above."""
    assert dollars(cost("gpt-round", input=tokens, cache_read=cached, output=1000)) == Decimal(expected)


@pytest.mark.parametrize(("tokens", "expected"), [(199_999, "0.399998"), (200_000, "0.8")])
def test_xai_bills_the_threshold_itself_at_the_higher_rate(tokens: int, expected: str) -> None:
    """Rule 1: xAI's long-context price holds at the threshold, not only above it."""
    assert dollars(cost("grok-round", "xai", input=tokens)) == Decimal(expected)


@pytest.mark.parametrize(("tokens", "expected"), [(32_000, "0.037"), (32_001, "0.073002"), (900_000, "1.809")])
def test_ranges_of_input_size(tokens: int, expected: str) -> None:
    """The range that holds the input prices all tokens; beyond the last range its price goes on."""
    assert dollars(cost("qwen-steps", "dashscope", input=tokens, output=1000)) == Decimal(expected)


@pytest.mark.parametrize(
    ("tier", "expected"),
    [
        (None, "0.003"),
        ("default", "0.003"),
        ("standard", "0.003"),
        ("auto", "0.003"),
        ("scale", "0.003"),
        ("flex", "0.0015"),
        ("priority", "0.005"),  # the output has no priority price: base
        ("fast", "0.005"),
    ],
)
def test_the_served_tier(tier: str | None, expected: str) -> None:
    """Rule 6: a tier has its own prices, one that is missing is the base price; fast is served as priority."""
    assert dollars(cost("gpt-round", input=1000, output=100, tier=tier)) == Decimal(expected)


def test_a_tier_above_a_threshold() -> None:
    """Flex input above 272k costs 2, its output has no flex price there and costs the base 15 USD per million."""
    assert dollars(cost("gpt-round", input=300_000, output=1000, tier="flex")) == Decimal("0.615")


@pytest.mark.parametrize(
    ("traffic", "expected"),
    [("ON_DEMAND", "0.001"), ("FLEX", "0.0005"), ("BATCH", "0.0005"), ("PROVISIONED_THROUGHPUT", "0.001")],
)
def test_traffic_types_of_gemini(traffic: str, expected: str) -> None:
    """Rule 6: Google's FLEX and BATCH are the flex tier, the rest is base."""
    assert dollars(cost("gemini-round", "gemini", input=1000, tier=traffic)) == Decimal(expected)


def test_a_batch_of_anthropic() -> None:
    """A batch of Claude costs half: 1,000 x 2 + 100 x 10 per million."""
    assert dollars(cost("claude-round-5", "anthropic", input=1000, output=100, tier="batch")) == Decimal("0.003")


@pytest.mark.parametrize(
    ("geography", "speed", "expected"),
    [
        ("global", "standard", "0.006"),
        ("us", "standard", "0.0066"),
        ("global", "fast", "0.012"),
        ("us", "fast", "0.0132"),
        ("not_available", None, "0.006"),
    ],
)
def test_geography_and_speed_multiply_and_stack(geography: str, speed: str | None, expected: str) -> None:
    """Rule 7: inference in the US costs 1.1 times, fast mode 2 times, both together 2.2 times."""
    priced = cost("claude-round-5", "anthropic", input=1000, output=100, geography=geography, speed=speed)
    assert dollars(priced) == Decimal(expected)


def test_multipliers_do_not_touch_searches() -> None:
    """A search costs 0.01 USD in the US too: multipliers are for tokens."""
    priced = cost("claude-round-5", "anthropic", input=1000, output=0, geography="us", units={"web_searches": 1})
    assert dollars(priced) == Decimal("0.0144")


def test_a_model_without_the_multiplier_is_not_multiplied() -> None:
    """Fast mode of a model that has none in the table costs the base price."""
    assert dollars(cost("claude-grand-5", "anthropic", input=1000, speed="fast")) == Decimal("0.01")


@pytest.mark.parametrize(("region", "expected"), [(None, "0.004"), ("global", "0.004"), ("europe-west1", "0.0044")])
def test_regional_endpoints_of_vertex(region: str | None, expected: str) -> None:
    """A location other than global costs 10% more where the row says so."""
    priced = cost("claude-round-5", "vertex_ai-anthropic_models", input=1000, region=region)
    assert dollars(priced) == Decimal(expected)


@pytest.mark.parametrize(("region", "expected"), [("eu", "0.0022"), ("us", "0.002"), (None, "0.002")])
def test_data_residency_of_openai(region: str | None, expected: str) -> None:
    """A regional host costs what the row says for that region, and nothing more elsewhere."""
    assert dollars(cost("gpt-round", input=1000, region=region)) == Decimal(expected)


def test_passes_are_billed_at_their_own_models() -> None:
    """Rule 7: 400 + 100 in and 600 out of the main model, 800 in and 1,600 out of the advisor."""
    parts = (
        Part(kind="message", model="claude-round-5", usage=Usage(input=400, output=100)),
        Part(kind="advisor_message", model="claude-grand-5", usage=Usage(input=800, output=1600)),
        Part(kind="message", model=None, usage=Usage(input=100, output=500)),
    )
    priced = cost("claude-round-5", "anthropic", input=500, output=600, parts=parts)
    assert dollars(priced) == Decimal("0.002") + Decimal("0.012") + Decimal("0.008") + Decimal("0.08")


def test_each_pass_crosses_thresholds_by_itself() -> None:
    """Two passes of 200,000 tokens are two requests below the threshold, not one above it."""
    part = Part(kind="message", model=None, usage=Usage(input=200_000, output=0))
    assert dollars(cost("gpt-round", input=400_000, parts=(part, part))) == Decimal("0.8")


def test_searches_beside_passes_are_billed() -> None:
    """Passes report tokens only: the call's searches are charged with them."""
    part = Part(kind="message", model=None, usage=Usage(input=1000, output=0))
    priced = cost("claude-round-5", "anthropic", input=1000, units={"web_searches": 2}, parts=(part,))
    assert dollars(priced) == Decimal("0.024")


def test_a_pass_of_an_unknown_model_makes_the_cost_a_floor() -> None:
    """What is known is charged; that something is missing is said, by name."""
    parts = (
        Part(kind="message", model=None, usage=Usage(input=1000)),
        Part(kind="advisor_message", model="claude-nobody", usage=Usage(input=1000)),
    )
    priced = cost("claude-round-5", "anthropic", input=1000, parts=parts)
    assert dollars(priced) == Decimal("0.004")
    assert (priced.quality, priced.missing) == ("floor", ("advisor_message of claude-nobody",))


@pytest.mark.parametrize(("size", "expected"), [(None, "0.04"), ("low", "0.02"), ("medium", "0.04"), ("high", "0.06")])
def test_searches_by_the_size_of_their_context(size: str | None, expected: str) -> None:
    """Two searches cost what their context size costs, medium where nothing was said."""
    priced = cost("gpt-round", input=0, output=0, units={"web_searches": 2}, search_context=size)
    assert dollars(priced) == Decimal(expected)


def test_a_fee_by_the_minute_is_a_bound() -> None:
    """A container's session costs 0.03 USD at most, and 0.0075 at least: what the wire says does not tell how long."""
    priced = cost("gpt-5.4", "openai", input=1000, output=0, units={"code_sessions": 4}, prices=bundled())
    assert dollars(priced) == Decimal("0.1225")
    assert (priced.quality, usd(priced.low or 0), usd(priced.high or 0)) == (
        "estimated",
        Decimal("0.0325"),
        Decimal("0.1225"),
    )
    assert cost("gpt-5.4", "openai", input=1000, output=0, prices=bundled()).quality == "measured"


@pytest.mark.parametrize(("reasoning", "expected"), [(None, "0.001"), (0, "0.001"), (1, "0.004"), (900, "0.004")])
def test_output_with_thinking_has_one_price(reasoning: int | None, expected: str) -> None:
    """Alibaba bills all output of a response with thinking at the price of thinking."""
    entry: dict[str, Any] = {"litellm_provider": "dashscope", "input_cost_per_token": 0, "output_cost_per_token": 1e-6}
    made = table(**{"dashscope/qwen-round": {**entry, "output_cost_per_reasoning_token": 4e-6}})
    priced = cost("qwen-round", "dashscope", input=10, output=1000, reasoning=reasoning, prices=made)
    assert dollars(priced) == Decimal(expected)


def test_seconds_of_audio_that_have_no_price_are_missing() -> None:
    """Seconds that are stated beside tokens are named if neither they nor tokens of audio have a price."""
    priced = cost("gpt-round", input=1000, input_audio=900, output=0, units={"input_seconds": 4})
    assert (priced.quality, priced.missing) == ("floor", ("input_seconds",))
    heard = cost("gpt-ear", input=1000, input_audio=900, output=0, units={"input_seconds": 4})
    assert (heard.quality, heard.missing) == ("measured", ())


def test_gemini_bills_grounding_by_prompt_or_by_query() -> None:
    """Older models charge one grounded prompt however many queries it ran, newer ones each query."""
    units = {"web_searches": 3}
    assert dollars(cost("gemini-round", "gemini", input=0, units=units)) == Decimal("0.035")
    assert dollars(cost("gemini-query", "gemini", input=0, units=units)) == Decimal("0.042")
    assert dollars(cost("gemini-query", "gemini", input=0, units={"maps_groundings": 2})) == Decimal("0.05")


def test_perplexity_deep_research() -> None:
    """33 in, 7,163 out, 73,997 thought, 20,016 citation tokens, 18 queries: 0.409393 USD."""
    priced = cost(
        "sonar-deep",
        "perplexity",
        input=33,
        output=7163 + 73997,
        reasoning=73997,
        units={"citation_tokens": 20016, "web_searches": 18},
    )
    assert dollars(priced) == Decimal("0.409393")


def test_seconds_are_billed_once_and_exactly() -> None:
    """12.5 seconds at 0.0001 USD; the row prices the recording from both ends, it is charged from one."""
    assert dollars(cost("scribe-1", units={"input_seconds": 12.5})) == Decimal("0.00125")


def test_tokens_that_a_unit_price_covers_are_no_gap() -> None:
    """A transcription by the second is fully priced although its tokens have no price."""
    priced = cost("scribe-1", input=100, output=20, units={"input_seconds": 10})
    assert (dollars(priced), priced.missing, priced.quality) == (Decimal("0.001"), (), "measured")


def test_pages_searches_and_images() -> None:
    """OCR pages, with annotations and in a batch; searches of a reranker; images."""
    assert dollars(cost("ocr-round", "mistral", units={"pages": 3, "annotated_pages": 1})) == Decimal("0.017")
    assert dollars(cost("ocr-round", "mistral", units={"pages": 3}, tier="batch")) == Decimal("0.006")
    assert dollars(cost("rerank-round", "cohere", units={"search_units": 2})) == Decimal("0.004")
    assert dollars(cost("painter", "fal_ai", units={"output_images": 2})) == Decimal("0.08")


@pytest.mark.parametrize(
    ("model", "label", "counts", "missing"),
    [
        ("scribe-1", "openai", {}, {"input_seconds", "output_seconds"}),
        ("rerank-round", "cohere", {"input": 50}, {"queries"}),
        ("painter", "fal_ai", {}, {"output_images"}),
        ("gpt-round", "openai", {}, {"usage"}),
    ],
)
def test_what_is_billed_but_not_visible_is_named_not_guessed(
    model: str, label: str, counts: dict[str, int], missing: set[str]
) -> None:
    """Without the unit that is billed there is no amount, least of all 0."""
    priced = cost(model, label, **counts)
    assert (priced.amount, priced.quality) == (None, "unpriced")
    assert set(priced.missing) == missing


def test_a_unit_without_a_price_makes_the_cost_a_floor() -> None:
    """Searches of a model whose row has no search price: the tokens are charged, the gap is named."""
    priced = cost("gpt-round-mini", input=1000, output=0, units={"web_searches": 1})
    assert (dollars(priced), priced.quality, priced.missing) == (Decimal("0.0001"), "floor", ("web_searches",))


def test_free_is_a_price_and_unlisted_is_none() -> None:
    """A free model costs 0 and is measured; a row without any price, and no row, are unpriced."""
    free = cost("gpt-free", input=1000, output=100)
    assert (free.amount, free.quality, free.source) == (0, "measured", "local")
    for model in ("gpt-unlisted", "gpt-nobody"):
        unpriced = cost(model, input=1000, output=100)
        assert (unpriced.amount, unpriced.quality, unpriced.source) == (None, "unpriced", None)
        assert unpriced.table_version == TABLE.version


def test_terms_without_a_listed_price_make_the_cost_a_floor() -> None:
    """Bedrock's latency-optimised inference costs more, and no list says how much."""
    priced = cost("anthropic.claude-round-5-20260101-v1:0", "bedrock_converse", input=1000, speed="optimized")
    assert (dollars(priced), priced.quality) == (Decimal("0.004"), "floor")
    assert priced.missing == ("latency-optimised inference",)


def test_committed_capacity_is_shown_at_the_base_price_and_noted() -> None:
    """Provisioned throughput is paid by the hour: the tokens are shown at the base price, and the note says so."""
    priced = cost("gemini-round", "gemini", input=1000, tier="PROVISIONED_THROUGHPUT")
    assert dollars(priced) == Decimal("0.001")
    assert "paid by commitment" in str(priced.note)


def test_reported_zeros_cost_zero() -> None:
    """A call that reports zero tokens was counted, and cost nothing."""
    priced = cost("gpt-round", input=0, output=0)
    assert (priced.amount, priced.quality) == (0, "measured")


def test_the_cost_a_provider_states_wins() -> None:
    """Rule 9: the stated amount stands, what one's own key was charged on top is added, the computed one is kept."""
    priced = cost("gpt-round", input=1000, output=100, provider_cost=Decimal("0.0004"), upstream_cost=Decimal("0.008"))
    assert priced.amount == 84 * ATTO // 10_000
    assert (priced.source, priced.quality) == ("provider", "provider")
    assert priced.computed == 3 * ATTO // 1000
    assert sum(priced.breakdown.values()) == priced.computed


def test_a_stated_cost_needs_no_price() -> None:
    """A model that the table does not know costs what its provider says."""
    priced = cost("gpt-nobody", input=1000, provider_cost=Decimal("0.0123"))
    assert (priced.amount, priced.computed, priced.missing) == (123 * ATTO // 10_000, None, ())


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2026, 11, 18, 9, 59, tzinfo=UTC), "0.0004"),  # Wednesday, before the window
        (datetime(2026, 11, 18, 10, 0, tzinfo=UTC), "0.0002"),
        (datetime(2026, 11, 18, 23, 59, tzinfo=UTC), "0.0002"),
        (datetime(2026, 11, 18, 0, 59, tzinfo=UTC), "0.0002"),
        (datetime(2026, 11, 18, 1, 0, tzinfo=UTC), "0.0004"),
        (datetime(2026, 11, 21, 5, 0, tzinfo=UTC), "0.0002"),  # Saturday
        (datetime(2026, 11, 22, 16, 30, tzinfo=UTC), "0.0002"),  # Sunday in UTC, Monday in Shanghai: in the window
        (datetime(2026, 11, 20, 16, 0, tzinfo=UTC), "0.0002"),  # Saturday in Shanghai
        (datetime(2026, 11, 18, 11, 30, tzinfo=timezone(timedelta(hours=2))), "0.0004"),  # 09:30 UTC
        (datetime(2026, 11, 18, 10, 0), "0.0002"),  # noqa: DTZ001 - what has no zone is UTC
    ],
)
def test_off_peak_windows(at: datetime, expected: str) -> None:
    """Windows are hours of the UTC day on weekdays of the provider's calendar."""
    assert dollars(cost("deepseek-night", "deepseek", input=1000, at=at)) == Decimal(expected)


def test_an_empty_table_prices_nothing() -> None:
    """With an empty table calls go on, unpriced."""
    assert cost("gpt-round", input=1000, prices=EMPTY).quality == "unpriced"


def test_prices_finer_than_an_atto_dollar_are_rounded_once() -> None:
    """A rate of 0.4e-18 USD: three tokens are 1.2e-18, one atto-dollar; nothing is lost before the end."""
    made = table(fine={"litellm_provider": "openai", "input_cost_per_token": 4e-19, "output_cost_per_token": 0})
    assert cost("fine", input=3, output=0, prices=made).amount == 1
    assert cost("fine", input=3_000_000, output=0, prices=made).amount == 1_200_000


_count = st.none() | st.integers(min_value=0, max_value=10**7)
_usages = st.builds(
    Usage, **{name: _count for name in Usage.__slots__ if name != "units"}, units=st.just({"web_searches": 2})
)


@given(_usages, st.sampled_from(["gpt-round", "gpt-ear", "gpt-free", "scribe-1"]), st.sampled_from([None, "flex"]))
def test_any_usage_can_be_priced_and_adds_up(usage: Usage, model: str, tier: str | None) -> None:
    """No counts raise, however inconsistent; parts are never negative and sum to the amount."""
    priced = cost(model, usage=usage, tier=tier)
    assert all(part >= 0 for part in priced.breakdown.values())
    assert sum(priced.breakdown.values()) == (priced.amount or 0)


_READS = {**_OPENAI, "cache_read_input_token_cost": 1e-7}
_FINE = table(fine={**_READS, "input_cost_per_video_token": 1e-19})
_WHOLE = table(fine=_READS)


@given(_usages)
def test_text_alone_is_priced_alike_on_both_paths(usage: Usage) -> None:
    """The short way for plain text gives what the general way gives: a very fine video price forces the latter."""
    plain = Usage(
        input=usage.input,
        output=usage.output,
        cache_read=usage.cache_read,
        cache_write=usage.cache_write,
        cache_write_1h=usage.cache_write_1h,
        reasoning=usage.reasoning,
    )
    one, other = cost("fine", usage=plain, prices=_FINE), cost("fine", usage=plain, prices=_WHOLE)
    assert (one.amount, one.breakdown, one.savings) == (other.amount, other.breakdown, other.savings)


def test_the_record_made_by_hand_is_the_record() -> None:
    """The engine fills a cost's slots itself, for speed: it is equal to one made the usual way, and frozen."""
    made = cost("gpt-round", input=1000, output=100)
    fields = {name: getattr(made, name) for name in Cost.__slots__}
    assert made == Cost(**fields)
    with pytest.raises(AttributeError):
        made.amount = 1  # type: ignore[misc]


def test_price_is_pure() -> None:
    """The same call at the same table gives the same cost, and shares nothing that could be changed."""
    call = Billable(usage=Usage(input=1000, output=100), price_providers=("openai",), model="gpt-round")
    first, second = price(call, TABLE, NOON), price(call, TABLE, NOON)
    assert first == second
    assert first.breakdown is not second.breakdown
    assert _computed(call, TABLE, NOON) == first
