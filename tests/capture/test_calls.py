"""A call becomes one span and its metrics, whatever the client, and the bill is right."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from tests.capture.mock_wires import (
    ANTHROPIC,
    CHAT,
    CHAT_COST,
    CHAT_REQUEST,
    LIBRARIES,
    MESSAGE,
    MESSAGE_COST,
    MESSAGE_REQUEST,
    OPENAI,
    Wire,
    chat_stream,
    message_stream,
    packed,
    post,
    sse,
    stream,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tests.conftest import Metered

every_client = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
every_library = pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)

CHAT_COUNTS = {
    "gen_ai.usage.input_tokens": 1200,
    "gen_ai.usage.output_tokens": 345,
    "gen_ai.usage.cache_read.input_tokens": 1024,
    "gen_ai.usage.reasoning.output_tokens": 64,
}
MESSAGE_COUNTS = {
    "gen_ai.usage.input_tokens": 1500,  # 176 + 300 written + 1024 read
    "gen_ai.usage.output_tokens": 345,
    "gen_ai.usage.cache_read.input_tokens": 1024,
    "gen_ai.usage.cache_write.input_tokens": 300,
    "anthropic.usage.cache_creation.ephemeral_5m_input_tokens": 100,
    "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 200,
}


def part(attributes: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes that `like` names."""
    return {name: attributes.get(name) for name in like}


@every_library
@every_client
def test_plain_chat_is_one_priced_span(metered: Metered, lib: ModuleType, is_async: bool) -> None:
    """A plain chat completion is one client span with who, what, how much and what it cost."""
    response = post(Wire(pieces=[packed(CHAT)]), lib, OPENAI, CHAT_REQUEST, is_async=is_async)
    assert response.json() == CHAT
    assert metered.span.kind is SpanKind.CLIENT
    assert metered.span.name == "chat gpt-4o-mini"
    attributes = metered.attributes
    assert part(attributes, CHAT_COUNTS) == CHAT_COUNTS
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.response.id": "chatcmpl-made-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "server.address": "api.openai.com",
        "server.port": 443,
        "gen_ai.usage.cost.currency": "USD",
        "gen_ai.usage.cost.source": "local",
        "tollspan.cost.quality": "measured",
    }
    assert part(attributes, expected) == expected
    assert attributes["gen_ai.usage.cost.amount"] == pytest.approx(CHAT_COST, rel=1e-12)
    assert "gen_ai.response.time_to_first_chunk" not in attributes
    assert "error.type" not in attributes


@every_library
@every_client
def test_plain_message_is_one_priced_span(metered: Metered, lib: ModuleType, is_async: bool) -> None:
    """Anthropic's input leaves the cache out on the wire; the span counts it in, and each lifetime has its price."""
    post(Wire(pieces=[packed(MESSAGE)]), lib, ANTHROPIC, MESSAGE_REQUEST, is_async=is_async)
    attributes = metered.attributes
    assert part(attributes, MESSAGE_COUNTS) == MESSAGE_COUNTS
    assert attributes["gen_ai.provider.name"] == "anthropic"
    assert attributes["gen_ai.request.max_tokens"] == 100
    assert attributes["gen_ai.usage.cost.amount"] == pytest.approx(MESSAGE_COST, rel=1e-12)


@every_library
@every_client
@pytest.mark.parametrize(
    ("url", "body", "pieces", "counts", "cost"),
    [
        (OPENAI, {**CHAT_REQUEST, "stream_options": {"include_usage": True}}, chat_stream(), CHAT_COUNTS, CHAT_COST),
        (ANTHROPIC, MESSAGE_REQUEST, message_stream(), MESSAGE_COUNTS, MESSAGE_COST),
    ],
    ids=["openai", "anthropic"],
)
def test_streams_are_priced_alike(
    metered: Metered,
    lib: ModuleType,
    is_async: bool,
    url: str,
    body: dict[str, Any],
    pieces: list[bytes],
    counts: dict[str, Any],
    cost: float,
) -> None:
    """A streamed call has the figures of a plain one, and the times of its first chunk and first token."""
    got = stream(sse(pieces), lib, url, {**body, "stream": True}, is_async=is_async)
    assert b"".join(got) == b"".join(pieces)
    attributes = metered.attributes
    assert part(attributes, counts) == counts
    assert attributes["gen_ai.usage.cost.amount"] == pytest.approx(cost, rel=1e-12)
    assert attributes["gen_ai.request.stream"] is True
    first_chunk, first_token = (
        attributes["gen_ai.response.time_to_first_chunk"],
        attributes["tollspan.time_to_first_token"],
    )
    end, start = metered.span.end_time, metered.span.start_time
    assert end is not None
    assert start is not None
    assert 0 < first_chunk < first_token <= (end - start) / 1e9


def test_metrics_follow_the_span(metered: Metered) -> None:
    """One call feeds the conventions' histograms and our counters with the span's own figures."""
    post(Wire(pieces=[packed(CHAT)]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in metered.points("gen_ai.client.token.usage")}
    assert tokens == {"input": 1200, "output": 345}
    (duration,) = metered.points("gen_ai.client.operation.duration")
    assert duration.count == 1
    assert duration.explicit_bounds[:3] == (0.01, 0.02, 0.04)
    assert metered.points("gen_ai.client.token.usage")[0].explicit_bounds[-1] == 67108864
    (cost,) = metered.points("gen_ai.client.operation.cost")
    assert cost.sum == pytest.approx(CHAT_COST)
    (spend,) = metered.points("tollspan.spend")
    assert spend.value == pytest.approx(CHAT_COST)
    assert spend.attributes["gen_ai.response.model"] == "gpt-4o-mini-2024-07-18"
    (calls,) = metered.points("tollspan.calls")
    assert (calls.value, calls.attributes["tollspan.outcome"]) == (1, "ok")
    # 1,024 tokens at 0.075 USD per million in place of 0.15
    assert metered.points("tollspan.cache.savings")[0].value == pytest.approx(1024 * 0.075 / 1e6)
    assert metered.points("gen_ai.client.operation.time_to_first_chunk") == []


def test_exemplars_lead_to_the_span(metered: Metered) -> None:
    """The cost histogram's exemplar carries the trace id of the call's span."""
    post(Wire(pieces=[packed(CHAT)]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    (cost,) = metered.points("gen_ai.client.operation.cost")
    (exemplar,) = cost.exemplars
    context = metered.span.context
    assert context is not None
    assert (exemplar.trace_id, exemplar.span_id) == (context.trace_id, context.span_id)


def test_newest_metric_names_are_opt_in(instrumented: Callable[..., Metered]) -> None:
    """`metrics = "both"` adds the newest generation's names, split by modality, and keeps the released ones."""
    metered = instrumented(metrics="both")
    post(Wire(pieces=[packed(CHAT)]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    (point,) = metered.points("gen_ai.client.inference.usage.input_tokens")
    assert (point.value, point.attributes["gen_ai.token.modality"]) == (1200, "text")
    assert metered.points("gen_ai.client.inference.duration")[0].count == 1
    assert metered.points("gen_ai.client.operation.duration")[0].count == 1


def test_chunk_metric_is_opt_in(instrumented: Callable[..., Metered]) -> None:
    """`chunk_metric` records the time between pieces of a stream, one fewer than there are pieces."""
    metered = instrumented(chunk_metric=True)
    pieces = chat_stream(words=4)
    stream(
        sse(pieces), LIBRARIES[1], OPENAI, {**CHAT_REQUEST, "stream": True, "stream_options": {"include_usage": True}}
    )
    (point,) = metered.points("gen_ai.client.operation.time_per_output_chunk")
    assert point.count == len(pieces) - 1


def test_cost_aliases_are_opt_in(instrumented: Callable[..., Metered]) -> None:
    """`cost_aliases` writes the same amount under the names that other tools read."""
    metered = instrumented(cost_aliases=True)
    post(Wire(pieces=[packed(CHAT)]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    amount = metered.attributes["gen_ai.usage.cost.amount"]
    for name in ("gen_ai.usage.cost", "operation.cost", "llm.cost.total"):
        assert metered.attributes[name] == amount


def test_unknown_model_is_unpriced_not_free(metered: Metered, caplog: pytest.LogCaptureFixture) -> None:
    """A model without a price has its usage, no amount, is counted, and is told once."""
    answer = packed({**CHAT, "model": "gpt-99-made-up"})
    for _ in range(3):
        post(Wire(pieces=[answer]), LIBRARIES[1], OPENAI, {**CHAT_REQUEST, "model": "gpt-99-made-up"})
    for span in metered.spans:
        attributes = span.attributes or {}
        assert attributes["tollspan.cost.quality"] == "unpriced"
        assert "gen_ai.usage.cost.amount" not in attributes
        assert attributes["gen_ai.usage.input_tokens"] == 1200
    (unpriced,) = metered.points("tollspan.unpriced.calls")
    assert unpriced.value == 3
    assert [record.levelno for record in caplog.records if "gpt-99-made-up" in record.getMessage()] == [logging.WARNING]


def test_failed_call_costs_nothing(metered: Metered) -> None:
    """A 429 is an error span with its status, without usage and without cost."""
    body = packed({"error": {"type": "rate_limit_exceeded", "message": "slow down"}})
    response = post(Wire(status=429, pieces=[body]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    assert response.status_code == 429
    attributes = metered.attributes
    assert attributes["error.type"] == "rate_limit_exceeded"
    assert attributes["http.response.status_code"] == 429
    assert not [name for name in attributes if "usage" in name]
    assert metered.span.status.status_code is StatusCode.ERROR
    assert metered.points("tollspan.spend")[0].value == 0


@pytest.mark.parametrize(
    ("error", "name"),
    [({"type": "requests", "code": "rate_limit_exceeded"}, "rate_limit_exceeded"), ("Slow down, please.", "429")],
)
def test_a_failure_is_named_by_its_code_or_status(metered: Metered, error: object, name: str) -> None:
    """`error.type` is what the provider calls an error; where it only has a sentence for it, the status."""
    post(Wire(status=429, pieces=[packed({"error": error})]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    assert metered.attributes["error.type"] == name


def test_made_up_models_cannot_flood_the_metrics(instrumented: Callable[..., Metered]) -> None:
    """Model names that no provider confirmed are counted one by one up to the cap, and as `other` past it."""
    metered = instrumented(max_models=3)
    for number in range(10):
        wire = Wire(status=404, pieces=[packed({"error": {"type": "model_not_found"}})])
        post(wire, LIBRARIES[1], OPENAI, {**CHAT_REQUEST, "model": f"no-such-{number}"})
    models = {point.attributes["gen_ai.response.model"]: point.value for point in metered.points("tollspan.calls")}
    assert models == {"no-such-0": 1, "no-such-1": 1, "no-such-2": 1, "other": 7}
    durations = metered.points("gen_ai.client.operation.duration")
    assert {point.attributes["gen_ai.request.model"] for point in durations} == set(models)


def test_servers_that_give_back_any_name_cannot_flood_the_metrics(instrumented: Callable[..., Metered]) -> None:
    """An answer confirms no name: those that no price list knows are capped, those that one knows are not."""
    metered = instrumented(max_models=3, chunk_metric=True)
    for name in [*(f"made-{number}" for number in range(10)), "gpt-4o", "gpt-4o-mini-2024-07-18"]:
        answer = Wire(pieces=[packed({**CHAT, "model": name})])
        post(answer, LIBRARIES[1], OPENAI, {**CHAT_REQUEST, "model": f"asked-{name}"})
        stream = sse([piece.replace(b"gpt-4o-mini-2024-07-18", name.encode()) for piece in chat_stream()])
        body = {**CHAT_REQUEST, "model": f"asked-{name}", "stream": True}
        with stream.client(LIBRARIES[1]) as client, client.stream("POST", OPENAI, json=body) as response:
            list(response.iter_raw())
    models = {point.attributes["gen_ai.response.model"]: point.value for point in metered.points("tollspan.calls")}
    known = {"made-0": 2, "made-1": 2, "made-2": 2, "gpt-4o": 2, "gpt-4o-mini-2024-07-18": 2}
    assert models == {**known, "other": 14}
    durations = metered.points("gen_ai.client.operation.duration")
    assert {point.attributes["gen_ai.response.model"] for point in durations} == set(models)
    asked = {f"asked-made-{number}" for number in range(3)} | {"other"}
    assert {point.attributes["gen_ai.request.model"] for point in durations} == asked
    chunks = metered.points("gen_ai.client.operation.time_per_output_chunk")
    assert 0 < len({point.attributes.get("gen_ai.response.model") for point in chunks}) <= 2 * 3 + 3


def test_words_of_servers_cannot_flood_the_metrics(instrumented: Callable[..., Metered]) -> None:
    """An error is called by the server's word: past the cap that is `other` on metrics; spans have it."""
    metered = instrumented(max_models=3)
    for number in range(10):
        wire = Wire(status=400, pieces=[packed({"error": {"code": f"made_{number}"}})])
        post(wire, LIBRARIES[1], OPENAI, CHAT_REQUEST)
    durations = metered.points("gen_ai.client.operation.duration")
    assert {point.attributes["error.type"] for point in durations} == {"made_0", "made_1", "made_2", "other"}
    assert {(span.attributes or {})["error.type"] for span in metered.spans} == {f"made_{n}" for n in range(10)}


def test_each_call_can_be_printed(instrumented: Callable[..., Metered], caplog: pytest.LogCaptureFixture) -> None:
    """`log_calls` writes a line with model, tokens, cost to four decimals and the total so far."""
    caplog.set_level(logging.INFO, "tollspan.calls")
    instrumented(log_calls=True)
    for _ in range(2):
        post(Wire(pieces=[packed(CHAT)]), LIBRARIES[1], OPENAI, CHAT_REQUEST)
    lines = [record.getMessage() for record in caplog.records if record.name == "tollspan.calls"]
    assert len(lines) == 2
    assert lines[0].startswith("openai gpt-4o-mini-2024-07-18: 1,200 in, 345 out (1,024 cached), $0.0003, ")
    assert lines[1].endswith("| total $0.0006")
