"""Which row prices a model: exact names, date-like endings, providers' own forms, and never a prefix."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.prices.price_rows import FILE, TABLE, cost, table

# Made after real families: each name begins with the one before it, and costs something else.
FAMILIES = (
    ("gpt-5", "gpt-5-mini", "gpt-5-mini-2025-08-07"),
    ("gpt-5", "gpt-5.4", "gpt-5.4-mini", "gpt-5.4-mini-2026-03-17"),
    ("gpt-5", "gpt-5.6-sol"),
    ("gpt-4", "gpt-4.1", "gpt-4.1-nano"),
    ("gpt-4o", "gpt-4o-mini", "gpt-4o-mini-audio-preview"),
    ("gpt-4", "gpt-4-turbo", "gpt-4-turbo-2024-04-09"),
    ("o3", "o3-pro"),
    ("claude-opus-4", "claude-opus-4-8"),
    ("claude-haiku-4-5", "claude-haiku-4-5-pro"),
    ("gemini-2.5-flash", "gemini-2.5-flash-lite"),
)
PAIRS = sorted({(short, long) for family in FAMILIES for at, short in enumerate(family) for long in family[at + 1 :]})


def _listed(*models: str) -> dict[str, dict[str, object]]:
    return {
        model: {"litellm_provider": "openai", "input_cost_per_token": (place + 1) / 10**6, "output_cost_per_token": 0}
        for place, model in enumerate(models)
    }


@pytest.mark.parametrize(("short", "long"), PAIRS)
def test_a_name_that_begins_with_another_has_its_own_price(short: str, long: str) -> None:
    """Both listed: each is found under its own key."""
    made = table(_listed(short, long))
    for name in (short, long):
        match = made.find(name, ("openai",))
        assert match is not None
        assert (match.key, match.rule) == (name, "exact")


@pytest.mark.parametrize(("short", "long"), PAIRS)
def test_a_name_that_is_not_listed_is_not_priced_as_its_prefix(short: str, long: str) -> None:
    """Only the shorter listed: the longer is unpriced, unless all that it has besides is a date."""
    match = table(_listed(short)).find(long, ("openai",))
    if long in {f"{short}-2025-08-07", f"{short}-2026-03-17", f"{short}-2024-04-09"}:
        assert match is not None
        assert match.rule == "date-suffix"
    else:
        assert match is None


def test_the_pairs_are_traps() -> None:
    """Every pair is one name that begins with another: else the tests above would prove nothing."""
    assert all(long.startswith(short) for short, long in PAIRS)
    assert all(short != long for family in FAMILIES for short, long in pairwise(family))


@pytest.mark.parametrize(
    "model",
    [
        "gpt-round-20260102",
        "gpt-round-2026-01-02",
        "gpt-round-latest",
        "gpt-round@20260102",
        "gpt-round@latest",
        "gpt-round-2026-01-02-latest",
    ],
)
def test_date_like_endings_are_dropped(model: str) -> None:
    """Rule 10: a dated name that has no row of its own is priced as the model."""
    match = TABLE.find(model, ("openai",))
    assert match is not None
    assert (match.key, match.rule) == ("gpt-round", "date-suffix")


@pytest.mark.parametrize(
    "model",
    [
        "gpt-round-0613",
        "gpt-round-20269999",
        "gpt-round-2026-13-41",
        "gpt-round20260102",
        "gpt-round-mini-pro",
        "gpt-round-v2",
        "gpt-roun",
        "xgpt-round",
        "GPT-ROUND-ULTRA",
        "",
        "-latest",
        "@latest",
        "/",
        "gpt-round\tx",
        "gpt-round\nopenai",
        "é" * 300,
    ],
)
def test_what_is_no_date_is_not_dropped(model: str) -> None:
    """Only a real date, at a boundary, may be missing from a name."""
    assert TABLE.find(model, ("openai",)) is None


@pytest.mark.parametrize(
    ("model", "labels", "region", "key", "rule"),
    [
        ("gpt-round", ("azure",), None, "azure/gpt-round", "exact"),
        ("gpt-round", ("azure",), "eu", "azure/eu/gpt-round", "exact"),
        ("gpt-round-2026-01-02", ("azure",), None, "azure/gpt-round", "date-suffix"),
        ("gpt-round", ("azure", "openai"), None, "azure/gpt-round", "exact"),
        ("gpt-ear", ("azure", "openai"), None, "gpt-ear", "exact"),
        ("ft:gpt-round-2026-01-02:acme::abc123", ("openai",), None, "ft:gpt-round-2026-01-02", "ft-base"),
        (
            "us.anthropic.claude-round-5-20260101-v1:0",
            ("bedrock_converse", "bedrock"),
            "us-east-1",
            "us.anthropic.claude-round-5-20260101-v1:0",
            "exact",
        ),
        (
            "eu.anthropic.claude-round-5-20260101-v1:0",
            ("bedrock_converse", "bedrock"),
            "eu-west-1",
            "anthropic.claude-round-5-20260101-v1:0",
            "bedrock-geography",
        ),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-round-5-20260101-v1:0",
            ("bedrock_converse",),
            "us-east-1",
            "us.anthropic.claude-round-5-20260101-v1:0",
            "bedrock-arn",
        ),
        (
            "arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/anthropic.claude-round-5-20260101-v1:0",
            ("bedrock",),
            "us-gov-west-1",
            "bedrock/us-gov-west-1/anthropic.claude-round-5-20260101-v1:0",
            "bedrock-arn",
        ),
        ("claude-round-5@20260101", ("vertex_ai-anthropic_models",), None, "vertex_ai/claude-round-5", "date-suffix"),
        ("models/gemini-round", ("gemini",), None, "gemini/gemini-round", "resource-path"),
        (
            "projects/p/locations/eu/publishers/anthropic/models/claude-round-5",
            ("vertex_ai-anthropic_models",),
            None,
            "vertex_ai/claude-round-5",
            "resource-path",
        ),
        ("anthropic/claude-round-5", ("openai", "anthropic"), None, "claude-round-5", "vendor/model"),
        ("x-ai/grok-round-2026-01-02", ("xai",), None, "xai/grok-round", "vendor/model+date-suffix"),
    ],
)
def test_forms_of_providers(model: str, labels: tuple[str, ...], region: str | None, key: str, rule: str) -> None:
    """Each provider's own way of writing a model leads to its row, and the rule says which way it was."""
    match = TABLE.find(model, labels, region)
    assert match is not None
    assert (match.key, match.rule) == (key, rule)


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        ("ft:gpt-ear:acme::abc123", ("openai",)),  # a fine-tuned model does not cost what its base does
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3", ("bedrock_converse",)),
        ("us.anthropic.claude-round-5-mega-v1:0", ("bedrock_converse", "bedrock")),
        ("openai/gpt-round", ("anthropic",)),
        ("anthropic/gpt-round", ("openai",)),
        ("gpt-round", ("groq",)),
        ("gpt-round", ()),
        ("claude-round-5", ("openai",)),
    ],
)
def test_no_match_is_unpriced(model: str, labels: tuple[str, ...]) -> None:
    """A name that leads nowhere, or to another provider's row, has no price."""
    assert TABLE.find(model, labels) is None


def test_the_provider_is_part_of_the_key() -> None:
    """The same name costs 2 at one provider and 3 USD per million at another, and nothing is known of a third."""
    assert cost("gpt-round", "openai", input=10**6).amount == 4 * 10**18  # above the threshold
    assert cost("gpt-round", "azure", input=10**6).amount == 3 * 10**18
    assert cost("gpt-round", "llama.cpp", input=10**6).amount is None


def test_an_exact_name_elsewhere_goes_before_a_looser_rule_here() -> None:
    """With two price providers, the second one's exact name is better than the first one's undated one."""
    made = table(**{"azure/gpt-round-2026-01-02": None, "gpt-round-2026-01-02": {**FILE["gpt-round-mini"]}})
    match = made.find("gpt-round-2026-01-02", ("azure", "openai"))
    assert match is not None
    assert match.key == "gpt-round-2026-01-02"


def test_the_served_model_goes_before_the_requested_one() -> None:
    """A fallback is priced as what was served; only a served name without a price leaves it to the request."""
    served = cost("gpt-round-mini", input=1000, request_model="gpt-round")
    assert served.price_key == "gpt-round-mini"
    unknown = cost("deployment-7", input=1000, request_model="gpt-round")
    assert (unknown.price_key, unknown.rule) == ("gpt-round", "request-model+exact")
    assert unknown.quality == "estimated"
    assert "deployment-7" in (unknown.note or "")
    spelled = cost("OpenAI/GPT-Round", input=1000, request_model="gpt-round")
    assert (spelled.quality, spelled.note) == ("measured", None)
    absent = cost("", input=1000, request_model="gpt-round")
    assert absent.price_key == "gpt-round"


def test_made_up_names_do_not_fill_the_memory() -> None:
    """The caches of a table stay bounded however many names are asked for."""
    made = table()
    for number in range(9000):
        assert cost(f"gpt-{number}", input=1, prices=made).amount is None
    assert len(made._rows) <= 4096
    assert len(made._tariffs) <= 4096
