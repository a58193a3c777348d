"""A small assistant for a bookshop: it plans, looks things up, answers and summarises, with two providers' own SDKs.

It is an application like any other and knows nothing of what watches it. It finds its providers where the SDKs look:
OPENAI_BASE_URL, OPENAI_API_KEY, ANTHROPIC_BASE_URL, ANTHROPIC_API_KEY.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI

if TYPE_CHECKING:
    from anthropic.types import TextBlockParam
    from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageParam
    from openai.types.chat.chat_completion_message_function_tool_call_param import Function

HANDBOOK: Final = "\n".join(
    f"Rule {number}: greet the customer, name the shelf, say the price with tax, and offer to put the book aside."
    for number in range(1, 81)
)
"""A long beginning that every prompt shares: what prompt caches are for."""

STOCK: Final[ChatCompletionFunctionToolParam] = {
    "type": "function",
    "function": {
        "name": "look_up_stock",
        "description": "Tell how many copies of a book are in the shop.",
        "parameters": {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]},
    },
}
LETTERS: Final = (
    "The parcel came two days late, but the wrapping was lovely.",
    "Could you order the second volume as well?",
    "I was charged twice for one atlas, please look into it.",
    "Best reading evening in town. When is the next one?",
)


def plan(openai: OpenAI) -> None:
    """Let a model think before it answers: reasoning tokens are billed though nobody sees them."""
    answer = openai.chat.completions.create(
        model="gpt-5.4-mini",
        reasoning_effort="low",
        messages=[{"role": "user", "content": "Plan a window display about sea voyages for next week."}],
    )
    say("plan", answer.choices[0].message.content)


def look_up(openai: OpenAI) -> None:
    """Let a model call a function, and answer with what it gave."""
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Is 'Moby Dick' in stock?"}]
    asked = openai.chat.completions.create(model="gpt-5.4-mini", messages=messages, tools=[STOCK])
    for call in asked.choices[0].message.tool_calls or ():
        if call.type == "function":
            say("look up", f"{call.function.name}({call.function.arguments})")
            again: Function = {"name": call.function.name, "arguments": call.function.arguments}
            messages.append(
                {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": again}]}
            )
            messages.append({"role": "tool", "tool_call_id": call.id, "content": "3 copies, shelf 12"})
    answer = openai.chat.completions.create(model="gpt-5.4-mini", messages=messages, tools=[STOCK])
    say("look up", answer.choices[0].message.content)


def answer_customers(openai: OpenAI) -> None:
    """Answer two customers by the same handbook: the second time its beginning comes out of OpenAI's cache."""
    for question in ("Do you buy old books?", "Where do I find poems?"):
        stream = openai.chat.completions.create(
            model="gpt-5.5",
            messages=[{"role": "system", "content": HANDBOOK}, {"role": "user", "content": question}],
            stream=True,
            stream_options={"include_usage": True},
        )
        say("answer", "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))


def review(anthropic: Anthropic) -> None:
    """Stream an answer with visible thinking; the handbook is put into Anthropic's cache for an hour."""
    with anthropic.messages.stream(
        model="claude-sonnet-5",
        max_tokens=2000,
        thinking={"type": "enabled", "budget_tokens": 1024},
        system=[_cached(HANDBOOK, hour=True)],
        messages=[{"role": "user", "content": "Which rule do new colleagues forget most?"}],
    ) as stream:
        say("review", "".join(stream.text_stream))
    again = anthropic.messages.create(
        model="claude-sonnet-5",
        max_tokens=300,
        system=[_cached(HANDBOOK, hour=True)],
        messages=[{"role": "user", "content": "And which one do customers like best?"}],
    )
    say("review", "".join(block.text for block in again.content if block.type == "text"))


async def read_letters(openai: AsyncOpenAI, anthropic: AsyncAnthropic) -> None:
    """Sort letters with one provider and answer them with the other, all at the same time."""

    async def sort(letter: str) -> None:
        answer = await openai.chat.completions.create(
            model="gpt-4o-mini", max_tokens=8, messages=[{"role": "user", "content": f"Praise or complaint? {letter}"}]
        )
        say("sort", answer.choices[0].message.content)

    async def reply(letter: str) -> None:
        async with anthropic.messages.stream(
            model="claude-haiku-4-5",
            max_tokens=200,
            system=[_cached(HANDBOOK)],
            messages=[{"role": "user", "content": letter}],
        ) as stream:
            say("reply", await stream.get_final_text())

    await reply(LETTERS[0])  # alone, and first: those after it find the handbook cached
    await asyncio.gather(*map(sort, LETTERS), *map(reply, LETTERS[1:]))


def _cached(text: str, *, hour: bool = False) -> TextBlockParam:
    """Mark a text for Anthropic's cache, for five minutes or for an hour."""
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral", "ttl": "1h" if hour else "5m"}}


def say(task: str, text: str | None) -> None:
    """Print the beginning of an answer."""
    print(f"assistant [{task}] {(text or '')[:70]}", flush=True)


async def with_letters() -> None:
    """Open the asynchronous clients and close them again."""
    async with AsyncOpenAI() as openai, AsyncAnthropic() as anthropic:
        await read_letters(openai, anthropic)


def main() -> None:
    """Do a morning's work."""
    with OpenAI() as openai, Anthropic() as anthropic:
        plan(openai)
        look_up(openai)
        answer_customers(openai)
        review(anthropic)
    asyncio.run(with_letters())


if __name__ == "__main__":
    main()
