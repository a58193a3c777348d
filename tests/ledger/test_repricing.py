"""Calls that are priced again by the table that priced them come to what they came to."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import tollspan
from tests.capture.mock_wires import CHAT, CHAT_REQUEST, LIBRARIES, Wire, packed, post
from tollspan.api.pricing import labels_now
from tollspan.ledger.queries import Ledger
from tollspan.ledger.repricing import reprice
from tollspan.setup.instrument import current

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Metered

PERPLEXITY = "https://api.perplexity.ai/chat/completions"
ROUTER = "https://router.huggingface.co/v1/chat/completions"
SEARCH = {"web_search_options": {"search_context_size": "high"}}


@pytest.mark.parametrize(
    ("url", "request_changes", "model", "headers", "line"),
    [
        (PERPLEXITY, SEARCH, "sonar", {}, "requests"),
        (ROUTER, {}, "deepseek-ai/DeepSeek-R1-0528", {"x-inference-provider": "together"}, "output"),
    ],
    ids=["search context", "whose prices count"],
)
def test_repricing_by_the_same_table_changes_nothing(
    instrumented: Callable[..., Metered],
    tmp_path: Path,
    url: str,
    request_changes: dict[str, Any],
    model: str,
    headers: dict[str, str],
    line: str,
) -> None:
    """How much a search reads, and whom a gateway passed a call on to, are kept: without them the price is another."""
    path = tmp_path / "ledger.db"
    metered = instrumented(ledger=str(path))
    wire = Wire(headers={"content-type": "application/json", **headers}, pieces=[packed({**CHAT, "model": model})])
    post(wire, LIBRARIES[0], url, {**CHAT_REQUEST, "model": model, **request_changes})
    assert tollspan.flush()
    recorder = current()
    assert recorder is not None
    table = recorder.table()
    with Ledger(path) as ledger:
        (again,) = reprice(ledger.each(), table, partial(labels_now, directory=recorder.directory))
    recorded = again.kept.call.cost
    assert recorded.amount
    assert line in recorded.breakdown
    assert (again.cost.amount, again.cost.breakdown) == (recorded.amount, recorded.breakdown)
    assert metered.errors() == {}


def test_a_tool_costs_what_it_said(instrumented: Callable[..., Metered], tmp_path: Path) -> None:
    """What a function of one's own costs is in no table, and stays."""
    path = tmp_path / "ledger.db"
    metered = instrumented(ledger=str(path))

    @tollspan.tool(price="0.01 USD")
    def look_up() -> None:
        """Do nothing, for money."""

    look_up()
    assert tollspan.flush()
    with Ledger(path) as ledger:
        (again,) = reprice(ledger.each(), metered.recorder.table(), lambda _: ())
    assert again.cost.amount == again.kept.call.cost.amount == 10**16
