"""The JSON Schema of `tollspan.toml` is current, and agrees with the code that reads the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from docs.generate.toml_schema import FILE, written
from tests.docs.validation import refused_by_code, refused_by_schema

if TYPE_CHECKING:
    from pathlib import Path

PRICED = 'model = "m"\nunit = "per_1m"\n'
GOOD = [
    "",
    "log_calls = true\nsummary = false\nevents = true\nchunk_metric = true\ncost_aliases = true",
    'stream_usage = "never"\nmetrics = "both"\ndurability = "call"\nbudget_estimate = "expected"',
    'hosts = ["llm.example.com=openai", "localhost:9000/claude=anthropic"]',
    'hosts = "llm.example.com=openai"',
    'metric_attributes = ["user", "tag.tier"]',
    'metric_attributes = "user, tag.tier"',
    'tags = { tier = ["1", "2"] }',
    'tags = "tier=1|2"',
    "ledger = true",
    'ledger = "/var/lib/calls.db"',
    "max_models = 5",
    'budget = "5 USD/day, 1 USD/session"',
    'session = "s"\nrun_id = "r"\nrefusals = "r.txt"\nsummary_json = "s.json"\npricing_path = "p.json"',
    *(
        f'[[budget]]\nlimit = "{limit}"'
        for limit in ("5 USD", "$5", "$ 0.50", "5$", "2_000 tokens", "1 token", "100 calls", "3 identical calls")
    ),
    *(
        f'[[budget]]\nlimit = "1 USD"\nperiod = "{period}"'
        for period in ("session", "run", "total", "hour", "day", "week", "month", "rolling 1m", "rolling 12h")
    ),
    '[[budget]]\nlimit = "1 USD"\nunpriced = { input = "10", output = 50 }',
    '[[budget]]\nlimit = "1 USD"\nunpriced = "allow"\nstore_failure = "open"\nunset = "skip"\non_exceed = "cut"',
    '[[budget]]\nlimit = "1 USD"\nmatch = { "tag.tier" = "1", host = ["a", "b"] }\nper = ["tag.tier", "user"]',
    '[[budget]]\nlimit = "1 USD"\nwarn_at = [0.5, 1]\nwebhook = "https://example.com/x"\nwebhook_secret = "s"',
    '[[budget]]\nlimit = "1 USD"\non_exceed = "downgrade"\ndowngrade = { a = "b" }\ndowngrade_at = 0.9',
    f'[[prices]]\n{PRICED}input = 0.4\noutput = \'1.2\'\n"input>200k" = 1\n"output/batches" = 0.2',
    '[[prices]]\nmodel = "m"\nunit = "per_request"\nprice = 0.01\nnote = "agreed"',
    '[[prices]]\nmodel = "m"\nunit = "per_second"\ninput = 0.01',
    '[[prices]]\nprovider = "p"\nmultiplier = 0.85\nfrom = 2026-07-01\nuntil = 2026-08-01T00:00:00Z',
    '[[prices]]\nprovider = "p"\nper_unit = { web_searches = 0.01 }',
    '[[providers]]\nname = "acme"\nhosts = ["a.example"]\ncache_header = { name = "x-cache", hit = "HIT" }',
    '[[providers]]\nname = "acme"\nby_body = true\nunseen = { "*" = 9 }\ntools_counted = { "g*" = 0.3 }',
    '[[providers]]\nname = "acme"\ntoken_headers = { input = "x-tokens" }\npaths = { "/x/" = "openai_chat" }',
]
BAD = [
    "log_cals = true",
    'log_calls = "perhaps"',
    'stream_usage = "sometimes"',
    'metrics = "oldest"',
    'hosts = ["llm.example.com"]',
    'metric_attributes = ["colour"]',
    "max_models = 0",
    'budget = ""',
    "tags = { tier = [] }",
    "[[budget]]\nname = 'no limit'",
    '[[budget]]\nlimit = "5"',
    '[[budget]]\nlimit = "much"',
    '[[budget]]\nlimit = "5 EUR"',
    '[[budget]]\nlimt = "5 USD"',
    '[[budget]]\nlimit = "5 USD"\nperiod = "fortnight"',
    '[[budget]]\nlimit = "5 USD"\non_exceed = "explode"',
    '[[budget]]\nlimit = "5 USD"\nper = ["colour"]',
    '[[budget]]\nlimit = "5 USD"\nmatch = { colour = "red" }',
    '[[budget]]\nlimit = "5 USD"\nwarn_at = [1.5]',
    '[[budget]]\nlimit = "5 USD"\nwebhook = "example.com"',
    '[[budget]]\nlimit = "5 USD"\nunpriced = { input = "10" }',
    '[[budget]]\nlimit = "5 USD"\ndowngrade = {}',
    "[[prices]]\nunit = 'per_1m'\ninput = 1",
    f"[[prices]]\n{PRICED}inputt = 1",
    "[[prices]]\nmodel = 'm'\nunit = 'per_year'\ninput = 1",
    "[[prices]]\nmodel = 'm'\ninput = 1",
    "[[prices]]\nmodel = 'm'\nmultiplier = -1",
    "[[prices]]\nmodel = 'm'\nper_unit = { smiles = 1 }",
    '[[providers]]\nname = "acme"\nhost = ["a.example"]',
    '[[providers]]\nname = "acme"\nhosts = "a.example"',
    '[[providers]]\nname = "acme"\ntoken_headers = { thoughts = "x" }',
]


def test_file_is_current() -> None:
    """The committed schema is what `python -m docs.generate.toml_schema` writes."""
    assert FILE.read_text("utf-8") == written()


@pytest.mark.parametrize("text", GOOD)
def test_both_accept(text: str, tmp_path: Path) -> None:
    """What can be written is accepted by the code and by the schema."""
    assert refused_by_code(text, tmp_path) == []
    assert refused_by_schema(text) == []


@pytest.mark.parametrize("text", BAD)
def test_both_refuse(text: str, tmp_path: Path) -> None:
    """A misspelt key and a bad value are refused by the code and by the schema."""
    assert refused_by_code(text, tmp_path)
    assert refused_by_schema(text)
