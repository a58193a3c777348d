"""The fake provider as OpenAI's SDK sees it: shapes that the SDK's own types accept, and sums worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam
    from pydantic import BaseModel

    from examples.fake_provider import FakeProvider

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello, world"}]
"""12 characters: 3 tokens, and 4 for the message, make 7."""
TOOL: Any = {
    "type": "function",
    "function": {"name": "find", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}


def sound(made: BaseModel) -> bool:
    """Validate what the SDK has built without looking (it never checks an answer) against its own types."""
    type(made).model_validate_json(made.model_dump_json(by_alias=True, exclude_unset=True))
    return True


def test_a_chat_completion_satisfies_the_sdk_and_its_bill_is_right(
    fake: FakeProvider, openai_client: openai.OpenAI
) -> None:
    """A plain completion reports every count, and the tally prices each kind of token at its own rate."""
    figures = {"x-fake": "input=1000, cached=400, output=200, reasoning=150"}
    made = openai_client.chat.completions.create(model="gpt-5.4-mini", messages=HELLO, extra_headers=figures)
    assert sound(made)
    assert made.model == "gpt-5.4-mini-2026-03-17"
    assert made.usage is not None
    assert made.usage.prompt_tokens_details is not None
    assert made.usage.completion_tokens_details is not None
    assert (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.total_tokens) == (1000, 200, 1200)
    assert made.usage.prompt_tokens_details.cached_tokens == 400
    assert made.usage.completion_tokens_details.reasoning_tokens == 150
    [row] = fake.tally()["by"]
    # 600 x 0.75 + 400 x 0.075 + 200 x 4.50 = 450 + 30 + 900 = 1,380 millionths of a dollar.
    assert float(row["cost_usd"]) == 0.00138
    assert row["asked_as"] == ["gpt-5.4-mini"]


def test_tokens_are_counted_by_the_published_rule(openai_client: openai.OpenAI) -> None:
    """Four characters are a token and a message costs four more, so that any test can work out its own figures."""
    made = openai_client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "system", "content": "Be brief."}, *HELLO], max_tokens=5
    )
    assert made.usage is not None
    assert made.usage.prompt_tokens == (3 + 4) + (3 + 4)
    assert made.usage.completion_tokens == 5
    assert made.choices[0].finish_reason == "length"


def test_a_stream_that_asked_for_usage_gets_it_as_openai_sends_it(
    fake: FakeProvider, openai_client: openai.OpenAI
) -> None:
    """With include_usage every chunk has a null usage but the last, which has no choices."""
    chunks = list(
        openai_client.chat.completions.create(
            model="gpt-5.5", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert all(map(sound, chunks))
    *others, last = chunks
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set and chunk.choices for chunk in others)
    assert last.choices == []
    assert last.usage is not None
    words = [chunk.choices[0].delta.content for chunk in others if chunk.choices[0].delta.content]
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (7, len(words))
    [row] = fake.tally()["by"]
    assert float(row["cost_usd"]) == pytest.approx((7 * 5 + len(words) * 30) / 1e6, abs=1e-12)


def test_a_stream_that_did_not_ask_is_billed_and_not_told(fake: FakeProvider, openai_client: openai.OpenAI) -> None:
    """Without include_usage no chunk has a usage, and the tally keeps the call apart as unreported."""
    chunks = list(openai_client.chat.completions.create(model="gpt-5.5", messages=HELLO, stream=True))
    assert all(map(sound, chunks))
    assert not any("usage" in chunk.model_fields_set for chunk in chunks)
    tally = fake.tally()
    assert (tally["calls"], tally["unreported"], tally["spend_usd"]) == (0, 1, "0")
    assert float(tally["unreported_usd"]) > 0


def test_a_long_prompt_is_cached_the_second_time(fake: FakeProvider, openai_client: openai.OpenAI) -> None:
    """A prefix seen before is read from the cache in steps of 128 tokens, from 1,024 tokens on."""
    prompts: list[list[ChatCompletionMessageParam]] = [
        [{"role": "system", "content": "x" * 5000}, {"role": "user", "content": question}] for question in "ab"
    ]
    made = [openai_client.chat.completions.create(model="gpt-5.5", messages=prompt) for prompt in prompts]
    details = [one.usage.prompt_tokens_details for one in made if one.usage]
    # 5,000 characters hold 9 whole blocks of 128 tokens: 1,152.
    assert [one.cached_tokens for one in details if one] == [0, 1152]
    [row] = fake.tally()["by"]
    assert (row["input"], row["cache_read"], row["cache_write"]) == (2 * (1254 + 5), 1152, 0)


def test_a_model_that_bills_cache_writes_reports_them(openai_client: openai.OpenAI) -> None:
    """From gpt-5.6 on OpenAI bills what it writes to the cache; the count lies inside the prompt's."""
    made = openai_client.chat.completions.create(
        model="gpt-5.6-terra", messages=[{"role": "user", "content": "y" * 6000}]
    )
    assert made.usage is not None
    assert made.usage.prompt_tokens_details is not None
    assert made.usage.prompt_tokens_details.cache_write_tokens == 11 * 128


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_is_answered(openai_client: openai.OpenAI, *, stream: bool) -> None:
    """Offered a tool, the fake calls it with arguments after its schema; given the result, it answers in words."""
    if stream:
        with openai_client.chat.completions.stream(model="gpt-5.5", messages=HELLO, tools=[TOOL]) as events:
            asked = events.get_final_completion().choices[0]
    else:
        asked = openai_client.chat.completions.create(model="gpt-5.5", messages=HELLO, tools=[TOOL]).choices[0]  # type: ignore[assignment]
    assert asked.finish_reason == "tool_calls"
    [call] = asked.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("find", '{"n": 1}')
    history: Any = [*HELLO, {"role": "assistant", "tool_calls": [call.model_dump(include={"id", "type", "function"})]}]
    history.append({"role": "tool", "tool_call_id": call.id, "content": "42"})
    answer = openai_client.chat.completions.create(model="gpt-5.5", messages=history, tools=[TOOL])
    assert answer.choices[0].finish_reason == "stop"


def test_several_choices_share_one_prompt_and_one_reasoning(fake: FakeProvider, openai_client: openai.OpenAI) -> None:
    """With n=3 the output is billed three times, prompt and reasoning once; streamed and plain agree."""
    asked: Any = {"model": "gpt-5.5", "messages": HELLO, "n": 3, "reasoning_effort": "low"}
    plain = openai_client.chat.completions.create(**asked)
    chunks = list(openai_client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert sound(plain)
    assert len(plain.choices) == 3
    assert plain.usage == chunks[-1].usage
    [row] = fake.tally()["by"]
    one = len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) // 3
    assert (row["input"], row["reasoning"], row["output"]) == (2 * 7, 2 * 64, 2 * (64 + 3 * one))


@pytest.mark.parametrize(("asked", "rate"), [("flex", 2.50), ("priority", 12.50), ("default", 5.00), ("auto", 5.00)])
def test_a_service_tier_is_confirmed_and_priced(
    fake: FakeProvider, openai_client: openai.OpenAI, asked: Any, rate: float
) -> None:
    """The answer says which tier served it, and the tally charges that tier."""
    made = openai_client.chat.completions.create(
        model="gpt-5.5", messages=HELLO, service_tier=asked, extra_headers={"x-fake": "input=1000000, output=0"}
    )
    assert made.service_tier == ("default" if asked == "auto" else asked)
    assert float(fake.tally()["spend_usd"]) == rate


@pytest.mark.parametrize("effort", ["low", None])
def test_the_responses_api_plain_and_streamed_agree(
    fake: FakeProvider, openai_client: openai.OpenAI, effort: Any
) -> None:
    """Both ways of answering satisfy the SDK's types and report the same usage; a look-up is never billed."""
    asked: Any = {"model": "gpt-5.5", "input": "Hello, world", "reasoning": {"effort": effort}}
    plain = openai_client.responses.create(**asked)
    events = list(openai_client.responses.create(**asked, stream=True))
    assert sound(plain)
    assert all(map(sound, events))
    final = events[-1]
    assert final.type == "response.completed"
    assert final.response.usage == plain.usage
    assert final.response.output_text == plain.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert openai_client.responses.retrieve(plain.id).usage == plain.usage
    tally = fake.tally()
    assert (tally["calls"], tally["control"]) == (2, {f"/v1/responses/{plain.id}": 1})
    assert tally["by"][0]["reasoning"] == (128 if effort else 0)


def test_a_response_can_call_a_function_and_can_be_cut(openai_client: openai.OpenAI) -> None:
    """A function call is an item of its own; a limit ends the response as incomplete, with its usage."""
    tool: Any = {"type": "function", "name": "find", "parameters": TOOL["function"]["parameters"], "strict": False}
    events = list(openai_client.responses.create(model="gpt-5.5", input="Hello", tools=[tool], stream=True))
    assert all(map(sound, events))
    assert [item.type for item in events[-1].response.output] == ["function_call"]  # type: ignore[union-attr]
    cut = openai_client.responses.create(model="gpt-5.5", input="Hello", max_output_tokens=3)
    assert cut.status == "incomplete"
    assert cut.usage is not None
    assert cut.usage.output_tokens == 3


def test_embeddings_have_no_output_tokens(fake: FakeProvider, openai_client: openai.OpenAI) -> None:
    """Embeddings are billed by their input alone, in the base64 that the SDK asks for and in plain numbers."""
    made = openai_client.embeddings.create(model="text-embedding-3-small", input=["Hello, world", "Bye"])
    plain = openai_client.embeddings.create(model="text-embedding-3-small", input="Bye", encoding_format="float")
    assert sound(made)
    assert made.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert (made.usage.prompt_tokens, plain.usage.prompt_tokens) == (3 + 1, 1)
    # 5 tokens x 0.02 USD per million
    assert float(fake.tally()["spend_usd"]) == 1e-07


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"messages": []}, openai.BadRequestError),
        ({"temperature": 3}, openai.BadRequestError),
        ({"model": "no-such-model"}, openai.NotFoundError),
    ],
)
def test_bad_requests_are_refused_as_openai_refuses_them(
    fake: FakeProvider, openai_client: openai.OpenAI, change: Any, error: type[openai.APIStatusError]
) -> None:
    """A refusal has OpenAI's shape, costs nothing, and counts as a failed attempt."""
    with pytest.raises(error) as caught:
        openai_client.chat.completions.create(**{"model": "gpt-5.5", "messages": HELLO, **change})
    assert caught.value.type == "invalid_request_error"
    assert caught.value.code
    tally = fake.tally()
    assert (tally["attempts"], tally["failed"], tally["spend_usd"]) == (1, 1, "0")


def test_a_bad_key_is_refused(fake: FakeProvider) -> None:
    """A key that begins with "bad" gets a 401."""
    with (
        openai.OpenAI(base_url=fake.base_url("openai"), api_key="bad") as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.chat.completions.create(model="gpt-5.5", messages=HELLO)


def test_a_model_without_a_price_is_served_and_not_priced(fake: FakeProvider, openai_client: openai.OpenAI) -> None:
    """A fine-tuned or unheard-of model answers; its row has counts and no cost, never a cost of 0."""
    openai_client.chat.completions.create(model="ft:gpt-5.5:acme::1", messages=HELLO)
    [row] = fake.tally()["by"]
    assert (row["model"], row["input"], row["cost_usd"]) == ("ft:gpt-5.5:acme::1", 7, None)


def test_a_list_of_models_is_no_call(fake: FakeProvider, openai_client: openai.OpenAI) -> None:
    """Looking at the models is control traffic: counted apart, never an attempt."""
    assert "gpt-5.5-2026-04-23" in {model.id for model in openai_client.models.list()}
    assert (fake.tally()["attempts"], fake.tally()["control"]) == (0, {"/v1/models": 1})
