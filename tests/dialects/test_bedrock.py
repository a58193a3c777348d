"""Amazon Bedrock: Converse, InvokeModel and agents; every recording here is made."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.dialects.recorded_reading import AWS, Made, is_inference, packed, play, text_of
from tests.wire.frames import chunk, frame
from tollspan.model.errors import WireError
from tollspan.model.records import Usage
from tollspan.wire.dialects import ROUTES

HOST = "https://bedrock-runtime.us-west-2.amazonaws.com"
AGENTS = "https://bedrock-agent-runtime.us-east-1.amazonaws.com"
CLAUDE = f"{HOST}/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0"
SIZES = [1, 7, 10**9]

CONVERSE_USAGE = {
    "inputTokens": 10,
    "outputTokens": 20,
    "totalTokens": 1030,
    "cacheReadInputTokens": 600,
    "cacheReadInputTokenCount": 600,
    "cacheWriteInputTokens": 400,
    "cacheWriteInputTokenCount": 400,
    "cacheDetails": [{"ttl": "5m", "inputTokens": 300}, {"ttl": "1h", "inputTokens": 100}],
}
CONVERSE = Usage(input=1010, output=20, cache_read=600, cache_write=400, cache_write_5m=300, cache_write_1h=100)


@pytest.mark.parametrize("size", SIZES)
def test_converse_counts_the_cache_in(size: int) -> None:
    """On this wire the input leaves cache reads and writes out; ours has them in, and keeps lifetimes apart."""
    answer = packed(
        {
            "output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
            "stopReason": "end_turn",
            "usage": CONVERSE_USAGE,
            "serviceTier": {"type": "flex"},
            "performanceConfig": {"latency": "optimized"},
        }
    )
    facts = play(Made(url=f"{CLAUDE}/converse", request={"inferenceConfig": {"maxTokens": 64}}, answer=answer), size)
    assert facts.usage == CONVERSE
    assert facts.request_model == "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    assert (facts.finish_reasons, facts.tier, facts.speed) == (["end_turn"], "flex", "optimized")
    assert facts.max_output == 64
    assert not facts.stream


STREAM = (
    frame("messageStart", {"role": "assistant"})
    + frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "well"}}})
    + frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "metadata "}})
    + frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}})
    + frame("contentBlockStop", {"contentBlockIndex": 0})
    + frame("messageStop", {"stopReason": "end_turn"})
    + frame("metadata", {"usage": CONVERSE_USAGE, "metrics": {"latencyMs": 9}, "p": "abc"})
)


@pytest.mark.parametrize("size", SIZES)
def test_a_converse_stream_says_usage_after_its_end(size: int) -> None:
    """Usage comes in the event after `messageStop`; the frames may be cut anywhere."""
    facts = play(Made(url=f"{CLAUDE}/converse-stream", answer=STREAM, content_type=AWS), size)
    assert facts.usage == CONVERSE
    assert facts.finish_reasons == ["end_turn"]
    assert facts.stream
    assert facts.complete
    assert facts.output_seen


@pytest.mark.parametrize(
    ("kind", "event", "seen"),
    [
        ("messageStart", {"role": "assistant"}, False),
        ("contentBlockStart", {"start": {"toolUse": {"name": "f"}}}, True),
        ("contentBlockDelta", {"delta": {"text": ""}}, False),
        ("contentBlockDelta", {"delta": {"reasoningContent": {"signature": "s"}}}, False),
        ("contentBlockDelta", {"delta": {"reasoningContent": {"text": "t"}}}, True),
        ("contentBlockDelta", {"delta": {"toolUse": {"input": "{"}}}, True),
    ],
)
def test_what_is_output_in_converse(kind: str, event: dict[str, Any], seen: bool) -> None:
    """Text, reasoning and tool calls are output; roles, empty texts and signatures are not."""
    facts = play(Made(url=f"{CLAUDE}/converse-stream", answer=frame(kind, event), content_type=AWS))
    assert facts.output_seen is seen


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("call", ["converse-stream", "invoke-with-response-stream"])
def test_an_exception_ends_a_stream(call: str, size: int) -> None:
    """An error inside a 200 stream is a frame of its own kind, whose name is the error's."""
    answer = frame("messageStart", {"role": "assistant"}) + frame("throttlingException", {"message": "slow down"})
    facts = play(Made(url=f"{CLAUDE}/{call}", answer=answer, content_type=AWS), size)
    assert facts.error_type == "throttlingException"
    assert not facts.complete


def test_a_frame_with_a_bad_checksum_is_no_frame() -> None:
    """Bytes that do not fit their checksum are refused, and what came before them stays known."""
    broken = bytearray(STREAM)
    broken[-1] ^= 1
    with pytest.raises(WireError, match="checksum"):
        play(Made(url=f"{CLAUDE}/converse-stream", answer=bytes(broken), content_type=AWS))


ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0"


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (f"/model/{quote(ARN, safe='')}/converse", ARN),
        (f"/model/{ARN}/invoke", ARN),
        ("/model/amazon.titan-text-lite-v1/invoke-with-response-stream", "amazon.titan-text-lite-v1"),
        ("/model/us.deepseek.r1-v1%3A0/converse-stream?x=1", "us.deepseek.r1-v1:0"),
    ],
)
def test_the_path_names_the_model(path: str, model: str) -> None:
    """The model is an id, a profile or an ARN, escaped or not."""
    facts = play(Made(url=HOST + path, answer=b""))
    assert facts.request_model == model
    assert facts.stream == ("stream" in path)


@pytest.mark.parametrize(
    "url",
    [
        f"{CLAUDE}/count-tokens",
        f"{HOST}/guardrail/g-1/version/1/apply",
        f"{HOST}/async-invoke",
        "https://bedrock.us-east-1.amazonaws.com/foundation-models",
        f"{AGENTS}/knowledgebases/KB/retrieve",
    ],
)
def test_control_calls_are_no_inference(url: str) -> None:
    """Counting tokens, applying a guardrail and retrieving documents use no model's tokens."""
    assert not is_inference(url)


COUNTS = {"x-amzn-bedrock-input-token-count": "11", "x-amzn-bedrock-output-token-count": "7"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"usage": {"input_tokens": 1, "cache_read_input_tokens": 2, "output_tokens": 3}}, (3, 3)),  # Anthropic
        ({"usage": {"inputTokens": 4, "outputTokens": 5, "cacheReadInputTokenCount": 1}}, (5, 5)),  # Nova
        ({"usage": {"prompt_tokens": 6, "completion_tokens": 7, "total_tokens": 13}}, (6, 7)),  # Jamba, gpt-oss
        ({"inputTextTokenCount": 8, "results": [{"tokenCount": 9}, {"tokenCount": 1}]}, (8, 10)),  # Titan
        ({"prompt_token_count": 2, "generation_token_count": 4, "generation": "x"}, (2, 4)),  # Llama
        ({"completion": "x", "stop_reason": "stop_sequence"}, (11, 7)),  # old Claude: only the headers count
        ({"generations": [{"text": "x"}]}, (11, 7)),  # Cohere: the same
    ],
)
def test_usage_is_where_the_maker_puts_it(body: dict[str, Any], expected: tuple[int, int]) -> None:
    """Each maker's body is recognized by its shape, under any model name in the path; else the headers count."""
    url = f"{HOST}/model/{quote('arn:aws:bedrock:us-east-1:1:application-inference-profile/abc', safe='')}/invoke"
    usage = play(Made(url=url, answer=packed(body), headers=COUNTS)).usage
    assert usage is not None
    assert (usage.input, usage.output) == expected


def test_header_counts_leave_the_cache_out() -> None:
    """Header counts are Bedrock's own: the cache is beside the input and is added to it."""
    headers = {
        **COUNTS,
        "x-amzn-bedrock-cache-read-input-token-count": "100",
        "x-amzn-bedrock-cache-write-input-token-count": "50",
        "x-amzn-bedrock-service-tier": "priority",
    }
    facts = play(Made(url=f"{HOST}/model/x.y/invoke", answer=b"{}", headers=headers))
    assert facts.usage == Usage(input=161, output=7, cache_read=100, cache_write=50)
    assert facts.tier == "priority"


def test_embeddings_are_told_by_the_model() -> None:
    """Titan counts the input in the body, Cohere in the header; neither has an output."""
    titan = play(
        Made(url=f"{HOST}/model/amazon.titan-embed-text-v2:0/invoke", answer=packed({"inputTextTokenCount": 4}))
    )
    headers = {"x-amzn-bedrock-input-token-count": "5"}
    cohere = play(
        Made(url=f"{HOST}/model/cohere.embed-v4:0/invoke", answer=packed({"embeddings": {}}), headers=headers)
    )
    assert (titan.usage, titan.operation) == (Usage(input=4), "embeddings")
    assert (cohere.usage, cohere.operation) == (Usage(input=5), "embeddings")


def test_images_are_counted_each() -> None:
    """An image model answers with its images in base64, and is billed by them."""
    answer = packed({"images": ["AA==", "AA=="], "error": None})
    facts = play(Made(url=f"{HOST}/model/amazon.nova-canvas-v1:0/invoke", answer=answer))
    assert facts.usage == Usage(units={"output_images": 2})
    assert facts.error_type is None


METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 8, "outputTokenCount": 94, "invocationLatency": 9}}

CLAUDE_STREAM = (
    chunk(
        {
            "type": "message_start",
            "message": {
                "id": "msg_bdrk_1",
                "model": "claude-sonnet-4-5-20250929",
                "usage": {
                    "input_tokens": 3,
                    "cache_creation_input_tokens": 10,
                    "cache_read_input_tokens": 20,
                    "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
                    "output_tokens": 1,
                },
            },
        }
    )
    + chunk({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    + chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}})
    + chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 38}})
    + chunk(
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 3, "outputTokenCount": 35}}
    )
)


@pytest.mark.parametrize("size", SIZES)
def test_claude_streams_its_own_events_in_the_envelope(size: int) -> None:
    """Claude's own counts come first, over the service's metrics, and the cache is counted in."""
    facts = play(Made(url=f"{CLAUDE}/invoke-with-response-stream", answer=CLAUDE_STREAM, content_type=AWS), size)
    assert facts.usage == Usage(input=33, output=38, cache_read=20, cache_write=10, cache_write_5m=4, cache_write_1h=6)
    assert (facts.response_id, facts.response_model) == ("msg_bdrk_1", "claude-sonnet-4-5-20250929")
    assert facts.finish_reasons == ["end_turn"]
    assert facts.complete
    assert facts.output_seen


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("first", "last", "expected", "reason"),
    [
        (
            {"outputs": [{"text": " Pa"}]},
            {"outputs": [{"text": "", "stop_reason": "stop"}], **METRICS},
            (8, 94),
            "stop",
        ),
        ({"text": " I", "is_finished": False}, {"finish_reason": "MAX_TOKENS", **METRICS}, (8, 94), "MAX_TOKENS"),
        (
            {"outputText": "a", "inputTextTokenCount": 6.0},
            {"outputText": "b", "totalOutputTextTokenCount": 3, "completionReason": "FINISH"},
            (6, 3),
            "FINISH",
        ),
        (
            {"generation": "a", "prompt_token_count": 5, "generation_token_count": 1, "stop_reason": None},
            {
                "generation": "",
                "prompt_token_count": None,
                "generation_token_count": 2,
                "stop_reason": "length",
                **METRICS,
            },
            (5, 2),
            "length",
        ),
        (
            {"contentBlockDelta": {"delta": {"text": "a"}}},
            {"metadata": {"usage": {"inputTokens": 5, "outputTokens": 9}}, "messageStop": {"stopReason": "end_turn"}},
            (5, 9),
            "end_turn",
        ),
        (
            {"choices": [{"delta": {"content": "a"}}], "usage": {"prompt_tokens": 4, "completion_tokens": 1}},
            {"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 4, "completion_tokens": 2}},
            (4, 2),
            "stop",
        ),
        ({"choices": [{"text": "a"}]}, {"choices": [{"stop_reason": "stop"}], **METRICS}, (8, 94), "stop"),
    ],
    ids=["mistral", "cohere", "titan", "llama", "nova", "openai", "deepseek"],
)
def test_each_maker_streams_in_its_own_way(
    first: dict[str, Any], last: dict[str, Any], expected: tuple[int, int], reason: str, size: int
) -> None:
    """The maker's own counts, gathered over the events, else the service's metrics on the last one."""
    url = f"{HOST}/model/a.b/invoke-with-response-stream"
    facts = play(Made(url=url, answer=chunk(first) + chunk(last), content_type=AWS), size)
    assert facts.usage is not None
    assert (facts.usage.input, facts.usage.output) == expected
    assert facts.output_seen
    assert facts.finish_reasons == [reason]


def test_a_prompt_that_a_guardrail_blocked_costs_nothing() -> None:
    """The model was not called: counts of the canned response are not billed."""
    trace = {"guardrail": {"input": {"g-1": {"topicPolicy": {}}}, "actionReason": "Guardrail blocked."}}
    event = {"outputText": "Input blocked", "totalOutputTextTokenCount": 3.0, "inputTextTokenCount": 6.0}
    event |= {"amazon-bedrock-guardrailAction": "INTERVENED", "amazon-bedrock-trace": trace}
    url = f"{HOST}/model/amazon.titan-text-express-v1/invoke-with-response-stream"
    facts = play(Made(url=url, answer=chunk(event), content_type=AWS))
    assert facts.usage == Usage(input=0, output=0)
    assert facts.finish_reasons == ["guardrail_intervened"]
    assert facts.complete


def model_trace(step: str, holder: dict[str, Any]) -> bytes:
    """Return an agent's trace event."""
    return frame("trace", {"agentId": "A", "trace": {step: holder}})


@pytest.mark.parametrize("size", SIZES)
def test_an_agents_models_are_billed_each(size: int) -> None:
    """Each model invocation in the trace is a part at its own model's price; together they are the call's usage."""
    answer = (
        model_trace("preProcessingTrace", {"modelInvocationInput": {"foundationModel": "amazon.nova-lite-v1:0"}})
        + model_trace(
            "preProcessingTrace",
            {"modelInvocationOutput": {"metadata": {"usage": {"inputTokens": 100, "outputTokens": 10}}}},
        )
        + model_trace("orchestrationTrace", {"modelInvocationInput": {"foundationModel": "amazon.nova-pro-v1:0"}})
        + model_trace(
            "orchestrationTrace",
            {"modelInvocationOutput": {"metadata": {"usage": {"inputTokens": 200, "outputTokens": 20}}}},
        )
        + frame("chunk", {"bytes": "SGk="})
    )
    url = f"{AGENTS}/agents/A/agentAliases/B/sessions/s-1/text"
    facts = play(Made(url=url, answer=answer, content_type=AWS), size)
    assert facts.usage == Usage(input=300, output=30)
    assert [(part.model, part.usage.input) for part in facts.parts] == [
        ("amazon.nova-lite-v1:0", 100),
        ("amazon.nova-pro-v1:0", 200),
    ]
    assert facts.operation == "invoke_agent"
    assert facts.output_seen
    assert facts.stream


def test_an_agent_without_a_trace_says_nothing_of_usage() -> None:
    """What an agent used is only in its trace: without one it is not known, which is not zero."""
    answer = frame("chunk", {"bytes": "SGk="})
    url = f"{AGENTS}/agents/A/agentAliases/B/sessions/s-1/text"
    assert play(Made(url=url, answer=answer, content_type=AWS)).usage is None


def test_a_knowledge_base_names_its_model_in_the_request() -> None:
    """RetrieveAndGenerate calls one model, which the request names."""
    request = {"retrieveAndGenerateConfiguration": {"knowledgeBaseConfiguration": {"modelArn": "anthropic.claude-v2"}}}
    facts = play(Made(url=f"{AGENTS}/retrieveAndGenerate", request=request, answer=packed({"output": {"text": "x"}})))
    assert (facts.operation, facts.request_model, facts.usage) == ("chat", "anthropic.claude-v2", None)


@pytest.mark.parametrize(
    ("call", "answer", "text"),
    [
        ("converse-stream", STREAM, "wellmetadata Hi"),
        ("invoke-with-response-stream", CLAUDE_STREAM, "Hello"),
        (
            "invoke-with-response-stream",
            chunk({"outputs": [{"text": " Pa"}]}) + chunk({"outputs": [{"text": "ris"}]}),
            " Paris",
        ),
    ],
)
def test_text_is_kept_for_estimates(call: str, answer: bytes, text: str) -> None:
    """What a stream showed before it broke off can be estimated, though it came in binary frames or in base64."""
    assert text_of(Made(url=f"{CLAUDE}/{call}", answer=answer, content_type=AWS)) == text


@pytest.mark.parametrize(
    ("answer", "seen", "error"),
    [
        (frame("output", {"text": "x"}), True, None),
        (frame("citation", {"citation": {}}), False, None),
        (frame("throttlingException", {"message": "?"}), False, "throttlingException"),
    ],
)
def test_a_knowledge_base_streams_as_well(answer: bytes, seen: bool, error: str | None) -> None:
    """RetrieveAndGenerateStream has events of its own; errors are frames like everywhere."""
    facts = play(Made(url=f"{AGENTS}/retrieveAndGenerateStream", answer=answer, content_type=AWS))
    assert (facts.output_seen, facts.error_type, facts.stream) == (seen, error, True)


def test_a_guardrail_of_an_agent_is_a_finish_reason() -> None:
    """A knowledge base says when a guardrail stepped in."""
    answer = packed({"guardrailAction": "INTERVENED", "output": {"text": "no"}})
    assert play(Made(url=f"{AGENTS}/retrieveAndGenerate", answer=answer)).finish_reasons == ["INTERVENED"]


def test_converse_may_be_asked_for_json() -> None:
    """A schema in the request makes the output JSON; a tier is requested there, too."""
    request = {"outputConfig": {"textFormat": {"type": "json_schema"}}, "serviceTier": {"type": "priority"}}
    facts = play(Made(url=f"{CLAUDE}/converse", request=request, answer=b"{}"))
    assert (facts.output_type, facts.request_tier) == ("json", "priority")


def test_an_error_in_the_makers_own_events_is_seen() -> None:
    """Anthropic's error event comes inside the envelope too."""
    answer = chunk({"type": "error", "error": {"type": "overloaded_error", "message": "?"}})
    facts = play(Made(url=f"{CLAUDE}/invoke-with-response-stream", answer=answer, content_type=AWS))
    assert facts.error_type == "overloaded_error"


def test_old_completions_say_why_they_ended() -> None:
    """AI21's first models put the reason one level deeper than everybody."""
    answer = packed({"completions": [{"data": {"text": "x"}, "finishReason": {"reason": "endoftext"}}]})
    assert play(Made(url=f"{HOST}/model/ai21.j2-mid-v1/invoke", answer=answer)).finish_reasons == ["endoftext"]


def test_a_path_of_many_models_is_read_once() -> None:
    """A path that repeats `/model/` is read in one pass: starting at each of them, this one would take minutes."""
    assert not any(route.path.search("/model/" * 150_000 + "!") for route in ROUTES)
