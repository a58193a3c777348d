"""The price table by the settings: a path, prices of one's own, and a table that is handed over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.capture.mock_wires import CHAT, CHAT_REQUEST, LIBRARIES, OPENAI, Wire, packed, post
from tollspan.prices import EMPTY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Metered


def cost(metered: Metered) -> float | None:
    """Make a plain call of 1,200 tokens in (1,024 cached) and 345 out, and give what its span says that it cost."""
    post(Wire(pieces=[packed(CHAT)]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    amount = metered.attributes.get("gen_ai.usage.cost.amount")
    assert amount is None or isinstance(amount, float)
    return amount


def test_price_file_is_used(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """`pricing_path` replaces the bundled table."""
    entry = {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 1e-05,
        "cache_read_input_token_cost": 1e-06,
        "output_cost_per_token": 2e-05,
    }
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"gpt-4o-mini": entry}))
    assert cost(instrumented(pricing_path=str(path))) == pytest.approx(176 * 1e-05 + 1024 * 1e-06 + 345 * 2e-05)


def test_bad_price_file_leaves_the_bundled_table(
    instrumented: Callable[..., Metered], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that cannot be read is told in one line, and the bundled prices stay in force."""
    path = tmp_path / "prices.json"
    path.write_text("{")
    assert cost(instrumented(pricing_path=str(path))) == pytest.approx(0.0003102)
    assert len([record for record in caplog.records if str(path) in record.getMessage()]) == 1


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('provider = "openai"\nmultiplier = 0.9', 0.9 * 0.0003102),
        ('model = "gpt-4o-mini"\nunit = "per_1m"\noutput = 6.0', (176 * 0.15 + 1024 * 0.075 + 345 * 6) / 1e6),
        ('model = "gpt-4o-mini"\nunit = "per_1m"\noutput = 6.0\nuntil = 2020-01-01', 0.0003102),
        ('model = "gpt-4o-mini"\noutput = 6.0', 0.0003102),  # no unit: told, and not applied
    ],
    ids=["discount", "own price", "expired", "unusable"],
)
def test_prices_of_ones_own_are_laid_over(
    instrumented: Callable[..., Metered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, expected: float
) -> None:
    """A `[[prices]]` table of the settings file is laid over the bundled prices, within its dates."""
    path = tmp_path / "own.toml"
    path.write_text(f"[[prices]]\n{table}\n")
    monkeypatch.setenv("TOLLSPAN_CONFIG", str(path))
    assert cost(instrumented()) == pytest.approx(expected)


def test_empty_table_means_unpriced(instrumented: Callable[..., Metered]) -> None:
    """A table that is handed over bypasses the loader; an empty one leaves every call unpriced, and calls go on."""
    assert cost(instrumented(prices=EMPTY)) is None


def test_self_hosted_models_can_be_priced(
    instrumented: Callable[..., Metered], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model on a host that is nobody's is unpriced, until a `[[prices]]` table names its provider."""
    path = tmp_path / "own.toml"
    path.write_text(
        '[[prices]]\nprovider = "openai_compatible"\nmodel = "my-llama"\nunit = "per_1m"\ninput = 1\noutput = 2'
    )
    monkeypatch.setenv("TOLLSPAN_CONFIG", str(path))
    metered = instrumented()
    answer = {**CHAT, "model": "my-llama"}
    url = "http://gpu-box.internal:8000/v1/chat/completions"
    post(Wire(pieces=[packed(answer)]), LIBRARIES[1], url, {**CHAT_REQUEST, "model": "my-llama"})
    assert metered.attributes["gen_ai.usage.cost.amount"] == pytest.approx((1200 * 1 + 345 * 2) / 1e6)
