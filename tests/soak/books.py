"""Who keeps books of the same traffic, and what they must agree on; and prices that change all the time."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

import pytest

import tollspan
from examples.fake_provider.prices import PRICES, SERVED
from tests.soak.traffic import ALLOWED, EXACT, LOOSE, REFUSED
from tollspan.ledger.queries import Ledger
from tollspan.model.money import usd
from tollspan.prices.loader import PriceSource
from tollspan.telemetry import names
from tollspan.telemetry.counters import Totals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Metered

COUNTS: Final = ("input", "output", "cache_read", "cache_write", "reasoning")


@contextmanager
def prices() -> Iterator[str]:
    """Serve the fake provider's own prices, each time with a model more, so that every refresh makes a new table."""
    tags = itertools.count()
    listed = dict(_listed())

    class Prices(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tag = next(tags)
            text = json.dumps({**listed, f"made-{tag % 5}": listed["gpt-5.5-2026-04-23"]}).encode()
            self.send_response(200)
            self.send_header("ETag", f'"{tag}"')
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Prices) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/prices.txt"
        server.shutdown()
        thread.join()


def _listed() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the prices of the fake provider in LiteLLM's spelling."""
    for (provider, model, tier), price in PRICES.items():
        if tier != "default":
            continue
        fields = {
            "input_cost_per_token": price.input,
            "output_cost_per_token": price.output,
            "cache_read_input_token_cost": price.cache_read,
            "cache_creation_input_token_cost": price.cache_write_5m,
        }
        entry = {name: float(Decimal(text) / 1_000_000) for name, text in fields.items() if text != "0"}
        prefix = f"{provider}/" if provider in {"gemini", "mistral", "groq"} else ""
        label = {"cohere": "cohere_chat"}.get(provider, provider)
        mode = "embedding" if "embedding" in model else "chat"
        for name in {model, *(asked for asked, served in SERVED.items() if served == model)}:
            yield prefix + name, {"litellm_provider": label, "mode": mode, "max_output_tokens": 8192, **entry}


class refreshing:  # noqa: N801 - read as a verb: with refreshing(...)
    """Refresh the prices over and over, in a thread."""

    def __init__(self, metered: Metered) -> None:
        source = metered.recorder.table
        assert isinstance(source, PriceSource)
        self._source, self._stop, self._failed = source, threading.Event(), list[BaseException]()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.2):
                self._source.refresh()
        except Exception as error:  # noqa: BLE001 - told by the test, in its own thread
            self._failed.append(error)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert not self._failed


def check_attempts(metered: Metered, tally: dict[str, Any]) -> None:
    """Every attempt that the provider saw is one record, and one span; what was refused it never saw."""
    calls = [call for _, call in metered.recorder.accumulator.items()]
    denied = sum(totals.outcomes.get("denied", 0) for totals in calls)
    assert denied > 0
    assert sum(totals.denied for totals in calls) == denied
    assert sum(totals.calls for totals in calls) == tally["attempts"]
    assert len(metered.spans) - denied == tally["attempts"]
    allowed = sum(row["calls"] for row in tally["by"] if REFUSED in row["asked_as"])
    assert allowed == ALLOWED
    for model in LOOSE:
        seen = sum(
            row["calls"]
            for column in ("by", "unreported_by", "partial_by", "failed_by")
            for row in tally[column]
            if row["model"] == model
        )
        asked = {name for row in (*tally["by"], *tally["partial_by"], *tally["failed_by"]) if row["model"] == model
                 for name in row["asked_as"]}  # fmt: skip
        ours = [span for span in metered.spans if (span.attributes or {})[names.REQUEST_MODEL] in asked]
        assert len(ours) == seen > 0


def check_sums(metered: Metered, tally: dict[str, Any], ledger: Path) -> None:
    """By model: the provider's tokens and money, the counters', the spans' and the ledger's."""
    rows = {row["model"]: row for row in tally["by"]}
    totals = _by_model(metered)
    spans = {model: Counter[str]() for model in EXACT}
    for span in metered.spans:
        attributes = span.attributes or {}
        model = attributes.get(names.RESPONSE_MODEL) or attributes.get(names.REQUEST_MODEL)  # Cohere names none
        if model in spans:
            spans[str(model)].update({name: _int(attributes.get(key)) for name, key in ON_SPANS.items()})
    with Ledger(ledger) as kept:
        groups = {group.key[0]: group.figures for group in kept.groups(["model"])}
    for model in EXACT:
        row, sums, figures = rows[model], totals[model], groups[model]
        expected = {name: row[name] for name in COUNTS}
        assert {name: getattr(sums, name) for name in COUNTS} == expected, model
        assert {name: getattr(figures, name) for name in COUNTS} == expected, model
        assert {name: spans[model][name] for name in COUNTS} == expected, model
        assert usd(sums.spend) == usd(figures.spend) == Decimal(row["cost_usd"]) > 0, model


ON_SPANS: Final = {
    "input": names.INPUT_TOKENS,
    "output": names.OUTPUT_TOKENS,
    "cache_read": names.CACHE_READ_TOKENS,
    "cache_write": names.CACHE_WRITE_TOKENS,
    "reasoning": names.REASONING_TOKENS,
}


def _int(value: Any) -> int:
    return int(value or 0)


def _by_model(metered: Metered) -> dict[str, Totals]:
    found: dict[str, Totals] = {}
    for (_, _, model), totals in metered.recorder.accumulator.items():
        found[model] = found.get(model, Totals()) + totals
    return found


def check_money(metered: Metered, ledger: Path) -> None:
    """In all: the counter, its metric, the ledger, and what the budget was charged for sure; nothing stays reserved."""
    spend = metered.recorder.accumulator.spend
    with Ledger(ledger) as kept:
        assert kept.figures().spend == spend
    points = metered.points(names.SPEND)
    assert sum(point.value for point in points) == pytest.approx(float(usd(spend)), rel=1e-12)
    (status,) = [status for status in tollspan.budget.status() if status.budget == "all"]
    assert status.reserved == 0
    assert status.spent - status.uncertain == usd(spend)
