"""Exports of others are read as documented, and compared. The samples are made, after the documented formats."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.ledger.call_factory import START, UNPRICED, made
from tests.ledger.test_totals import write
from tollspan.ledger import provider_exports
from tollspan.ledger.conditions import DAY
from tollspan.ledger.queries import Ledger
from tollspan.model.errors import LedgerError
from tollspan.model.money import atto
from tollspan.model.records import Cost, Usage

if TYPE_CHECKING:
    from pathlib import Path

SECONDS: Final = START // DAY * 86_400
MODEL: Final = "gpt-4o-mini-2024-07-18"

OPENAI_COSTS: Final[dict[str, Any]] = {
    "object": "page",
    "data": [
        {
            "object": "bucket",
            "start_time": SECONDS,
            "end_time": SECONDS + 86_400,
            "results": [
                {
                    "object": "organization.costs.result",
                    "amount": {"value": 0.06, "currency": "usd"},
                    "line_item": f"{MODEL}, input",
                    "project_id": None,
                },
                {
                    "object": "organization.costs.result",
                    "amount": {"value": 0.04, "currency": "usd"},
                    "line_item": f"{MODEL}, output",
                    "project_id": None,
                },
            ],
        }
    ],
    "has_more": False,
    "next_page": None,
}
OPENAI_USAGE: Final[dict[str, Any]] = {
    "object": "page",
    "data": [
        {
            "object": "bucket",
            "start_time": SECONDS,
            "end_time": SECONDS + 86_400,
            "results": [
                {
                    "object": "organization.usage.completions.result",
                    "input_tokens": 2000,
                    "output_tokens": 600,
                    "input_cached_tokens": 1000,
                    "num_model_requests": 2,
                    "model": MODEL,
                    "batch": None,
                }
            ],
        }
    ],
    "has_more": False,
    "next_page": None,
}
ANTHROPIC_COSTS: Final[dict[str, Any]] = {
    "data": [
        {
            "starting_at": "2026-05-28T00:00:00Z",
            "ending_at": "2026-05-29T00:00:00Z",
            "results": [
                {
                    "currency": "USD",
                    "amount": "123.45",
                    "workspace_id": None,
                    "description": "Claude Sonnet 5 Usage - Input Tokens",
                    "cost_type": "tokens",
                    "context_window": "0-200k",
                    "model": "claude-sonnet-5",
                    "service_tier": "standard",
                    "token_type": "uncached_input_tokens",
                }
            ],
        }
    ],
    "has_more": False,
    "next_page": None,
}
ANTHROPIC_USAGE: Final[dict[str, Any]] = {
    "data": [
        {
            "starting_at": "2026-05-28T00:00:00Z",
            "ending_at": "2026-05-29T00:00:00Z",
            "results": [
                {
                    "uncached_input_tokens": 100,
                    "cache_creation": {"ephemeral_1h_input_tokens": 20, "ephemeral_5m_input_tokens": 10},
                    "cache_read_input_tokens": 1000,
                    "output_tokens": 50,
                    "server_tool_use": {"web_search_requests": 1},
                    "model": "claude-sonnet-5",
                    "service_tier": "standard",
                }
            ],
        }
    ],
    "has_more": False,
    "next_page": None,
}


def attribute(key: str, **value: object) -> dict[str, Any]:
    """Return an attribute as OTLP writes it in JSON."""
    return {"key": key, "value": value}


def span(number: int, operation: str = "chat") -> dict[str, Any]:
    """Return a span with usage and cost."""
    return {
        "traceId": f"{number:032x}",
        "spanId": f"{number:016x}",
        "name": f"{operation} gpt-4o-mini",
        "startTimeUnixNano": str(START),
        "attributes": [
            attribute("gen_ai.operation.name", stringValue=operation),
            attribute("gen_ai.provider.name", stringValue="openai"),
            attribute("gen_ai.response.model", stringValue=MODEL),
            attribute("gen_ai.usage.input_tokens", intValue="1000"),
            attribute("gen_ai.usage.output_tokens", intValue="300"),
            attribute("gen_ai.usage.cost.amount", doubleValue=0.05),
        ],
    }


def otlp(*spans: dict[str, Any]) -> dict[str, Any]:
    """Return an export request with these spans."""
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (OPENAI_COSTS, ("openai costs", "openai", MODEL, None, None, None, "0.1")),
        (OPENAI_USAGE, ("openai usage", "openai", MODEL, 2, 2000, 600, None)),
        (ANTHROPIC_COSTS, ("anthropic costs", "anthropic", "claude-sonnet-5", None, None, None, "1.2345")),
        (ANTHROPIC_USAGE, ("anthropic usage", "anthropic", "claude-sonnet-5", None, 1130, 50, None)),
        (otlp(span(1), span(2)), ("spans", "openai", MODEL, 2, 2000, 600, "0.1")),
    ],
    ids=["openai costs", "openai usage", "anthropic costs", "anthropic usage", "otlp"],
)
def test_exports_are_read(page: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """Each documented format gives its day, provider, model and figures; input counts the caches in."""
    found = provider_exports.read(json.dumps(page), "sample.json")
    total = found[0]
    for statement in found[1:]:
        total += statement
    amount = None if expected[6] is None else atto(expected[6])
    assert total.day == START // DAY
    assert (total.source, total.provider, total.model, total.calls, total.input, total.output, total.amount) == (
        *expected[:6],
        amount,
    )


def test_spans_are_counted_once() -> None:
    """A span that is there twice counts once; spans of agents and tools, which repeat others, do not count."""
    lines = [otlp(span(1), span(1), span(2, "invoke_agent")), otlp(span(3, "execute_tool"))]
    (found,) = provider_exports.read("\n".join(map(json.dumps, lines)), "spans.jsonl")
    assert (found.calls, found.input, found.amount) == (1, 1000, atto("0.05"))


@pytest.mark.parametrize("text", ["", "{}", "[]", "no JSON", '{"data": [{"starting_at": 5}]}', '{"data": 7}', "[1]"])
def test_what_is_no_export_is_told(text: str) -> None:
    """A file that is no known export is refused, with its name and what is known."""
    with pytest.raises(LedgerError, match=r"sample\.json.*expected pages of"):
        provider_exports.read(text, "sample.json")


def test_drift_is_what_the_ledger_is_off(tmp_path: Path) -> None:
    """The ledger is compared by day and model, and as a whole; the drift is the difference over what was said."""
    path = tmp_path / "ledger.db"
    usage = Usage(input=1000, output=300)
    write(
        path,
        [
            made(1, usage=usage, cost=Cost(amount=atto("0.05"), quality="measured")),
            made(2, usage=usage, cost=Cost(amount=atto("0.06"), quality="measured")),
            made(3, **UNPRICED),
            made(4, started_at=START + 3 * DAY),  # a day that the export does not have
            made(5, provider="cohere"),
        ],
    )
    with Ledger(path) as ledger:
        (line,), (total,) = provider_exports.compare(
            ledger, provider_exports.read(json.dumps(OPENAI_COSTS), "costs.json")
        )
        assert line.drift == total.drift == pytest.approx(0.1)
        assert (line.ledger.unpriced, total.ledger.unpriced) == (0, 1)
        (line,), _ = provider_exports.compare(ledger, provider_exports.read(json.dumps(OPENAI_USAGE), "usage.json"))
        assert line.drift == 0


def test_statements_are_kept_once_and_beside(tmp_path: Path) -> None:
    """An export that is read twice is kept once, and no total of the ledger changes."""
    path = tmp_path / "ledger.db"
    write(path, [made(1)])
    for _ in range(2):
        provider_exports.keep(path, provider_exports.read(json.dumps(OPENAI_COSTS), "costs.json"))
    with Ledger(path) as ledger:
        assert ledger.db.execute("SELECT count(*), sum(cost_nano) FROM statements").fetchone() == (2, 100_000_000)
        assert ledger.figures().calls == 1
