"""Answers out of a cache cost nothing, say so, and what they would have cost is kept as a figure of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.capture.mock_wires import CHAT, CHAT_COST, CHAT_REQUEST, LIBRARIES, OPENAI, Wire, packed, post
from tollspan.model.money import usd
from tollspan.wire.providers import provider_from

if TYPE_CHECKING:
    from types import ModuleType

    from tests.conftest import Metered

# What hishel 2, 1 and 0 put into a response's extensions (read in their sources).
HITS: dict[str, dict[str, Any]] = {
    "hishel 2": {"caching": {"from_cache": True, "revalidated": False, "stored": False}},
    "hishel 1": {"hishel_from_cache": True},
    "hishel 0": {"from_cache": True},
}
MISSES: dict[str, dict[str, Any]] = {
    "hishel 2": {"caching": {"from_cache": False, "revalidated": False, "stored": True}},
    "hishel 1": {"hishel_from_cache": False},
    "hishel 0": {"from_cache": False},
    "nothing": {},
    "another's": {"caching": None},
}


def send(lib: ModuleType, extensions: dict[str, Any]) -> None:
    """Send a request to a transport that answers with those extensions, as a cache inside the client does."""

    def answer(_: object) -> Any:
        return lib.Response(200, json=CHAT, extensions=extensions)

    with lib.Client(transport=lib.MockTransport(answer)) as client:
        client.post(OPENAI, json=CHAT_REQUEST)


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
@pytest.mark.parametrize("hit", HITS)
def test_a_clients_cache_costs_nothing(metered: Metered, lib: ModuleType, hit: str) -> None:
    """Though `send` returns, nothing went out: cost 0, named, with the cost that was avoided beside it."""
    send(lib, HITS[hit])
    attributes = metered.attributes
    assert attributes["tollspan.cached_by"] == "hishel"
    assert attributes["gen_ai.usage.cost.amount"] == 0
    assert attributes["tollspan.cost.avoided"] == pytest.approx(CHAT_COST)
    assert metered.recorder.accumulator.spend == 0
    (call,) = metered.calls
    assert call.avoided is not None
    assert float(usd(call.avoided)) == pytest.approx(CHAT_COST)


@pytest.mark.parametrize("miss", MISSES)
def test_a_miss_is_billed(metered: Metered, miss: str) -> None:
    """An answer that the cache only stored, or that no cache has seen, costs what it costs."""
    send(LIBRARIES[0], MISSES[miss])
    attributes = metered.attributes
    assert attributes["gen_ai.usage.cost.amount"] == pytest.approx(CHAT_COST)
    assert "tollspan.cached_by" not in attributes
    assert "tollspan.cost.avoided" not in attributes


@pytest.mark.parametrize("told", [("HIT", True), ("hit", True), ("MISS", False), (None, False)], ids=str)
def test_a_gateways_cache_costs_nothing(
    metered: Metered, monkeypatch: pytest.MonkeyPatch, told: tuple[str | None, bool]
) -> None:
    """A gateway tells a hit by a header that its provider file names."""
    value, cached = told
    gateway = provider_from(
        "made",
        {
            "title": "Made gateway",
            "hosts": ["gateway.example.test"],
            "prices": ["openai"],
            "cache_header": {"name": "X-Made-Cache", "hit": "HIT"},
        },
        "made.toml",
    )
    monkeypatch.setattr(metered.recorder.directory, "find", lambda *_: (gateway, gateway.routes[0]))
    headers = {"content-type": "application/json"} | ({} if value is None else {"x-made-cache": value})
    post(
        Wire(headers=headers, pieces=[packed(CHAT)]), LIBRARIES[0], "https://gateway.example.test/v1/chat", CHAT_REQUEST
    )
    attributes = metered.attributes
    assert attributes.get("tollspan.cached_by") == ("Made gateway" if cached else None)
    assert attributes["gen_ai.usage.cost.amount"] == (0 if cached else pytest.approx(CHAT_COST))
