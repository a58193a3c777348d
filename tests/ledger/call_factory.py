"""Made calls for the ledger's tests: no recording, every figure chosen here."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from tollspan.model.records import Call, Cost, Part, Usage
from tollspan.model.refusal import Refusal

START: Final = 1_780_000_000_000_000_000
"""Unix nanoseconds: 2026-05-28 20:26:40 UTC."""

SECOND: Final = 10**9


def made(number: int = 0, **changes: Any) -> Call:
    """Return a call that was answered and priced; `number` gives it its id, time and cost."""
    plain: dict[str, Any] = {
        "id": f"{number:032x}",
        "operation_id": f"{number:032x}",
        "provider": "openai",
        "operation": "chat",
        "started_at": START + number * SECOND,
        "duration": 1.25,
        "request_model": "gpt-4o-mini",
        "response_model": "gpt-4o-mini-2024-07-18",
        "response_id": f"chatcmpl-{number}",
        "finish_reasons": ("stop",),
        "server_address": "api.openai.com",
        "server_port": 443,
        "http_status": 200,
        "usage": Usage(input=1200 + number, output=345, cache_read=1024, reasoning=64),
        "cost": Cost(
            amount=310_200_000_000_001 + number,
            source="local",
            quality="measured",
            breakdown={"input": 103_200_000_000_001 + number, "output": 207_000_000_000_000},
            computed=310_200_000_000_001 + number,
            savings=76_800_000_000_000,
            price_key="gpt-4o-mini",
            rule="exact",
            table_version="made.1",
        ),
    }
    return Call(**{**plain, **changes})


FAILED: Final[dict[str, Any]] = {
    "outcome": "error",
    "billable": False,
    "http_status": 429,
    "error_type": "429",
    "usage": None,
    "cost": Cost(amount=0, quality="measured", rule="not billed"),
}
DENIED: Final[dict[str, Any]] = {
    "outcome": "denied",
    "billable": False,
    "duration": 0.0002,
    "response_model": None,
    "response_id": None,
    "finish_reasons": (),
    "http_status": None,
    "error_type": "budget_exceeded",
    "usage": None,
    "cost": Cost(amount=0, quality="measured", rule="not billed"),
    "refusal": Refusal(
        budget="5 USD/day",
        reason="insufficient",
        counter="5 USD%2Fday/2026-05-28",
        unit="usd",
        requested=3_850 * 10**15,
        left=2 * 10**18,
        limit=5 * 10**18,
        held=10**18,
        holders=2,
        remedy="Set a limit on output tokens in the request, such as max_tokens.",
    ),
}
UNPRICED: Final[dict[str, Any]] = {
    "request_model": "made-model",
    "response_model": None,
    "cost": Cost(table_version="made.1"),
}

EVERYTHING: Final = made(
    7,
    outcome="aborted",
    resend_count=2,
    operation_id="first",
    stream=True,
    error_type="aborted",
    time_to_first_chunk=0.25,
    time_to_first_token=0.5,
    usage=Usage(
        **{name: place for place, name in enumerate(Usage.__slots__, 1) if name != "units"},
        units={"web_searches": 3, "input_seconds": 1.5, "pages": Decimal("2.50")},
    ),
    usage_quality="floor",
    output_most=4321,
    cost=Cost(
        amount=12_345_678_901_234_567_890,
        source="provider",
        quality="floor",
        breakdown={"input": 1, 'odd "kind"': -2},
        computed=10**20,
        savings=-3,
        low=1,
        high=2 * 10**20,
        price_key="key",
        rule="prefix",
        table_version="made.2",
        missing=("web_searches", "pages"),
        note="a note",
    ),
    avoided=77,
    tier="flex",
    geography="eu",
    speed="fast",
    region="eu-west-1",
    search_context="high",
    price_labels=("perplexity", "made"),
    parts=(Part(kind="compaction", model="m", usage=Usage(input=5, units={"pages": Decimal("0.1")})),),
    cached_by="a gateway",
    pending=True,
    settles="another",
    trace_id="0" * 31 + "1",
    span_id="0" * 15 + "1",
    attribution={"session": "s", "user": "u", "run": "r", "step": "p", "agent": "a", "tag.tier": "1", 'tag.o"d': "ä'"},
    refusal=Refusal(
        budget="5 USD/day",
        reason="insufficient",
        counter="5 USD%2Fday/2026-05-28",
        unit="usd",
        requested=3_850_000_000_000_000_001,
        left=2 * 10**18,
        limit=5 * 10**18,
        held=10**18,
        holders=3,
        waited=30.25,
        remedy='Set a limit; "ä"',
    ),
)
"""A call in which every field has a value of its own."""
