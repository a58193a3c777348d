"""`tollspan prices`: what a price is, how a bill comes about, and how the table is seen to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from tollspan.api import pricing
from tollspan.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder, with a separate cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    """Run `tollspan prices` and give its status and what it printed."""
    result = CliRunner().invoke(main, ["prices", *arguments])
    return result.exit_code, result.output


def read(*arguments: str) -> Any:
    """Run `tollspan prices` with --json and give what it printed."""
    return json.loads(run(*arguments, "--json")[1])


def test_lookup_says_key_rule_and_table() -> None:
    """A dated name is found under its base, and the rule says so."""
    status, text = run("lookup", "claude-haiku-4-5@20251001", "--provider", "anthropic")
    assert status == 0
    assert "1 USD per million tokens" in text
    assert "table litellm-" in text
    (found,) = read("lookup", "gpt-4o-mini-2024-07-18", "--provider", "openai")["prices"]
    assert found["usd"]["input"] == "1.5E-7"


def test_lookup_without_a_provider_shows_all() -> None:
    """One name has several prices: without a provider each is shown."""
    providers = {found["provider"] for found in read("lookup", "gpt-4o-mini")["prices"]}
    assert {"openai", "azure"} <= providers


def test_lookup_shows_one_price_once() -> None:
    """Providers that ask the same are shown together, the model's own name first; of many prices only some."""
    status, text = run("lookup", "gpt-4o")
    assert status == 0
    heads = [line for line in text.splitlines() if line.startswith("gpt-4o at")]
    assert text.startswith("gpt-4o at openai: gpt-4o (rule: exact)\n")
    assert "--all shows them, --provider NAME one of them" in text
    everything = run("lookup", "gpt-4o", "--all")[1]
    assert "--all" not in everything
    more = [line for line in everything.splitlines() if line.startswith("gpt-4o at")]
    assert len(more) == len(read("lookup", "gpt-4o")["prices"]) > len(heads)
    gmi, replicate = (text.index(f"gpt-4o at {label}:") for label in ("gmi", "replicate"))
    assert "USD" not in text[min(gmi, replicate) : max(gmi, replicate)]  # one price, told once for both


@pytest.mark.parametrize("command", [("lookup", "gpt-4o"), ("explain", "gpt-4o", "--input", "1")], ids=" ".join)
def test_a_slip_in_a_providers_name_is_told(command: tuple[str, ...]) -> None:
    """An unknown provider is a usage error, not a missing price."""
    status, text = run(*command, "--provider", "opnai")
    assert status == 2
    assert "unknown provider 'opnai'; did you mean openai" in text


@pytest.mark.parametrize("provider", ["bedrock", "aws.bedrock", "bedrock_converse", "acme", "ours"])
def test_every_name_of_a_provider_will_do(elsewhere: Path, provider: str) -> None:
    """A key, a name of the conventions, a LiteLLM label, or one of one's own."""
    (elsewhere / "tollspan.toml").write_text(
        '[[providers]]\nname = "acme"\nhosts = ["llm.acme.example"]\n'
        '[[prices]]\nmodel = "m"\nprovider = "ours"\nunit = "per_1m"\ninput = 1\noutput = 2\n'
    )
    assert run("lookup", "nobody-has-this", "--provider", provider)[0] == 1


def test_lookup_without_a_provider_knows_prices_of_ones_own(elsewhere: Path) -> None:
    """A model that only `[[prices]]` know is found, at whom they name; a discount shows where it applies."""
    (elsewhere / "tollspan.toml").write_text(
        '[[prices]]\nmodel = "house-1"\nprovider = "ours"\nunit = "per_1m"\ninput = 1\noutput = 2\n'
        '[[prices]]\nmodel = "house-2"\nunit = "per_1m"\ninput = 3\noutput = 4\n'
        '[[prices]]\nprovider = "openai"\nmultiplier = 0.5\n'
    )
    assert "house-1 at ours: house-1 (rule: own)" in run("lookup", "house-1")[1]
    assert "3 USD per million tokens" in run("lookup", "house-2")[1]
    found = {each["key"]: each for each in read("lookup", "gpt-4o-mini")["prices"]}
    assert (found["gpt-4o-mini"]["rule"], found["gpt-4o-mini"]["usd"]["input"]) == ("exact+own", "7.5E-8")
    assert found["azure/gpt-4o-mini"]["rule"] == "exact"


def test_lookup_of_an_unknown_model_says_what_to_do() -> None:
    """No price is status 1, and a line that says how to give one."""
    status, text = run("lookup", "gpt-4o-mini-plus", "--provider", "openai")
    assert status == 1
    assert "[[prices]]" in text


def test_explain_is_an_invoice() -> None:
    """The lines add up: 176 x 1 + 1,024 x 0.1 + 100 x 1.25 + 200 x 2 + 345 x 5 millionths, and a search."""
    counts = "--input 1500 --cache-read 1024 --cache-write 300 --cache-write-1h 200 --output 345 --unit web_searches=1"
    bill = read("explain", "claude-haiku-4-5", "--provider", "anthropic", *counts.split())
    assert float(bill["amount_usd"]) == pytest.approx(0.0025284 + 0.01)
    assert sum(float(line["amount_usd"]) for line in bill["lines"]) == pytest.approx(float(bill["amount_usd"]))
    status, text = run("explain", "claude-haiku-4-5", "--provider", "anthropic", *counts.split())
    assert status == 0
    assert "0.0125284" in text


def test_explain_takes_the_tier_and_the_moment() -> None:
    """A service tier has its own price: 1,000 tokens in at 2.50 and 100 out at 15 dollars a million in flex."""
    counts = ("--provider", "openai", "--input", "1000", "--output", "100", "--tier", "flex", "--at", "2026-11-01")
    assert float(read("explain", "gpt-5.5", *counts)["amount_usd"]) == pytest.approx(0.004)


@pytest.mark.parametrize("unit", ["dreams=1", "web_searches", "web_searches=many"])
def test_bad_unit_is_told(unit: str) -> None:
    """A unit that is none is a mistake in the command, and the accepted ones are named."""
    status, text = run("explain", "gpt-5.5", "--provider", "openai", "--unit", unit)
    assert status == 2
    assert "--unit" in text


def price_file(folder: Path, name: str, cost: float) -> str:
    """Write a price file with one model and give its path."""
    path = folder / name
    entry = {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": cost, "output_cost_per_token": cost}
    path.write_text(json.dumps({"model-a": entry}))
    return str(path)


def test_diff_tells_what_changed(elsewhere: Path) -> None:
    """Two tables are compared price by price, with the factor."""
    before, after = price_file(elsewhere, "a.json", 1e-6), price_file(elsewhere, "b.json", 3e-6)
    status, text = run("diff", before, after)
    assert status == 0
    assert "model-a input: 1 USD per million tokens -> 3 USD per million tokens (x3)" in text
    assert [change[:2] for change in read("diff", before, after)["changed"]] == [
        ["model-a", "input"],
        ["model-a", "output"],
    ]


def test_diff_of_a_missing_file_is_told() -> None:
    """A missing file is named."""
    status, text = run("diff", "nowhere.json")
    assert status == 1
    assert "nowhere.json" in text


def test_verify_lists_what_is_odd() -> None:
    """The bundled table is checked, and its oddities are listed."""
    found = read("verify")
    assert found["table"].startswith("litellm-")
    assert all(len(finding) == 2 for finding in found["findings"])


def test_refresh_without_a_url_says_what_to_set() -> None:
    """There is no URL by default: nothing is fetched, and the message says how to set one."""
    status, text = run("refresh")
    assert status == 1
    assert "TOLLSPAN_PRICING_URL" in text


def test_refresh_refuses_plain_http() -> None:
    """A URL that is not https, and not on this machine, is refused."""
    status, text = run("refresh", "--pricing-url", "http://example.com/prices.json")
    assert status == 1
    assert "https" in text


OWN = """
[[providers]]
name = "acme"
hosts = ["llm.acme.example"]
prices = ["openai"]

[[prices]]
model = "acme-70b"
provider = "acme"
unit = "per_1m"
input = 0.40
output = 1.20

[[prices]]
provider = "anthropic"
multiplier = 0.5
"""


def test_own_providers_and_prices_are_shown(elsewhere: Path) -> None:
    """The command shows what the meter will charge: prices of one's own, discounts, and providers of one's own."""
    (elsewhere / "tollspan.toml").write_text(OWN)
    pricing._providers.cache_clear()
    (own,) = read("lookup", "acme-70b", "--provider", "acme")["prices"]
    assert own["usd"]["input"] == "4E-7"
    (discounted,) = read("lookup", "claude-haiku-4-5", "--provider", "anthropic")["prices"]
    assert discounted["usd"]["input"] == "5E-7"
    assert read("lookup", "gpt-4o-mini", "--provider", "acme")["prices"]
    listed = CliRunner().invoke(main, ["providers"]).output
    assert "llm.acme.example" in listed
    assert "tollspan.toml" in listed
    pricing._providers.cache_clear()
