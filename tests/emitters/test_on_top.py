"""SDKs that stand on others, each in each way of calling it: one record, and tollspan's bill is the provider's."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from typing import Any

import pytest

from tests.emitters.environments import HERE, run

CHATS = ("chat", "chat, streamed", "chat, async", "chat, async, streamed")
RESPONSES = ("responses", "responses, streamed", "responses, async", "responses, async, streamed")
CASES = [
    *(("litellm", f"{provider} {way}") for provider in ("openai", "anthropic") for way in CHATS),
    *(("litellm", f"openai {way}") for way in (*RESPONSES, "embeddings", "embeddings, async")),
    *(("pydantic_ai", f"openai {way}") for way in CHATS[:2]),  # its asynchronous ways are in `test_emitters.py`
]


@cache
def told(sdk: str) -> dict[str, Any]:
    """Return what `on_top.py` tells of an SDK; litellm is kept from fetching its price table anew."""
    found: dict[str, Any] = json.loads(run(sdk, HERE / "on_top.py", sdk, LITELLM_LOCAL_MODEL_COST_MAP="True"))
    return found


@pytest.mark.parametrize(("sdk", "case"), CASES)
def test_bill_is_the_providers(sdk: str, case: str) -> None:
    """One call is one record with the tokens and the cost of the provider's own books, and nothing of ours failed."""
    found = told(sdk)[case]
    (record,) = found["records"]
    assert found["attempts"] == 1
    assert found["errors"] == {}
    books = found["books"]
    assert Decimal(record.pop("spend")) == Decimal(books.pop("spend")) > 0
    assert (record.pop("quality"), record.pop("outcome")) == ("measured", "ok")
    assert record.pop("first_token") is ("streamed" in case)
    assert record == books
