"""The fake provider as Anthropic's SDK sees it: shapes that the SDK's own types accept, and sums worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import pytest

if TYPE_CHECKING:
    from pydantic import BaseModel

    from examples.fake_provider import FakeProvider

HELLO: Any = [{"role": "user", "content": "Hello, world"}]
"""12 characters: 3 tokens, and 4 for the message, make 7."""
TOOL: Any = {"name": "find", "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}


def sound(made: BaseModel) -> bool:
    """Validate what the SDK has built without looking (it never checks an answer) against its own types."""
    type(made).model_validate_json(made.model_dump_json(by_alias=True, exclude_unset=True))
    return True


def marked(text: str, ttl: str) -> Any:
    """Return a block of text that is to be cached."""
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral", "ttl": ttl}}


def test_a_message_satisfies_the_sdk_and_its_bill_is_right(
    fake: FakeProvider, anthropic_client: anthropic.Anthropic
) -> None:
    """A plain message reports every count; an alias is answered with the name of its snapshot."""
    made = anthropic_client.messages.create(model="claude-haiku-4-5", max_tokens=10, messages=HELLO)
    assert sound(made)
    assert (made.model, made.stop_reason) == ("claude-haiku-4-5-20251001", "max_tokens")
    assert (made.usage.input_tokens, made.usage.output_tokens) == (7, 10)
    # 7 x 1.00 + 10 x 5.00 = 57 millionths of a dollar
    assert float(fake.tally()["spend_usd"]) == 5.7e-05


@pytest.mark.parametrize(
    ("ttl", "write", "rate"),
    [("5m", (2004, 0), 2.50), ("1h", (0, 2004), 4.00)],
)
def test_a_marked_prompt_is_written_and_then_read(
    fake: FakeProvider, anthropic_client: anthropic.Anthropic, ttl: str, write: tuple[int, int], rate: float
) -> None:
    """A marked system prompt is written once at the price of its time to live, and read at a tenth of the input's."""
    asked: Any = {"model": "claude-sonnet-5", "max_tokens": 10, "messages": HELLO, "system": [marked("s" * 8000, ttl)]}
    first, second = (anthropic_client.messages.create(**asked).usage for _ in range(2))
    assert first.cache_creation is not None
    split = first.cache_creation.ephemeral_5m_input_tokens, first.cache_creation.ephemeral_1h_input_tokens
    assert (first.input_tokens, split, first.cache_read_input_tokens) == (7, write, 0)
    assert (second.input_tokens, second.cache_creation_input_tokens, second.cache_read_input_tokens) == (7, 0, 2004)
    [row] = fake.tally()["by"]
    assert (row["input"], row["output"], row["cache_read"], row["cache_write"]) == (4022, 20, 2004, 2004)
    # 14 fresh x 2.00 + 2,004 written x rate + 2,004 read x 0.20 + 20 x 10.00
    assert float(row["cost_usd"]) == pytest.approx((28 + 2004 * rate + 400.8 + 200) / 1e6, abs=1e-12)


def test_two_marks_of_different_length_are_written_apart(anthropic_client: anthropic.Anthropic) -> None:
    """What lies before the first mark is written for its time, what lies between the two for the second's."""
    system = [marked("s" * 8000, "1h"), marked("t" * 4000, "5m")]
    made = anthropic_client.messages.create(model="claude-sonnet-5", max_tokens=9, system=system, messages=HELLO).usage
    assert made.cache_creation is not None
    assert made.cache_creation.ephemeral_1h_input_tokens == 2004
    assert made.cache_creation.ephemeral_5m_input_tokens == 1004
    other = [marked("s" * 8000, "1h"), marked("u" * 4000, "5m")]
    again = anthropic_client.messages.create(model="claude-sonnet-5", max_tokens=9, system=other, messages=HELLO).usage
    assert (again.cache_read_input_tokens, again.cache_creation_input_tokens) == (2004, 1004)


def test_a_short_prompt_is_not_cached(anthropic_client: anthropic.Anthropic) -> None:
    """A mark before the first 1,024 tokens is ignored."""
    system = [marked("s" * 400, "5m")]
    made = anthropic_client.messages.create(model="claude-sonnet-5", max_tokens=9, system=system, messages=HELLO).usage
    assert (made.input_tokens, made.cache_creation_input_tokens) == (7 + 104, 0)


@pytest.mark.parametrize("thinking", [None, {"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive"}])
def test_a_stream_adds_up_to_the_plain_message(
    fake: FakeProvider,
    anthropic_client: anthropic.Anthropic,
    thinking: Any,
) -> None:
    """Every event satisfies the SDK, and what they add up to is what the plain answer says, cumulative counts too."""
    asked: Any = {"model": "claude-sonnet-5", "max_tokens": 2000, "messages": HELLO}
    if thinking:
        asked["thinking"] = thinking
    plain = anthropic_client.messages.create(**asked)
    events = list(anthropic_client.messages.create(**asked, stream=True))
    assert all(map(sound, events))
    assert [event.type for event in events][0 :: len(events) - 1] == ["message_start", "message_stop"]
    with anthropic_client.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == (["thinking", "text"] if thinking else ["text"])
    assert final.usage == plain.usage
    assert [block.model_dump(exclude={"parsed_output"}) for block in final.content] == [
        block.model_dump() for block in plain.content
    ]
    [row] = fake.tally()["by"]
    spent = {None: 0, "enabled": 128, "adaptive": 64}[thinking and thinking["type"]]
    assert (row["calls"], row["reasoning"], row["output"]) == (3, 3 * spent, 3 * plain.usage.output_tokens)


def test_a_stream_has_a_ping(fake: FakeProvider, anthropic_client: anthropic.Anthropic) -> None:
    """Anthropic sends a ping after the first block has begun; the SDK hides it, the wire does not."""
    made = anthropic_client.messages.with_raw_response.create(
        model="claude-sonnet-5", max_tokens=20, messages=HELLO, stream=True
    )
    assert b'event: ping\ndata: {"type": "ping"}' in made.http_response.read()
    assert fake.tally()["calls"] == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_used_and_its_result_is_answered(anthropic_client: anthropic.Anthropic, *, stream: bool) -> None:
    """Offered a tool, the fake uses it with an input after its schema; given the result, it answers in words."""
    asked: Any = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": HELLO, "tools": [TOOL]}
    if stream:
        with anthropic_client.messages.stream(**asked) as events:
            made: anthropic.types.Message = events.get_final_message()
    else:
        made = anthropic_client.messages.create(**asked)
    [block] = made.content
    assert block.type == "tool_use"
    assert (made.stop_reason, block.name, block.input) == ("tool_use", "find", {"n": 1})
    # 8 tokens for the call and 2 for the 8 characters of its arguments
    assert made.usage.output_tokens == 10
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "42"}
    call = block.model_dump(include={"type", "id", "name", "input"})
    asked["messages"] = [*HELLO, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    assert anthropic_client.messages.create(**asked).stop_reason == "end_turn"


def test_counting_tokens_is_free_and_agrees_with_the_bill(
    fake: FakeProvider, anthropic_client: anthropic.Anthropic
) -> None:
    """The count is what a message would be billed for, and asking for it is no attempt."""
    counted = anthropic_client.messages.count_tokens(model="claude-sonnet-5", messages=HELLO, system="Be brief.")
    assert counted.input_tokens == (3 + 4) + (3 + 4)
    tally = fake.tally()
    assert (tally["attempts"], tally["control"]) == (0, {"/v1/messages/count_tokens": 1})


def test_refusals_have_anthropics_shape(fake: FakeProvider, anthropic_client: anthropic.Anthropic) -> None:
    """A request without max_tokens and one for an unknown model are refused and cost nothing."""
    with pytest.raises(anthropic.NotFoundError) as missing:
        anthropic_client.messages.create(model="no-such-claude", max_tokens=9, messages=HELLO)
    assert missing.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        anthropic_client.messages.create(model="claude-sonnet-5", max_tokens=0, messages=HELLO)
    assert fake.tally()["statuses"] == {"404": 1, "400": 1}
