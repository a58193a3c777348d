"""Price files are read to the last digit, and what is broken in them is refused."""

from __future__ import annotations

import json
import tomllib
import zipfile
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.prices.price_rows import FILE, TABLE, cost, dollars, table
from tollspan.model.errors import PriceTableError
from tollspan.prices import EMPTY, PriceTable, build, bundled, compare, corrections, fields, litellm_file, snapshot

if TYPE_CHECKING:
    from pathlib import Path


def test_every_row_is_found_by_its_key() -> None:
    """Bisection finds each key of the table, the first and the last included, and nothing in between."""
    keys = [row.key for row in TABLE]
    assert sorted(keys, key=str.encode) == keys
    assert set(keys) == set(FILE)
    for key in keys:
        row = TABLE.row(key)
        assert row is not None
        assert row.key == key
        assert TABLE.row(f"{key}!") is None
        assert TABLE.row(key[:-1]) is None or key[:-1] in FILE
    assert len(TABLE) == len(FILE)


@given(st.sets(st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r"), min_size=1, max_size=20)))
def test_any_names_can_be_looked_up(names: set[str]) -> None:
    """Whatever the names, each is found and has its own price."""
    file = {
        name: {"litellm_provider": "p", "input_cost_per_token": place / 10**6}
        for place, name in enumerate(names)
        if name != "sample_spec"
    }
    made = table(file)
    for name, entry in file.items():
        row = made.row(name)
        assert row is not None
        assert row.prices["input"] == round(entry["input_cost_per_token"] * 10**6) * 10**18  # type: ignore[operator]


def test_the_bundled_table_is_sound() -> None:
    """It is opened once, has the digest that it says, every row can be read, and one known oddity is left in it."""
    assert bundled() is bundled()
    data = snapshot.PATH.read_bytes()
    assert litellm_file.digest_of(data) == bundled().header["sha256"]
    assert len(list(bundled())) == bundled().header["rows"] == len(bundled())
    assert [finding.key for finding in compare.verify(bundled())] == ["watsonx/core42/jais-13b-chat"]


@pytest.mark.parametrize(
    ("model", "label", "usage", "expected"),
    [
        # Anthropic's list of November 2026: 4 in, 20 out, 5 written, 8 for an hour, 0.20 read
        ("claude-opus-5-5", "anthropic", {"input": 3000, "cache_read": 1000, "cache_write_1h": 1000}, "0.0122"),
        ("gpt-4o-mini", "openai", {"input": 2000, "cache_read": 1000, "output": 500}, "0.000525"),
        ("gemini-2.5-pro", "gemini", {"input": 200_001, "output": 1000}, "0.5150025"),
    ],
)
def test_prices_of_the_bundled_table(model: str, label: str, usage: dict[str, int], expected: str) -> None:
    """A few models whose price is well known, worked out by hand."""
    assert dollars(cost(model, label, prices=bundled(), **usage)) == Decimal(expected)


@pytest.mark.parametrize(
    ("model", "label", "terms", "expected"),
    [
        ("claude-haiku-4-5", "anthropic", {"units": {"web_searches": 3}}, "0.03"),
        ("claude-haiku-4-5", "anthropic", {"cache_write": 1000, "cache_write_1h": 1000, "tier": "batch"}, "0.001"),
        ("anthropic.claude-opus-5", "bedrock_converse", {"input": 1000}, "0.0055"),
        ("global.anthropic.claude-opus-5", "bedrock_converse", {"input": 1000}, "0.005"),
        ("sonar", "perplexity", {"input": 1000, "output": 0}, "0.006"),
        ("sonar", "perplexity", {"input": 1000, "output": 0, "search_context": "high"}, "0.013"),
        ("gpt-5", "openai", {"input": 0, "units": {"file_searches": 2, "code_sessions": 1}}, "0.035"),
        ("gpt-4.1", "openai", {"input": 0, "units": {"web_searches": 1}}, "0.01"),
        ("gpt-4.1", "openai", {"input": 0, "units": {"web_search_previews": 1}}, "0.025"),
        ("gpt-4o", "openai", {"input": 0, "units": {"web_searches": 1}}, "0.01"),
        ("gpt-4o", "openai", {"input": 0, "units": {"web_search_previews": 1}}, "0.025"),
        ("gpt-5.4", "openai", {"input": 0, "units": {"web_search_previews": 1}}, "0.01"),
        ("amazon.nova-2-lite-v1:0", "bedrock_converse", {"input": 1000}, "0.00033"),
        (
            "voxtral-small-latest",
            "mistral",
            {"input": 384, "input_audio": 375, "units": {"input_seconds": 60}},
            "0.0040009",
        ),
        ("whisper-large-v3", "groq", {"units": {"input_seconds": 4}}, "0.0003083"),
        ("whisper-large-v3", "groq", {"units": {"input_seconds": 20}}, "0.0006166"),
    ],
)
def test_corrections_are_in_the_bundled_table(model: str, label: str, terms: dict[str, Any], expected: str) -> None:
    """Known gaps of the source are closed: each figure is the one that the correction's source states."""
    assert dollars(cost(model, label, prices=bundled(), **terms)) == Decimal(expected)


@pytest.mark.parametrize(
    ("model", "label", "amount"),
    [
        ("GigaChat-2", "gigachat", None),
        ("doubao-embedding", "volcengine", None),
        ("zai/glm-4.5-flash", "zai", 0),
        ("ollama/codellama", "ollama", 0),
    ],
)
def test_zero_is_a_price_of_what_is_free(model: str, label: str, amount: int | None) -> None:
    """A price of 0 is believed of models that are free; a provider that bills them has a price that is not known."""
    assert cost(model, label, prices=bundled(), input=1000, output=10).amount == amount


def test_every_correction_says_why_and_where_from() -> None:
    """No correction without a reason and the address of its source, and none of an unknown kind."""
    found = corrections.load()
    entries = [entry for kind in found if kind != "version" for entry in found[kind]]
    assert entries
    assert all(entry["reason"] and entry["source"].startswith("https://") for entry in entries)
    with pytest.raises(PriceTableError, match=r"\[\[fill\]\] has \['keys'\]"):
        corrections.load('[[fill]]\nkeys = ["a"]\n')
    with pytest.raises(PriceTableError, match="not TOML"):
        corrections.load("[[")
    assert tomllib.loads(corrections.PATH.read_text(encoding="utf-8")) == found


def test_a_correction_that_has_nothing_to_do_says_so() -> None:
    """A price that the file has by now is kept, and the correction is reported for removal."""
    rows = {
        "claude-haiku-4-5": ("anthropic", {"input": "1e-6", "web_searches": "0.02"}),
        "azure_ai/jais-30b-chat": ("azure_ai", {"input": "32e-7", "output": "971e-8"}),
    }
    said = corrections.apply(rows, corrections.load())
    assert "fill: claude-haiku-4-5 has a web_searches price now" in said
    assert "replace: azure_ai/jais-30b-chat has the right prices now" in said
    assert rows["claude-haiku-4-5"][1]["web_searches"] == "0.02"
    assert any(line.startswith("copy: anthropic.claude-opus-5 or its twin") for line in said)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1e-06", "1e-6"),
        ("0.000003", "3e-6"),
        ("0.01", "0.01"),
        ("0", "0"),
        ("0.0", "0"),
        ("2.9999900000000002e-06", "299999e-11"),  # what binary arithmetic made of 2.99999e-06
        ("9.499999999999999e-07", "95e-8"),
        ("2.384185791015625e-08", "2384185791015625e-23"),  # 2**-22 / 10: no trace, a price
        ("3.2857142857142855e-08", "32857142857142855e-24"),
    ],
)
def test_numbers_keep_their_digits(written: str, read: str) -> None:
    """Prices are read by their decimal text; only the traces of binary arithmetic are cleared away."""
    assert litellm_file.number(written) == read
    assert abs(Decimal(read) - Decimal(written)) <= Decimal(written) * Decimal("1e-15")


@pytest.mark.parametrize(
    "bad", ["-1", "NaN", "Infinity", "1e999999999", "1e-999999999", "1e7", "", "free", "0x10", "[]"]
)
def test_what_is_no_price_is_refused(bad: str) -> None:
    """Negative, endless, absurd and textual prices never become one."""
    with pytest.raises(PriceTableError):
        assert fields.yocto(bad) < 0


@pytest.mark.parametrize(
    "entry",
    [
        '{"litellm_provider": "p", "input_cost_per_token": -1e-6}',
        '{"litellm_provider": "p", "input_cost_per_token": NaN}',
        '{"litellm_provider": "p", "input_cost_per_token": Infinity}',
        '{"litellm_provider": "p", "input_cost_per_token": "cheap"}',
        '{"litellm_provider": "p", "input_cost_per_token": [1e-6]}',
        '{"litellm_provider": "p", "input_cost_per_token": {"a": 1}}',
        '{"litellm_provider": "p", "input_cost_per_token": true}',
        '{"litellm_provider": "p", "off_peak_pricing": {"windows": [5]}}',
        '{"litellm_provider": "p", "off_peak_pricing": {"windows": [{"hours_utc": "dawn"}]}}',
        '{"litellm_provider": "p", "tiered_pricing": [{"range": ["a"], "input_cost_per_token": 1}]}',
        '{"litellm_provider": "p\\tq", "input_cost_per_token": 1e-6}',
    ],
)
def test_a_hostile_entry_is_left_out_and_the_rest_stays(entry: str) -> None:
    """One broken entry costs that model its price, not the table."""
    text = f'{{"good": {{"litellm_provider": "p", "input_cost_per_token": 1e-6}}, "bad": {entry}}}'
    rows, refused = litellm_file.rows_of(litellm_file.read_json(text.encode()))
    assert set(rows) == {"good"}
    assert len(refused) == 1
    assert refused[0].startswith("bad: ")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b"<html>"])
def test_what_is_no_price_file_is_refused(text: bytes) -> None:
    """Truncated, nested, binary and foreign files give one clear error."""
    with pytest.raises(PriceTableError, match="price file"):
        litellm_file.read_json(text)


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"tollspan-prices 9\n{}\n", b"tollspan-prices 1\nnot json\n", b"tollspan-prices 1\n[]\n"],
)
def test_what_is_no_snapshot_is_refused(text: bytes) -> None:
    """A snapshot says what it is in its first two lines."""
    with pytest.raises(PriceTableError):
        PriceTable.parse(text)


@pytest.mark.parametrize(
    "line",
    [
        "a\tp",
        "a\tp\tinput",
        "a\tp\tinput=x",
        "a\tp\t=b",
        "a\tp\t=a",
        "a\tp\tinput=1\tz",
        "a\tp\tx.us=many",
        "a\tp\toff_peak=dawn",
    ],
)
def test_a_torn_row_is_refused_when_it_is_read(line: str) -> None:
    """A row that cannot be read raises the table's error, not some other one."""
    broken = PriceTable.parse(b"tollspan-prices 1\n{}\n" + line.encode() + b"\n")
    with pytest.raises(PriceTableError):
        list(broken)


def test_snapshots_repeat_byte_by_byte(tmp_path: Path) -> None:
    """The same file gives the same snapshot from JSON and from a wheel: a rebuilt one shows what changed, no more."""
    text = json.dumps(FILE).encode()
    (tmp_path / "prices.json").write_bytes(text)
    with zipfile.ZipFile(tmp_path / "litellm-9.9.9-py3-none-any.whl", "w") as wheel:
        wheel.writestr("litellm/model_prices_and_context_window_backup.json", text)
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    assert build.main([
        "--from-json", str(tmp_path / "prices.json"), "--version", "litellm-9.9.9", "--output", str(one)
    ]) == 0  # fmt: skip
    assert build.main(["--from-wheel", str(tmp_path / "litellm-9.9.9-py3-none-any.whl"), "--output", str(other)]) == 0
    assert one.read_bytes() == other.read_bytes()
    assert PriceTable.parse(one.read_bytes()).version.startswith("litellm-9.9.9+corrections.1@")
    (tmp_path / "broken.json").write_bytes(b"[]")
    assert build.main(["--from-json", str(tmp_path / "broken.json"), "--output", str(one)]) == 1
    assert one.read_bytes() == other.read_bytes()


def test_shared_fields_are_written_once() -> None:
    """Two models at the same price share a row, and both are read back in full."""
    twin = {"litellm_provider": "openai", "input_cost_per_token": 2.5e-6, "output_cost_per_token": 1.5e-5}
    made = table({"model-one": twin, "model-two": twin})
    assert made._text.count(b"=model-one") == 1
    assert made.fields("model-two")[1] == {"input": "25e-7", "output": "15e-6"}
    with pytest.raises(KeyError):
        made.fields("model-three")


def test_the_longest_output_of_a_model() -> None:
    """Budgets reserve what a call can cost at most: the row says how many tokens it may read and write."""
    row = TABLE.row("gpt-unlisted")
    assert row is not None
    assert (row.max_input, row.max_output) == (128_000, 4096)
    plain = TABLE.row("gpt-round")
    assert plain is not None
    assert (plain.max_input, plain.max_output) == (None, None)


def test_the_empty_table_is_empty() -> None:
    """It has no rows, and says so."""
    assert (len(EMPTY), list(EMPTY), EMPTY.row("gpt-round"), EMPTY.version) == (0, [], None, "empty")
