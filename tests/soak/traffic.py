"""Mixed traffic against the fake provider: every way in which calls are made, fail, are left and are refused.

`TRAFFIC` is the mix: each kind of call with its share. The models tell the kinds apart in everybody's books: those of
`EXACT` are only called in ways whose usage the wire tells, so that their sums must agree to the last unit; those of
`LOOSE` are what broke off or failed, of which the attempts must agree.
"""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from examples.fake_provider import FakeProvider

PROVIDERS: Final = ("openai", "anthropic", "gemini", "mistral", "cohere", "groq")
EXACT: Final = (
    "gpt-4o-mini-2024-07-18",
    "claude-haiku-4-5-20251001",
    "gemini-2.5-flash",
    "mistral-small-latest",
    "command-a-03-2025",
    "openai/gpt-oss-120b",
    "text-embedding-3-small",
)
LOOSE: Final = ("gpt-5.5-2026-04-23", "claude-sonnet-5")
REFUSED: Final = "gpt-5.4-mini"
ALLOWED: Final = 5
"""Calls of the model `REFUSED` that its budget lets through."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A way to call: where, with what, and what becomes of it."""

    share: int
    path: str
    body: Mapping[str, Any]
    stream: bool = False
    leave_after: int | None = None
    fault: str = ""
    retried: bool = False


def _chat(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Tell me what you are."}], **more}


_USAGE: Final = {"stream": True, "stream_options": {"include_usage": True}}
_GPT, _CLAUDE, _FLASH = (
    "/openai/v1/chat/completions",
    "/anthropic/v1/messages",
    "/gemini/v1beta/models/gemini-2.5-flash",
)
_CONTENTS: Final = {"contents": [{"role": "user", "parts": [{"text": "Tell me what you are."}]}]}
TRAFFIC: Final = (
    Kind(share=6, path=_GPT, body=_chat("gpt-4o-mini")),
    Kind(share=4, path=_GPT, body=_chat("gpt-4o-mini", **_USAGE), stream=True),
    Kind(share=4, path=_GPT, body=_chat("gpt-4o-mini", stream=True), stream=True),  # tollspan asks for its usage
    Kind(share=4, path=_CLAUDE, body=_chat("claude-haiku-4-5", max_tokens=80)),
    Kind(share=6, path=_CLAUDE, body=_chat("claude-haiku-4-5", max_tokens=80, stream=True), stream=True),
    Kind(share=3, path=f"{_FLASH}:generateContent", body=_CONTENTS),
    Kind(share=3, path=f"{_FLASH}:streamGenerateContent?alt=sse", body=_CONTENTS, stream=True),
    Kind(share=2, path=f"{_FLASH}:streamGenerateContent", body=_CONTENTS, stream=True),
    Kind(share=2, path="/mistral/v1/chat/completions", body=_chat("mistral-small-latest")),
    Kind(share=2, path="/cohere/v2/chat", body=_chat("command-a-03-2025")),
    Kind(share=2, path="/cohere/v2/chat", body=_chat("command-a-03-2025", stream=True), stream=True),
    Kind(share=2, path="/groq/openai/v1/chat/completions", body=_chat("openai/gpt-oss-120b")),
    Kind(share=2, path="/openai/v1/embeddings", body={"model": "text-embedding-3-small", "input": ["one", "two"]}),
    Kind(share=2, path=_GPT, body=_chat("gpt-4o-mini"), fault="429x1", retried=True),
    Kind(share=1, path=_CLAUDE, body=_chat("claude-haiku-4-5", max_tokens=80), fault="529x2", retried=True),
    # Here not everything is told.
    Kind(share=2, path=_GPT, body=_chat("gpt-5.5", **_USAGE), stream=True, leave_after=3),
    Kind(share=2, path=_CLAUDE, body=_chat("claude-sonnet-5", max_tokens=80, stream=True), stream=True, leave_after=4),
    Kind(share=1, path=_GPT, body=_chat("gpt-5.5", **_USAGE), stream=True, fault="cut:3"),
    Kind(share=1, path=_CLAUDE, body=_chat("claude-sonnet-5", max_tokens=9, stream=True), stream=True, fault="cut:5"),
    Kind(share=1, path=_GPT, body=_chat("gpt-5.5", **_USAGE), stream=True, fault="error:2"),
    Kind(share=1, path=_GPT, body=_chat("gpt-5.5"), fault="500"),
    Kind(share=1, path=_GPT, body=_chat("gpt-5.5"), fault="reset"),
    Kind(share=1, path=_GPT, body=_chat(REFUSED)),
)
_SHARES: Final = tuple(kind.share for kind in TRAFFIC)
ENCODINGS: Final = ("identity", "gzip", "deflate")
TRIES: Final = 3
KEYS: Final = {
    "authorization": "Bearer any",
    "x-api-key": "any",
    "x-goog-api-key": "any",
    "anthropic-version": "2023-06-01",
}


def drive(fake: FakeProvider, calls: int, *, seed: int = 1, threads: int = 6, tasks: int = 16) -> None:
    """Make so many calls, half from threads and half from tasks; every retry comes on top."""
    chosen = random.Random(seed).choices(TRAFFIC, _SHARES, k=calls)  # noqa: S311 - the same mix each time
    half = len(chosen) // 2
    with ThreadPoolExecutor(threads) as pool:
        shares = [chosen[at:half:threads] for at in range(threads)]
        work = [pool.submit(_in_thread, fake.url, share, at) for at, share in enumerate(shares)]
        asyncio.run(_in_tasks(fake.url, chosen[half:], tasks))
        for done in work:
            done.result()


def _headers(kind: Kind, number: int, retry: int) -> dict[str, str]:
    wishes = [f"input={500 + number % 700}", f"output={3 + number % 40}", f"cuts={(0, 7, 61)[number % 3]}"]
    wishes.append(f"encoding={ENCODINGS[number % 3]}")
    if number % 5 == 0:
        wishes.append("cached=256")
    if kind.fault:
        wishes.append(f"fault={kind.fault}")
    return {**KEYS, "x-fake": ", ".join(wishes), "x-stainless-retry-count": str(retry)}


def _in_thread(url: str, kinds: list[Kind], seed: int) -> None:
    with httpx2.Client(base_url=url, timeout=60) as client:
        for number, kind in enumerate(kinds):
            for retry in range(TRIES if kind.retried else 1):
                if _sync_call(client, kind, _headers(kind, number * 7 + seed, retry)):
                    break


def _sync_call(client: httpx2.Client, kind: Kind, headers: dict[str, str]) -> bool:
    """Make one call; tell whether it came out well."""
    with suppress(httpx2.HTTPError):
        if not kind.stream:
            return client.post(kind.path, json=kind.body, headers=headers).is_success
        with client.stream("POST", kind.path, json=kind.body, headers=headers) as response:
            for number, _ in enumerate(response.iter_lines()):
                if number == kind.leave_after:
                    break
            return response.is_success
    return False


async def _in_tasks(url: str, kinds: list[Kind], tasks: int) -> None:
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:

        async def some(share: list[Kind], seed: int) -> None:
            for number, kind in enumerate(share):
                for retry in range(TRIES if kind.retried else 1):
                    if await _async_call(client, kind, _headers(kind, number * 11 + seed, retry)):
                        break

        await asyncio.gather(*(some(kinds[at::tasks], at) for at in range(tasks)))


async def _async_call(client: httpx2.AsyncClient, kind: Kind, headers: dict[str, str]) -> bool:
    """Make one call; tell whether it came out well."""
    with suppress(httpx2.HTTPError):
        if not kind.stream:
            return (await client.post(kind.path, json=kind.body, headers=headers)).is_success
        async with client.stream("POST", kind.path, json=kind.body, headers=headers) as response:
            number = 0
            async for _ in response.aiter_lines():
                if number == kind.leave_after:
                    break
                number += 1
            return response.is_success
    return False
