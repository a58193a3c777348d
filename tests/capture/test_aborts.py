"""Streams of every format, left after every possible event, and cut in every possible way.

What was left never costs more than the whole, and is exact where the wire told; a cut changes nothing. The streams are
made, after the shapes that providers send.
"""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.capture.mock_wires import LIBRARIES, Wire, chat_stream, event, message_stream, packed, stream
from tests.wire.cuts import CUTS, cut
from tests.wire.frames import chunk, frame

if TYPE_CHECKING:
    from types import ModuleType

    from tests.conftest import Metered
    from tollspan.model.records import Call

SSE, AWS = "text/event-stream", "application/vnd.amazon.eventstream"
WORDS = [f" word{number}" for number in range(24)]
SAID = [{"role": "user", "content": "Say something, and take your time."}]
TAKEN, GIVEN = 16, 60


@dataclass(frozen=True, kw_only=True)
class Made:
    """A stream: how it is asked for, its events, and after how many of them the wire has told input, and everything."""

    url: str
    request: dict[str, Any]
    events: list[bytes]
    told: int | None = None
    whole: int
    kind: str = SSE


def _openai_usage(given: int = GIVEN, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": TAKEN, "completion_tokens": given, "total_tokens": TAKEN + given, **more}


def _choice(text: str, reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": reason}
    return event({"id": "c1", "model": "m", "choices": [choice], **more})


def _gemini(text: str, number: int, reason: str | None = None) -> dict[str, Any]:
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    usage = {"promptTokenCount": TAKEN, "candidatesTokenCount": 3 * number, "totalTokenCount": TAKEN + 3 * number}
    told = candidate if reason is None else {**candidate, "finishReason": reason}
    return {"candidates": [told], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash"}


GEMINI = [_gemini(word, at, "STOP" if at == len(WORDS) else None) for at, word in enumerate(WORDS, 1)]
GEMINI_URL = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:streamGenerateContent"
ASK = {"contents": [{"role": "user", "parts": [{"text": "Say something."}]}]}
BEDROCK = "https://bedrock-runtime.us-east-1.amazonaws.com"
AGENT = "https://bedrock-agent-runtime.us-east-1.amazonaws.com/agents/A/agentAliases/B/sessions/s-1/text"


def _response(status: str, usage: dict[str, int] | None = None) -> bytes:
    response: dict[str, Any] = {"id": "r1", "model": "gpt-4o-mini", "status": status, "output": [], "usage": usage}
    return event({"type": f"response.{status}", "response": response}, f"response.{status}")


def _trace(holder: dict[str, Any]) -> bytes:
    return frame("trace", {"agentId": "A", "trace": {"orchestrationTrace": holder}})


def _asked(model: str) -> bytes:
    return _trace({"modelInvocationInput": {"foundationModel": model}})


def _answered() -> bytes:
    return _trace({"modelInvocationOutput": {"metadata": {"usage": {"inputTokens": TAKEN, "outputTokens": GIVEN}}}})


CHAT = {"model": "gpt-4o-mini", "messages": SAID, "stream": True, "max_tokens": 500}
STREAMS = {
    "openai chat": Made(
        url="https://api.openai.com/v1/chat/completions",
        request={**CHAT, "stream_options": {"include_usage": True}},
        events=chat_stream(24),
        whole=27,
    ),
    "openai responses": Made(
        url="https://api.openai.com/v1/responses",
        request={"model": "gpt-4o-mini", "input": SAID, "stream": True, "max_output_tokens": 500},
        events=[
            _response("created"),
            *(event({"type": "response.output_text.delta", "delta": word}) for word in WORDS),
            _response("completed", {"input_tokens": TAKEN, "output_tokens": GIVEN}),
        ],
        whole=26,
    ),
    "openai completions": Made(
        url="https://api.openai.com/v1/completions",
        request={"model": "gpt-3.5-turbo-instruct", "prompt": "Say something.", "stream": True, "max_tokens": 500},
        events=[
            *(event({"id": "c1", "choices": [{"index": 0, "text": w, "finish_reason": None}]}) for w in WORDS),
            event({"id": "c1", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}),
            event({"id": "c1", "choices": [], "usage": _openai_usage()}),
            event(b"[DONE]"),
        ],
        whole=26,
    ),
    "groq": Made(
        url="https://api.groq.com/openai/v1/chat/completions",
        request={**CHAT, "model": "llama-3.1-8b-instant"},
        events=[
            *map(_choice, WORDS),
            _choice("", "stop", x_groq={"id": "req_1", "usage": _openai_usage()}),
            event(b"[DONE]"),
        ],
        whole=25,
    ),
    "perplexity, which tells usage and cost in every chunk": Made(
        url="https://api.perplexity.ai/chat/completions",
        request={**CHAT, "model": "sonar"},
        events=[
            *(_choice(w, usage=_openai_usage(2 * at, cost={"total_cost": at / 1000})) for at, w in enumerate(WORDS, 1)),
            _choice("", "stop", usage=_openai_usage(cost={"total_cost": 1})),
            event(b"[DONE]"),
        ],
        told=1,
        whole=25,
    ),
    "anthropic": Made(
        url="https://api.anthropic.com/v1/messages",
        request={"model": "claude-haiku-4-5", "messages": SAID, "max_tokens": 500, "stream": True},
        events=message_stream(24),
        told=1,
        whole=29,
    ),
    "gemini": Made(url=GEMINI_URL + "?alt=sse", request=ASK, events=[*map(event, GEMINI)], told=1, whole=24),
    "gemini, as an array": Made(
        url=GEMINI_URL,
        request=ASK,
        events=[(b"[" if at == 0 else b",\n") + packed(item) for at, item in enumerate(GEMINI)] + [b"]"],
        told=1,
        whole=24,
        kind="application/json",
    ),
    "cohere": Made(
        url="https://api.cohere.com/v2/chat",
        request={"model": "command-a-03-2025", "messages": SAID, "stream": True, "max_tokens": 500},
        events=[
            event({"type": "message-start", "id": "c1"}),
            *(
                event({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": word}}}})
                for word in WORDS
            ),
            event(
                {
                    "type": "message-end",
                    "delta": {
                        "finish_reason": "COMPLETE",
                        "usage": {"billed_units": {"input_tokens": TAKEN, "output_tokens": GIVEN}},
                    },
                }
            ),
        ],
        whole=26,
    ),
    "ollama": Made(
        url="http://localhost:11434/api/chat",
        request={"model": "llama3.1", "messages": SAID},
        events=[
            *(packed({"model": "llama3.1", "message": {"content": word}, "done": False}) + b"\n" for word in WORDS),
            packed({"model": "llama3.1", "done": True, "prompt_eval_count": TAKEN, "eval_count": GIVEN}) + b"\n",
        ],
        whole=25,
        kind="application/x-ndjson",
    ),
    "bedrock converse": Made(
        url=f"{BEDROCK}/model/amazon.nova-lite-v1%3A0/converse-stream",
        request={"messages": [{"role": "user", "content": [{"text": "Say something."}]}]},
        events=[
            frame("messageStart", {"role": "assistant"}),
            *(frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}}) for word in WORDS),
            frame("messageStop", {"stopReason": "end_turn"}),
            frame("metadata", {"usage": {"inputTokens": TAKEN, "outputTokens": GIVEN, "totalTokens": TAKEN + GIVEN}}),
        ],
        whole=27,
        kind=AWS,
    ),
    "bedrock invoke": Made(
        url=f"{BEDROCK}/model/anthropic.claude-3-haiku-20240307-v1%3A0/invoke-with-response-stream",
        request={"messages": SAID, "max_tokens": 500},
        events=[
            chunk(
                {"type": "message_start", "message": {"id": "m1", "usage": {"input_tokens": TAKEN, "output_tokens": 1}}}
            ),
            *(
                chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
                for word in WORDS
            ),
            chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": GIVEN}}),
            chunk({"type": "message_stop"}),
        ],
        told=1,
        whole=26,
        kind=AWS,
    ),
    "bedrock agent, which tells the usage of each model that it calls": Made(
        url=AGENT,
        request={"inputText": "Say something.", "enableTrace": True},
        events=[
            *(_asked("anthropic.claude-3-haiku-20240307-v1:0"), _answered()) * 3,
            frame("chunk", {"bytes": b64encode(b"Something.").decode()}),
        ],
        whole=8,  # only its end says that there is no further call
        kind=AWS,
    ),
}


def leave(made: Made, kept: int, lib: ModuleType) -> None:
    """Read so many events of a stream, then close it; read it to its end where that is more than it has."""
    wire = Wire(headers={"content-type": made.kind}, pieces=made.events)
    with wire.client(lib) as client, client.stream("POST", made.url, content=json.dumps(made.request)) as response:
        pieces = response.iter_raw()
        for _ in range(min(kept, len(made.events))):
            next(pieces)
        if kept > len(made.events):
            assert list(pieces) == []


@pytest.mark.parametrize("lib", LIBRARIES, ids=lambda lib: lib.__name__)
@pytest.mark.parametrize("name", STREAMS)
def test_left_after_every_event(metered: Metered, calls: list[Call], name: str, lib: ModuleType) -> None:
    """The input is exact once the wire has told it, a floor is below the whole, and more text never costs less."""
    made = STREAMS[name]
    leave(made, len(made.events) + 1, lib)
    full = calls.pop()
    assert full.usage is not None
    assert (full.usage_quality, full.outcome) == ("measured", "ok")
    for kept in range(1, len(made.events) + 1):
        leave(made, kept, lib)
    assert len(calls) == len(made.events)
    outputs = []
    for kept, call in enumerate(calls, 1):
        usage, cost = call.usage, call.cost
        if kept >= made.whole:
            assert (usage, cost.amount, call.usage_quality) == (full.usage, full.cost.amount, "measured")
        elif made.told is not None and kept >= made.told:
            assert usage is not None
            assert (call.usage_quality, usage.input) == ("floor", full.usage.input)
            assert (usage.output or 0) <= (full.usage.output or 0)
            assert (cost.amount or 0) <= (full.cost.amount or 0)
            assert cost.high is None or (cost.amount or 0) <= cost.high
        elif usage is not None:
            _check_partial(call, full)
        outputs.append(0 if usage is None else usage.output or 0)
    assert outputs[: made.whole - 1] == sorted(outputs[: made.whole - 1])
    assert metered.errors() == {}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=CUTS, lib=st.sampled_from(LIBRARIES), is_async=st.booleans())
@pytest.mark.parametrize("name", STREAMS)
def test_cut_in_every_way(
    metered: Metered, calls: list[Call], name: str, cuts: list[int], lib: ModuleType, is_async: bool
) -> None:
    """However a stream is cut, the application has its very pieces, and the record says the same."""
    made = STREAMS[name]
    body = b"".join(made.events)
    records = []
    for pieces in ([body], cut(body, cuts)):
        wire = Wire(headers={"content-type": made.kind}, pieces=pieces)
        got = stream(wire, lib, made.url, made.request, is_async=is_async, how="raw")
        assert [piece for piece in got if piece] == [piece for piece in pieces if piece]
        call = calls.pop()
        records.append((call.usage, call.cost, call.response_id, call.response_model, call.finish_reasons, call.parts))
        assert (call.time_to_first_token is None) is (call.time_to_first_chunk is None)
    assert records[0] == records[1]
    assert metered.errors() == {}


def _check_partial(call: Call, full: Call) -> None:
    """Check a call of which the wire had not told all; its output may grow, its input may have been estimated."""
    assert call.usage is not None
    assert full.usage is not None
    assert call.usage_quality in {"estimated", "floor"}
    if call.usage_quality == "floor":
        assert (call.usage.input or 0) <= (full.usage.input or 0)
        assert (call.usage.output or 0) <= (full.usage.output or 0)
    low, amount, high = call.cost.low, call.cost.amount, call.cost.high
    if amount is not None:
        assert low is not None
        assert low <= amount
        assert low <= (full.cost.amount or 0)
        assert high is None or amount <= high
