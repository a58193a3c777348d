"""Call a provider with the real `openai` SDK in each way that it has: an ordinary application, unaware of tollspan.

Reads OPENAI_BASE_URL and OPENAI_API_KEY, as the SDK does. The first request meets a 429 and is sent again by the
SDK; the tests tell the fake provider so.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import openai

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

client = openai.OpenAI(max_retries=2)
question: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What does the bridge cost?"}]

client.chat.completions.create(model="gpt-5.5", messages=question)
with client.chat.completions.create(
    model="gpt-4o-mini", messages=question, stream=True, stream_options={"include_usage": True}
) as stream:
    for _ in stream:
        pass
client.responses.create(model="gpt-5.4-mini", input="What does the bridge cost?")
client.embeddings.create(model="text-embedding-3-small", input=["bridge", "toll"])


async def ask_many() -> None:
    """Ask three times at once, as asynchronous applications do."""
    async with openai.AsyncOpenAI() as several:
        asked = (several.chat.completions.create(model="gpt-5.5", messages=question) for _ in range(3))
        await asyncio.gather(*asked)


asyncio.run(ask_many())
