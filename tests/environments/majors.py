"""What is called in every environment of `test_majors.py`: one SDK, in each way that all its majors have.

    python majors.py SDK URL

It needs that SDK, an httpx or httpx2 and tollspan, and nothing else; it prints what tollspan counted, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

import tollspan
from tollspan.setup.instrument import current

SAID: Final[Any] = [{"role": "user", "content": "Tell me what you are."}]
STREAMED: Final[Any] = {"stream": True, "stream_options": {"include_usage": True}}


def openai(url: str) -> None:
    """Chat and embed: plain, streamed, async, and once with a retry."""
    from openai import AsyncOpenAI, OpenAI

    with OpenAI(base_url=f"{url}/openai/v1", api_key="any") as client:
        create: Any = client.chat.completions.create
        create(model="gpt-4o-mini", messages=SAID)
        create(model="gpt-4o-mini", messages=SAID, extra_headers={"x-fake": "fault=429x1"})
        list(create(model="gpt-4o-mini", messages=SAID, **STREAMED))
        client.embeddings.create(model="text-embedding-3-small", input=["one", "two"])

    async def run() -> None:
        async with AsyncOpenAI(base_url=f"{url}/openai/v1", api_key="any") as client:
            create: Any = client.chat.completions.create
            await create(model="gpt-4o-mini", messages=SAID)
            async for _ in await create(model="gpt-4o-mini", messages=SAID, **STREAMED):
                pass

    asyncio.run(run())


def anthropic(url: str) -> None:
    """Make messages: plain, streamed, async, and once with a retry."""
    from anthropic import Anthropic, AsyncAnthropic

    asked: Any = {"model": "claude-haiku-4-5", "max_tokens": 50, "messages": SAID}
    with Anthropic(base_url=f"{url}/anthropic", api_key="any") as client:
        client.messages.create(**asked)
        client.messages.create(**asked, extra_headers={"x-fake": "fault=529x1"})
        with client.messages.stream(**asked) as stream:
            stream.get_final_message()

    async def run() -> None:
        async with AsyncAnthropic(base_url=f"{url}/anthropic", api_key="any") as client:
            await client.messages.create(**asked)
            async for _ in await client.messages.create(**asked, stream=True):
                pass

    asyncio.run(run())


def mistralai(url: str) -> None:
    """Chat, plain and streamed."""
    try:
        from mistralai.client import Mistral
    except ImportError:
        from mistralai import Mistral  # type: ignore[attr-defined, no-redef, unused-ignore]

    client: Any = Mistral(api_key="any", server_url=f"{url}/mistral")
    client.chat.complete(model="mistral-small-latest", messages=SAID)
    list(client.chat.stream(model="mistral-small-latest", messages=SAID))


def cohere(url: str) -> None:
    """Chat by version 2, plain and streamed."""
    from cohere import ClientV2

    client: Any = ClientV2(api_key="any", base_url=f"{url}/cohere")
    client.chat(model="command-a-03-2025", messages=SAID)
    list(client.chat_stream(model="command-a-03-2025", messages=SAID))


def groq(url: str) -> None:
    """Chat, plain and streamed."""
    from groq import Groq

    with Groq(base_url=f"{url}/groq", api_key="any") as client:
        create: Any = client.chat.completions.create
        create(model="openai/gpt-oss-120b", messages=SAID)
        list(create(model="openai/gpt-oss-120b", messages=SAID, stream=True))


def genai(url: str) -> None:
    """Generate content, plain and streamed."""
    from google import genai as library
    from google.genai.types import HttpOptions

    client = library.Client(api_key="any", http_options=HttpOptions(base_url=f"{url}/gemini"))
    client.models.generate_content(model="gemini-2.5-flash", contents="What are you?")
    list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="What are you?"))


def main() -> None:
    """Call, and print what was counted."""
    tollspan.instrument()
    globals()[sys.argv[1]](sys.argv[2])
    recorder = current()
    assert recorder is not None
    accumulator = recorder.accumulator
    totals = {
        model: {
            name: getattr(sums, name)
            for name in ("calls", "failed", "input", "output", "cache_read", "cache_write", "reasoning", "spend")
        }
        for (_, _, model), sums in accumulator.items()
    }
    print(json.dumps({"calls": accumulator.calls, "errors": accumulator.errors, "models": totals}))  # noqa: T201


if __name__ == "__main__":
    main()
