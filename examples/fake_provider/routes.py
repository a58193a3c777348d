"""Which provider and which wire format answers a path: `/anthropic/v1/messages` and, bare, `/v1/messages`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from examples.fake_provider import anthropic, cohere, gemini, openai
from examples.fake_provider.exchange import Answer, Ask, Frame, Json, Refusal
from examples.fake_provider.generation import Memory

Handler = Callable[[Ask, Memory], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """A path, the provider it means where no prefix names one, and who answers it and words its errors."""

    path: re.Pattern[str]
    default: str
    answer: Handler
    error: Callable[[Refusal], Json]
    error_event: Callable[[Refusal], Frame]
    billed: bool = True


CHAT: Final = re.compile(r"(/v1)?/chat/completions")
ROUTES: Final = (
    Route(CHAT, "openai", openai.chat, openai.error, openai.error_event),
    Route(re.compile(r"/v1/responses"), "openai", openai.responses, openai.error, openai.response_error_event),
    Route(re.compile(r"/v1/embeddings"), "openai", openai.embeddings, openai.error, openai.error_event),
    Route(re.compile(r"/v1/messages"), "anthropic", anthropic.messages, anthropic.error, anthropic.error_event),
    Route(re.compile(r"/v2/chat"), "cohere", cohere.chat, cohere.error, cohere.error_event),
    Route(
        re.compile(r"/v1(beta)?/models/[^/:]+:(streamGenerateContent|generateContent)"),
        "gemini",
        gemini.generate,
        gemini.error,
        gemini.error_event,
    ),
    Route(
        re.compile(r"/v1/messages/count_tokens"),
        "anthropic",
        anthropic.count_tokens,
        anthropic.error,
        anthropic.error_event,
        billed=False,
    ),
)
OPENAI: Final = ROUTES[0]
BASES: Final = {
    "openai": "/openai/v1",
    "anthropic": "/anthropic",
    "gemini": "/gemini",
    "mistral": "/mistral",
    "cohere": "/cohere",
    "groq": "/groq",
}
"""Provider -> what to append to the server's URL to get the `base_url` that its SDK expects."""


def split(path: str) -> tuple[str | None, str]:
    """Take the provider's prefix off a path: `/groq/openai/v1/models` is ("groq", "/v1/models")."""
    first, slash, rest = path[1:].partition("/")
    if first not in BASES:
        return None, path
    return first, slash + (rest.removeprefix("openai/") if first == "groq" else rest)


def route(path: str) -> tuple[str, str, Route | None]:
    """Return (provider, the path without its prefix, its route); the route is None for a path that nobody serves."""
    provider, bare = split(path)
    found = next((one for one in ROUTES if one.path.fullmatch(bare)), None)
    return provider or (found or OPENAI).default, bare, found
