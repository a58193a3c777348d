"""The same calls priced by tollspan, by litellm and by genai-prices. Every difference is listed with its reason.

Runs in an environment of its own (`pip install -r tests/differential/requirements.txt`), for litellm brings a hundred
packages. Against litellm the very file that it brings is read, so that rules are compared, not dates of price lists;
against genai-prices the bundled table is.
"""

from __future__ import annotations

import os
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # before the import: otherwise it fetches another file

import genai_prices  # type: ignore[import-not-found]  # neither is in the project's own environment
import litellm  # type: ignore[import-not-found]
from litellm.types import utils as spelling  # type: ignore[import-not-found]

from tests.differential.disagreements import GENAI, LITELLM, Disagreement
from tests.differential.mixes import MIXES, Mix
from tollspan.model.money import usd
from tollspan.prices import PriceTable, bundled, price
from tollspan.prices.litellm_file import read_json, rows_of, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tollspan.prices.row import Row

NOON: Final = datetime(2026, 11, 18, 12, tzinfo=UTC)
FILE: Final = Path(str(litellm.__file__)).with_name("model_prices_and_context_window_backup.json")

# Provider labels, and what the other two call the provider.
LITELLM_NAMES: Final = {
    "openai": "openai",
    "azure": "azure",
    "azure_ai": "azure_ai",
    "anthropic": "anthropic",
    "bedrock": "bedrock",
    "bedrock_converse": "bedrock",
    "bedrock_mantle": "bedrock_mantle",
    "vertex_ai": "vertex_ai",
    "vertex_ai-language-models": "vertex_ai",
    "vertex_ai-anthropic_models": "vertex_ai",
    "gemini": "gemini",
    "mistral": "mistral",
    "xai": "xai",
    "groq": "groq",
    "deepseek": "deepseek",
    "cohere": "cohere",
    "cohere_chat": "cohere_chat",
    "perplexity": "perplexity",
    "fireworks_ai": "fireworks_ai",
    "together_ai": "together_ai",
    "cerebras": "cerebras",
    "moonshot": "moonshot",
    "zai": "zai",
    "dashscope": "dashscope",
}
GENAI_NAMES: Final = {
    "openai": "openai",
    "azure": "azure",
    "anthropic": "anthropic",
    "bedrock_converse": "aws",
    "gemini": "google",
    "mistral": "mistral",
    "xai": "x-ai",
    "groq": "groq",
    "deepseek": "deepseek",
    "cohere_chat": "cohere",
}


def rows_by_token(table: PriceTable, labels: dict[str, str]) -> Iterator[Row]:
    """Return the rows of text models that have a price per token."""
    for row in table:
        by_token = "input" in row.prices or "output" in row.prices
        if row.label in labels and by_token and row.traits.get("mode", "chat") in {"chat", "responses", "embedding"}:
            yield row


def ours(table: PriceTable, row: Row, mix: Mix) -> float | None:
    """Price a call with tollspan."""
    name = row.key.removeprefix(f"{row.label}/") if row.label == "perplexity" else row.key
    amount = price(mix.billable(name, row.label), table, NOON).amount
    return None if amount is None else float(usd(amount))


def litellms(row: Row, mix: Mix) -> float | None:
    """Price a call with litellm; None where it cannot, for whatever reason of its own."""
    written = mix.write_5m + mix.write_1h
    lifetimes = spelling.CacheCreationTokenDetails(
        ephemeral_5m_input_tokens=mix.write_5m, ephemeral_1h_input_tokens=mix.write_1h
    )
    usage = spelling.Usage(
        prompt_tokens=mix.input,
        completion_tokens=mix.output,
        total_tokens=mix.input + mix.output,
        prompt_tokens_details=spelling.PromptTokensDetailsWrapper(
            cached_tokens=mix.read,
            audio_tokens=mix.audio,
            cache_creation_tokens=written,
            cache_creation_token_details=lifetimes if written else None,
        ),
        completion_tokens_details=spelling.CompletionTokensDetailsWrapper(reasoning_tokens=mix.reasoning),
        cache_read_input_tokens=mix.read,
        cache_creation_input_tokens=written,
    )
    provider = LITELLM_NAMES[row.label]
    try:
        parts = litellm.cost_per_token(
            model=row.key, custom_llm_provider=provider, usage_object=usage, service_tier=mix.tier
        )
    except Exception:  # noqa: BLE001 - it raises all kinds, down to errors of its imports; the test counts them
        return None
    return float(sum(parts))


def genais(row: Row, mix: Mix) -> float | None:
    """Price a call with genai-prices; None where it does not know the model."""
    counts = {
        "input_tokens": mix.input,
        "output_tokens": mix.output,
        "cache_read_tokens": mix.read,
        "cache_write_tokens": mix.write_5m + mix.write_1h,
        "cache_write_1h_tokens": mix.write_1h,
        "input_audio_tokens": mix.audio,
    }
    usage = genai_prices.Usage(**{name: count for name, count in counts.items() if count})
    name = row.key.split("/", 1)[1] if row.key.startswith((f"{row.label}/", "azure/")) else row.key
    try:
        priced = genai_prices.calc_price(
            usage, model_ref=name, provider_id=GENAI_NAMES[row.label], genai_request_timestamp=NOON
        )
    except LookupError:
        return None
    return float(priced.total_price)


def unexplained(
    found: list[tuple[Row, str, float | None, float]], listed: tuple[Disagreement, ...]
) -> tuple[list[str], list[Disagreement]]:
    """Return the differences that no entry covers, and the entries that cover none."""
    used: dict[Disagreement, int] = defaultdict(int)
    rest = []
    for row, mix, mine, theirs in found:
        if mine is not None and abs(mine - theirs) <= 1e-9 + 1e-6 * theirs:
            continue
        entry = next((entry for entry in listed if entry.covers(row.label, row.key, mix)), None)
        if entry is None:
            rest.append(f"{row.label} {row.key} {mix}: {mine} here, {theirs} there")
        else:
            used[entry] += 1
    return rest, [entry for entry in listed if entry not in used]


def report(name: str, compared: int, rest: list[str], idle: list[Disagreement]) -> None:
    """Fail with everything that has to be looked at."""
    assert compared > 1000, f"only {compared} calls compared with {name}: it no longer knows the models"
    assert not rest, f"{len(rest)} of {compared} calls differ from {name} without a reason:\n" + "\n".join(rest[:50])
    assert not idle, f"listed disagreements with {name} that are none any more: {idle}"


def test_litellm_gives_the_same_costs() -> None:
    """From the same file, litellm's calculators give what tollspan gives, or the reason is listed."""
    rows, _ = rows_of(read_json(FILE.read_bytes()))
    table = PriceTable.parse(snapshot(rows, {"version": "litellm"}))
    calls = [(row, name, mix) for row in rows_by_token(table, LITELLM_NAMES) for name, mix in MIXES.items()]
    found = [
        (row, name, ours(table, row, mix), theirs)
        for row, name, mix in calls
        if (theirs := litellms(row, mix)) is not None
    ]
    assert len(found) > 0.95 * len(calls), f"litellm could price only {len(found)} of {len(calls)} calls"
    report("litellm", len(found), *unexplained(found, LITELLM))


def test_genai_prices_gives_the_same_costs() -> None:
    """From its own price list, genai-prices gives what tollspan gives, or the reason is listed."""
    found: list[Any] = []
    for row in rows_by_token(bundled(), GENAI_NAMES):
        for name, mix in MIXES.items():
            # It knows neither service tiers nor prices of reasoning.
            if mix.tier is None and not mix.reasoning and (theirs := genais(row, mix)) is not None:
                found.append((row, name, ours(bundled(), row, mix), theirs))
    report("genai-prices", len(found), *unexplained(found, GENAI))
