"""One call through each SDK, in each way that people call it: plain and streamed, sync and async.

A scenario takes the base URL of the fake provider, makes one billable call, and reads the answer to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import anthropic
import cohere
import groq
import httpx
import openai
from google import genai
from google.genai.types import HttpOptions
from mistralai.client import Mistral

if TYPE_CHECKING:
    from collections.abc import Awaitable

KEY: Final = "any"
SAID: Final[Any] = [{"role": "user", "content": "Tell me what you are, in a sentence or two."}]
USAGE: Final[Any] = {"include_usage": True}


# OpenAI, by chat, responses and embeddings


def openai_chat(url: str) -> None:
    """Make a plain chat completion."""
    with openai.OpenAI(base_url=url, api_key=KEY) as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=SAID)


def openai_chat_stream(url: str) -> None:
    """Stream a chat completion."""
    with openai.OpenAI(base_url=url, api_key=KEY) as client:
        list(client.chat.completions.create(model="gpt-4o-mini", messages=SAID, stream=True, stream_options=USAGE))


def openai_responses(url: str) -> None:
    """Make a plain response."""
    with openai.OpenAI(base_url=url, api_key=KEY) as client:
        client.responses.create(model="gpt-5.5", input="What are you?")


def openai_responses_stream(url: str) -> None:
    """Stream a response."""
    with openai.OpenAI(base_url=url, api_key=KEY) as client:
        list(client.responses.create(model="gpt-5.5", input="What are you?", stream=True))


def openai_embeddings(url: str) -> None:
    """Embed two texts."""
    with openai.OpenAI(base_url=url, api_key=KEY) as client:
        client.embeddings.create(model="text-embedding-3-small", input=["one text", "another text"])


async def openai_chat_async(url: str) -> None:
    """Make a plain chat completion, async."""
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as client:
        await client.chat.completions.create(model="gpt-4o-mini", messages=SAID)


async def openai_chat_stream_async(url: str) -> None:
    """Stream a chat completion, async."""
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as client:
        create = client.chat.completions.create
        async for _ in await create(model="gpt-4o-mini", messages=SAID, stream=True, stream_options=USAGE):
            pass


async def openai_responses_stream_async(url: str) -> None:
    """Stream a response, async."""
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as client:
        async for _ in await client.responses.create(model="gpt-5.5", input="What are you?", stream=True):
            pass


async def openai_responses_async(url: str) -> None:
    """Make a plain response, async."""
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as client:
        await client.responses.create(model="gpt-5.5", input="What are you?")


async def openai_embeddings_async(url: str) -> None:
    """Embed two texts, async."""
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as client:
        await client.embeddings.create(model="text-embedding-3-small", input=["one text", "another text"])


# Anthropic, by messages


def anthropic_messages(url: str) -> None:
    """Make a plain message."""
    with anthropic.Anthropic(base_url=url, api_key=KEY) as client:
        client.messages.create(model="claude-haiku-4-5", max_tokens=60, messages=SAID)


def anthropic_stream(url: str) -> None:
    """Stream a message by the SDK's helper."""
    with (
        anthropic.Anthropic(base_url=url, api_key=KEY) as client,
        client.messages.stream(model="claude-haiku-4-5", max_tokens=60, messages=SAID) as stream,
    ):
        stream.get_final_message()


async def anthropic_messages_async(url: str) -> None:
    """Make a plain message, async."""
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY) as client:
        await client.messages.create(model="claude-haiku-4-5", max_tokens=60, messages=SAID)


async def anthropic_stream_async(url: str) -> None:
    """Stream a message's events, async."""
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY) as client:
        async for _ in await client.messages.create(
            model="claude-haiku-4-5", max_tokens=60, messages=SAID, stream=True
        ):
            pass


# Gemini, by google-genai


def _gemini(url: str) -> genai.Client:
    return genai.Client(api_key=KEY, http_options=HttpOptions(base_url=url))


def gemini(url: str) -> None:
    """Generate content."""
    with _gemini(url) as client:
        client.models.generate_content(model="gemini-2.5-flash", contents="What are you?")


def gemini_stream(url: str) -> None:
    """Stream generated content."""
    with _gemini(url) as client:
        list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="What are you?"))


async def gemini_async(url: str) -> None:
    """Generate content, async."""
    async with _gemini(url).aio as client:
        await client.models.generate_content(model="gemini-2.5-flash", contents="What are you?")


async def gemini_stream_async(url: str) -> None:
    """Stream generated content, async."""
    async with _gemini(url).aio as client:
        stream = client.models.generate_content_stream
        async for _ in await stream(model="gemini-2.5-flash", contents="What are you?"):
            pass


# Mistral, by mistralai


def mistral(url: str) -> None:
    """Make a plain chat completion."""
    with Mistral(api_key=KEY, server_url=url) as client:
        client.chat.complete(model="mistral-small-latest", messages=SAID)


def mistral_stream(url: str) -> None:
    """Stream a chat completion."""
    with (
        Mistral(api_key=KEY, server_url=url) as client,
        client.chat.stream(model="mistral-small-latest", messages=SAID) as stream,
    ):
        list(stream)


async def mistral_async(url: str) -> None:
    """Make a plain chat completion, async."""
    async with Mistral(api_key=KEY, server_url=url) as client:
        await client.chat.complete_async(model="mistral-small-latest", messages=SAID)


async def mistral_stream_async(url: str) -> None:
    """Stream a chat completion, async."""
    async with Mistral(api_key=KEY, server_url=url) as client:
        async for _ in await client.chat.stream_async(model="mistral-small-latest", messages=SAID):
            pass


# Cohere (its clients do not close the HTTP client that they make, so they are given one)


def cohere_chat(url: str) -> None:
    """Make a plain chat."""
    with httpx.Client() as http:
        cohere.ClientV2(api_key=KEY, base_url=url, httpx_client=http).chat(model="command-a-03-2025", messages=SAID)


def cohere_stream(url: str) -> None:
    """Stream a chat."""
    with httpx.Client() as http:
        client = cohere.ClientV2(api_key=KEY, base_url=url, httpx_client=http)
        list(client.chat_stream(model="command-a-03-2025", messages=SAID))


async def cohere_chat_async(url: str) -> None:
    """Make a plain chat, async."""
    async with httpx.AsyncClient() as http:
        client = cohere.AsyncClientV2(api_key=KEY, base_url=url, httpx_client=http)
        await client.chat(model="command-a-03-2025", messages=SAID)


async def cohere_stream_async(url: str) -> None:
    """Stream a chat, async."""
    async with httpx.AsyncClient() as http:
        client = cohere.AsyncClientV2(api_key=KEY, base_url=url, httpx_client=http)
        async for _ in client.chat_stream(model="command-a-03-2025", messages=SAID):
            pass


# Groq


def groq_chat(url: str) -> None:
    """Make a plain chat completion."""
    with groq.Groq(api_key=KEY, base_url=url) as client:
        client.chat.completions.create(model="openai/gpt-oss-120b", messages=SAID)


def groq_stream(url: str) -> None:
    """Stream a chat completion; its usage comes in `x_groq`, unasked."""
    with groq.Groq(api_key=KEY, base_url=url) as client:
        list(client.chat.completions.create(model="openai/gpt-oss-120b", messages=SAID, stream=True))


async def groq_chat_async(url: str) -> None:
    """Make a plain chat completion, async."""
    async with groq.AsyncGroq(api_key=KEY, base_url=url) as client:
        await client.chat.completions.create(model="openai/gpt-oss-120b", messages=SAID)


async def groq_stream_async(url: str) -> None:
    """Stream a chat completion, async."""
    async with groq.AsyncGroq(api_key=KEY, base_url=url) as client:
        async for _ in await client.chat.completions.create(model="openai/gpt-oss-120b", messages=SAID, stream=True):
            pass


Scenario = Callable[[str], "Awaitable[None] | None"]
SCENARIOS: Final[dict[str, tuple[Scenario, ...]]] = {
    "openai": (
        openai_chat,
        openai_chat_stream,
        openai_chat_async,
        openai_chat_stream_async,
        openai_responses,
        openai_responses_stream,
        openai_responses_async,
        openai_responses_stream_async,
        openai_embeddings,
        openai_embeddings_async,
    ),
    "anthropic": (anthropic_messages, anthropic_stream, anthropic_messages_async, anthropic_stream_async),
    "gemini": (gemini, gemini_stream, gemini_async, gemini_stream_async),
    "mistral": (mistral, mistral_stream, mistral_async, mistral_stream_async),
    "cohere": (cohere_chat, cohere_stream, cohere_chat_async, cohere_stream_async),
    "groq": (groq_chat, groq_stream, groq_chat_async, groq_stream_async),
}
