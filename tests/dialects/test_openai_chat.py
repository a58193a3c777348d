"""OpenAI chat completions. The recordings are made, after shapes that OpenAI and its compatibles send."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from tests.dialects.recorded_reading import CUT, packed, read, spaced, sse, used
from tollspan.model.records import Usage

pytestmark = CUT

USAGE: dict[str, Any] = {
    "prompt_tokens": 20,
    "completion_tokens": 9,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 2, "cache_write_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0},
}


def answer(**more: Any) -> bytes:
    """Return a plain answer with these members besides the usual ones."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}
    return packed({"id": "chatcmpl-1", "model": "gpt-4o-2024-08-06", "choices": [choice], "usage": USAGE, **more})


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a chunk of a stream."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": reason}]
    return {"id": "chatcmpl-1", "model": "gpt-4o-2024-08-06", "choices": choices, "usage": None, **more}


STREAM = (
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": 'He said \\"usage\\":{ and'}),
    chunk({"content": " left."}),
    chunk({}, "stop"),
    chunk(None, usage=USAGE, service_tier="default"),
)


def test_plain_answer(size: int) -> None:
    """A plain response states id, model, finish reason and every count; the cache is inside the input."""
    facts = read("openai_chat", answer(service_tier="priority"), size)
    assert (facts.response_id, facts.response_model, facts.tier) == ("chatcmpl-1", "gpt-4o-2024-08-06", "priority")
    assert facts.finish_reasons == ["stop"]
    assert facts.complete
    expected = Usage(input=20, output=9, cache_read=4, cache_write=3, reasoning=5, input_audio=2, output_audio=0)
    assert facts.usage == expected


@pytest.mark.parametrize("style", [packed, spaced])
def test_stream(size: int, style: Any) -> None:
    """A stream's usage is read wherever it stands, however the server writes JSON; text that looks like it is not."""
    facts = read("openai_chat", sse(*STREAM, style=style), size)
    assert (used(facts).input, used(facts).output) == (20, 9)
    assert facts.finish_reasons == ["stop"]
    assert facts.tier == "default"
    assert facts.complete
    assert facts.output_seen


def mixed(seed: int) -> Any:
    """Return a way to write JSON that changes from event to event."""
    chance = random.Random(seed)  # noqa: S311 - no secret

    def style(value: Any) -> bytes:
        written = chance.choice((packed, spaced))(value)
        return written.replace(b'"usage":{', b'"usage" : {') if chance.random() < 0.3 else written

    return style


@pytest.mark.parametrize("seed", range(10))
def test_styles_may_change(size: int, seed: int) -> None:
    """What a gateway puts into a stream it may write in a style of its own: white space in JSON says nothing."""
    facts = read("openai_chat", sse(*STREAM, style=mixed(seed)), size)
    assert (used(facts).input, used(facts).output) == (20, 9)
    assert (facts.finish_reasons, facts.tier, facts.complete) == (["stop"], "default", True)


@pytest.mark.parametrize("first", [b"id: 1\n", b"retry: 500\n", b": hello\n\n", b"event: chunk\n"])
def test_events_that_are_labelled_as_a_document(size: int, first: bytes) -> None:
    """A body that begins like an event stream is one, under any label; text that begins similarly is not."""
    facts = read("openai_chat", first + sse(*STREAM), size, content_type="application/json")
    assert (used(facts).input, facts.complete) == (20, True)
    for text in (b"retried too often", b"identity unknown", b"e"):
        assert read("openai_chat", text, size, content_type="text/plain").usage is None


def test_usage_in_a_choice(size: int) -> None:
    """Moonshot says the usage in the last chunk's choice."""
    last = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": {"prompt_tokens": 19, "completion_tokens": 13}}
    facts = read("openai_chat", sse(chunk({"content": "Hi."}), {"id": "c", "choices": [last]}), size)
    assert used(facts) == Usage(input=19, output=13)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "upstream"}}]}, "502"),
        ({"choices": [{"finish_reason": "error"}]}, "error"),
        ({"x_groq": {"id": "r", "error": "over capacity"}}, "error"),
        ({"base_resp": {"status_code": 1004, "status_msg": "login"}}, "1004"),
        ({"base_resp": {"status_code": 0, "status_msg": "success"}}, None),
        ({"success": False, "errors": [{"code": 7003, "message": "no route"}]}, "7003"),
        ({"success": False}, "error"),
        ({"result": {"response": "a"}, "success": False, "errors": [{"code": 7009}]}, "7009"),
        ({"success": True}, None),
    ],
)
def test_errors_under_status_200(size: int, more: dict[str, Any], expected: str | None) -> None:
    """What OpenRouter, Groq, MiniMax and Cloudflare say of a failure beside the status, plain or in a stream."""
    assert read("openai_chat", answer(**more), size).error_type == expected
    assert read("openai_chat", sse({**chunk(), **more}), size).error_type == expected


def test_cost_of_a_gateway_wherever_it_stands(size: int) -> None:
    """Vercel's metadata has the cost, in the message, the choice or the answer, under either spelling."""
    metadata = {"gateway": {"cost": "0.25"}}
    message = {"role": "assistant", "content": "Hi.", "provider_metadata": metadata}
    bodies = (
        answer(choices=[{"message": message, "finish_reason": "stop"}]),
        answer(choices=[{"message": {"content": "Hi."}, "providerMetadata": metadata}]),
        answer(providerMetadata=metadata),
        sse(chunk({"content": "a"}), chunk({}, "stop", provider_metadata=metadata)),
    )
    assert [read("openai_chat", body, size).provider_cost for body in bodies] == [Decimal("0.25")] * len(bodies)


def test_lifetimes_of_anthropics_cache_at_a_proxy(size: int) -> None:
    """LiteLLM's proxy states the lifetime of what was written to Anthropic's cache."""
    lifetimes = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 10}
    details = {"cached_tokens": 1, "cache_creation_tokens": 10, "cache_creation_token_details": lifetimes}
    usage = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13, "prompt_tokens_details": details}
    assert used(read("openai_chat", answer(usage=usage), size)) == Usage(
        input=12, output=1, cache_read=1, cache_write=10, cache_write_5m=0, cache_write_1h=10
    )


def test_last_usage_wins(size: int) -> None:
    """Servers that send usage on every chunk send it cumulatively: the last one counts, none is added."""
    first, last = {"prompt_tokens": 7, "completion_tokens": None}, {"prompt_tokens": 7, "completion_tokens": 3}
    events = (chunk({"content": "a"}, usage=first), chunk({"content": "b"}, "stop", usage=last))
    assert used(read("openai_chat", sse(*events), size)) == Usage(input=7, output=3)


def test_first_id_stands(size: int) -> None:
    """A gateway that changes the id between chunks is known by the first; an empty id and model (Azure) are none."""
    events = (chunk({"role": "assistant"}, id="", model=""), chunk({"content": "a"}), chunk({}, "stop", id="other"))
    facts = read("openai_chat", sse(*events), size)
    assert (facts.response_id, facts.response_model) == ("chatcmpl-1", "gpt-4o-2024-08-06")


def test_groq_usage_counts_once(size: int) -> None:
    """Groq's own usage counts where there is no other, and only there."""
    own = {"usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    alone = read("openai_chat", sse(chunk({"content": "a"}, "stop", x_groq=own)), size)
    assert used(alone) == Usage(input=5, output=2)
    both = read("openai_chat", sse(chunk({"content": "a"}, "stop"), chunk(None, usage=USAGE, x_groq=own)), size)
    assert used(both).input == 20


def test_compound_system_in_parts(size: int) -> None:
    """A compound system's call is split by model, since each is billed at its own price."""
    models = [
        {"model": "llama-3.3-70b-versatile", "usage": {"prompt_tokens": 3, "completion_tokens": 1}},
        {"model": "openai/gpt-oss-120b", "usage": {"prompt_tokens": 4, "completion_tokens": 6}},
    ]
    facts = read("openai_chat", answer(usage_breakdown={"models": models}), size)
    assert [(part.model, part.usage.input, part.usage.output) for part in facts.parts] == [
        ("llama-3.3-70b-versatile", 3, 1),
        ("openai/gpt-oss-120b", 4, 6),
    ]


def test_timings_where_there_is_no_usage(size: int) -> None:
    """llama.cpp's timings exclude the cached prompt; with it they are the usage that was not requested."""
    timings = {"prompt_n": 4, "cache_n": 111, "predicted_n": 3}
    facts = read("openai_chat", sse(chunk({"content": "a"}), chunk({}, "stop", timings=timings)), size)
    assert used(facts) == Usage(input=115, output=3, cache_read=111)


def test_reasoning_beside_the_completion(size: int) -> None:
    """Where the total says that the reasoning stands beside the completion (xAI), it is added to the output."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 115,
        "completion_tokens_details": {"reasoning_tokens": 100},
    }
    assert used(read("openai_chat", answer(usage=usage), size)).output == 105


def test_audio_beside_the_prompt(size: int) -> None:
    """Where the total says that the audio stands beside the prompt (Mistral), it is added to the input."""
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "total_tokens": 386,
        "prompt_audio_seconds": 3,
        "prompt_tokens_details": {"audio_tokens": 375, "cached_tokens": 0},
    }
    found = used(read("openai_chat", answer(usage=usage), size))
    assert (found.input, found.input_audio, found.units) == (384, 375, {"input_seconds": 3})


def test_deep_research(size: int) -> None:
    """Perplexity's deep research bills reasoning beside the completion, citations and searches apart."""
    usage = {
        "prompt_tokens": 33,
        "completion_tokens": 7163,
        "total_tokens": 7196,
        "reasoning_tokens": 73997,
        "citation_tokens": 20016,
        "num_search_queries": 18,
        "search_context_size": "low",
        "cost": {"total_cost": 0.409393},
    }
    facts = read("openai_chat", answer(usage=usage), size)
    assert used(facts).output == 81160
    assert used(facts).units == {"web_searches": 18, "citation_tokens": 20016}
    assert facts.search_context == "low"
    assert facts.provider_cost == Decimal("0.409393")


@pytest.mark.parametrize(
    ("stated", "cost"),
    [
        ({"cost": 0.00014}, Decimal("0.00014")),
        ({"cost": 0}, Decimal(0)),
        ({"cost_in_usd_ticks": 37756000}, Decimal("0.0037756")),
        ({"estimated_cost": 2.5e-06}, Decimal("0.0000025")),
        ({"pydantic_ai_gateway": {"cost_estimate": 0.00019}}, Decimal("0.00019")),
        ({"cost": "free"}, None),
    ],
)
def test_stated_costs(size: int, stated: dict[str, Any], cost: Decimal | None) -> None:
    """A cost that the provider states is taken exactly as it is written, 0 too; what is no amount is none."""
    assert read("openai_chat", answer(usage={**USAGE, **stated}), size).provider_cost == cost


def test_own_key(size: int) -> None:
    """With one's own key the router's cost is its fee, and what the vendor charges stands beside it."""
    usage = {**USAGE, "cost": 0.0001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.002}}
    facts = read("openai_chat", answer(usage=usage), size)
    assert (facts.provider_cost, facts.upstream_cost) == (Decimal("0.0001"), Decimal("0.002"))


def test_gateway_cost_in_the_delta(size: int) -> None:
    """Vercel's gateway states the cost as text beside the output."""
    metadata = {"provider_metadata": {"gateway": {"cost": "0.000045", "routing": {"finalProvider": "x"}}}}
    facts = read("openai_chat", sse(chunk({"content": "a"}), chunk(metadata, "stop")), size)
    assert facts.provider_cost == Decimal("0.000045")


@pytest.mark.parametrize(
    ("delta", "output"),
    [
        ({"role": "assistant", "content": "", "refusal": None}, False),
        ({"role": "assistant", "content": None, "graph_data": {"sources": None}, "tool_calls": []}, False),
        ({"audio": {"id": "audio_1", "expires_at": 17}}, False),
        ({"content": " "}, True),
        ({"reasoning_content": "Hm"}, True),
        (
            {
                "tool_calls": [
                    {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
                ]
            },
            True,
        ),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}, True),
        ({"audio": {"id": "audio_1", "transcript": "Sure"}}, True),
        ({"hologram": {"id": "h1", "voxels": "0a"}}, True),
    ],
)
def test_first_output(size: int, delta: dict[str, Any], output: bool) -> None:
    """Output starts with the first event that carries any, of any kind; roles, ids and empty pieces are none."""
    assert read("openai_chat", sse(chunk(delta), done=False), size).output_seen is output


def test_reasons_of_several_choices(size: int) -> None:
    """Each choice has one finish reason, in the choices' order, however often and in any order they are stated."""
    ends = [{"index": index, "delta": {}, "finish_reason": reason} for index, reason in ((1, "length"), (0, "stop"))]
    events = [chunk({"content": "a"}), *(chunk(choices=[end]) for end in (*ends, ends[0]))]
    assert read("openai_chat", sse(*events), size).finish_reasons == ["stop", "length"]


def test_done_without_a_reason(size: int) -> None:
    """A stream that ends in [DONE] is complete, even if no choice said why it ended."""
    assert read("openai_chat", sse(chunk({"content": "a"}), chunk({"content": "b"})), size).complete


def test_broken_off(size: int) -> None:
    """A stream that breaks off is not complete, and has no usage."""
    facts = read("openai_chat", sse(*STREAM[:3], done=False), size)
    assert not facts.complete
    assert facts.usage is None
    assert facts.output_events >= 2


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (sse(chunk({"content": "a"}), {"error": {"code": 502, "message": "no"}}), "502"),
        (
            sse(chunk({"content": "a"}), done=False) + b'event: error\ndata: {"type":"overloaded","message":"no"}\n\n',
            "overloaded",
        ),
        (packed({"error": {"type": "server_error", "code": None}}), "server_error"),
        (packed({"error": "model not found"}), "error"),
    ],
)
def test_errors_with_status_200(size: int, body: bytes, kind: str) -> None:
    """An error inside a stream or an answer of status 200 is an error, named by its type or code."""
    assert read("openai_chat", body, size).error_type == kind


def test_no_error_in_nulls(size: int) -> None:
    """An error that is null or empty is none."""
    assert read("openai_chat", answer(error=None), size).error_type is None


def test_wrapped_in_result(size: int) -> None:
    """Cloudflare wraps the answer in `result`."""
    body = packed({"result": {"id": "c1", "model": "@cf/x", "choices": [], "usage": USAGE}, "success": True})
    facts = read("openai_chat", body, size)
    assert (facts.response_id, used(facts).input) == ("c1", 20)


def test_whitespace_before_the_answer(size: int) -> None:
    """The blank lines by which OpenRouter keeps a connection alive are no part of the answer."""
    assert used(read("openai_chat", b"\n         \n\n" + answer(), size)).input == 20


def test_request(size: int) -> None:
    """The request states model, limits, effort, tier and output format; a deployment in the path stands in."""
    body = {
        "model": "gpt-4o",
        "stream": True,
        "max_completion_tokens": 50,
        "n": 2,
        "service_tier": "flex",
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema"},
        "web_search_options": {"search_context_size": "high"},
    }
    facts = read("openai_chat", answer(), size, request=body)
    assert (facts.request_model, facts.stream, facts.max_output, facts.choice_count) == ("gpt-4o", True, 50, 2)
    assert (facts.request_tier, facts.reasoning_level, facts.output_type) == ("flex", "low", "json")
    assert facts.search_context == "high"
    path = "/openai/deployments/my%20chat/chat/completions"
    assert read("openai_chat", answer(), size, path=path).request_model == "my chat"
    assert read("openai_chat", answer(), size, path=path, request={"model": "gpt-4o"}).request_model == "gpt-4o"


def test_thoughts_beyond_the_completion(size: int) -> None:
    """Google's completion leaves the thoughts out: what the total has beyond is output, and billed."""
    usage = {"prompt_tokens": 66, "completion_tokens": 6, "total_tokens": 100}
    expected = Usage(input=66, output=34, reasoning=28)
    assert used(read("gemini_openai", answer(usage=usage), size)) == expected
    assert used(read("gemini_openai", sse(chunk({"content": "a"}, "stop"), chunk(None, usage=usage)), size)) == expected
    assert used(read("openai_chat", answer(usage=usage), size)).output == 6


def test_watsonx_names_its_model_and_its_stream_elsewhere(size: int) -> None:
    """At IBM the body says `model_id`, and the path that the answer streams."""
    request, answer = {"model_id": "ibm/granite-4", "messages": []}, packed({"choices": []})
    facts = read("openai_chat", answer, size, request=request, path="/ml/v1/text/chat_stream?version=2025-01-01")
    assert (facts.request_model, facts.stream) == ("ibm/granite-4", True)
    assert not read("openai_chat", answer, size, request=request, path="/ml/v1/text/chat?version=2025-01-01").stream
