"""What is measured: one call and how often it is made at once; over bare httpx2, and over the vendors' SDKs."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from benchmarks.variants.answers import ANTHROPIC_MODEL, LENGTHS, OPENAI_MODEL
from benchmarks.variants.transports import transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.variants.setups import World

OPENAI_URL: Final = "https://api.openai.com/v1/chat/completions"
ANTHROPIC_URL: Final = "https://api.anthropic.com/v1/messages"
OTHER_URL: Final = "https://api.example.com/v1/orders/17"
AT_ONCE: Final = 32

_QUESTION: Final = [
    {"role": "system", "content": "You are a careful assistant that answers in one paragraph."},
    {"role": "user", "content": "Describe what the meter said. " * 8},
]
_JSON: Final = {"content-type": "application/json"}


@dataclass(frozen=True)
class Workload:
    """One call, a coroutine function where it is `later`; `at_once`: how many of them are made together."""

    one: Callable[[], Any]
    later: bool = False
    at_once: int = 1
    model_call: bool = True

    def inside(self, world: World) -> Workload:
        """Return the workload with what a variant puts around every call of a model."""
        if not self.model_call:
            return self
        return replace(self, one=(world.wrap_async if self.later else world.wrap)(self.one))

    def run(self, times: int, runner: asyncio.Runner) -> int:
        """Run it so many times, and give how many calls that were."""
        if self.later:
            runner.run(self._run_later(times))
        else:
            one = self.one
            for _ in range(times):
                one()
        return times * self.at_once

    async def _run_later(self, times: int) -> None:
        one, at_once = self.one, self.at_once
        for _ in range(times):
            if at_once == 1:
                await one()
            else:
                await asyncio.gather(*[one() for _ in range(at_once)])


def _openai(answer: str) -> dict[str, Any]:
    """Return the parameters of a chat completion that is answered so."""
    asked: dict[str, Any] = {
        "model": OPENAI_MODEL,
        "messages": _QUESTION,
        "temperature": 0.2,
        "max_tokens": 512,
        "user": f"answer:{answer}",
    }
    if answer != "call":
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return asked


def _anthropic(answer: str) -> dict[str, Any]:
    """Return the parameters of a streamed message that is answered so."""
    return {
        "model": ANTHROPIC_MODEL,
        "messages": _QUESTION[1:],
        "max_tokens": 512,
        "stream": True,
        "metadata": {"user_id": f"answer:{answer}"},
    }


def _body(asked: object) -> bytes:
    return json.dumps(asked, separators=(",", ":")).encode()


def raw(_world: World) -> dict[str, Workload]:
    """Return the workloads over httpx2 alone: a request that is built, sent and read, and nothing else."""
    lib = import_module("httpx2")
    client, later = lib.Client(transport=transport(lib)), lib.AsyncClient(transport=transport(lib))

    def call(content: bytes, url: str = OPENAI_URL) -> Any:
        return client.post(url, content=content, headers=_JSON).json()

    async def call_later(content: bytes) -> Any:
        return (await later.post(OPENAI_URL, content=content, headers=_JSON)).json()

    def stream(content: bytes, url: str = OPENAI_URL) -> None:
        with client.stream("POST", url, content=content, headers=_JSON) as response:
            for _ in response.iter_bytes():
                pass

    async def stream_later(content: bytes) -> None:
        async with later.stream("POST", OPENAI_URL, content=content, headers=_JSON) as response:
            async for _ in response.aiter_bytes():
                pass

    def openai(name: str) -> bytes:
        return _body(_openai(name))

    plain = openai("call")
    found = {
        "call": Workload(partial(call, plain)),
        f"{AT_ONCE} calls at once, async": Workload(partial(call_later, plain), later=True, at_once=AT_ONCE),
    }
    for count in LENGTHS:
        found |= {
            f"stream {count}": Workload(partial(stream, openai(f"stream {count}"))),
            f"stream {count}, anthropic": Workload(
                partial(stream, _body(_anthropic(f"anthropic {count}")), ANTHROPIC_URL)
            ),
            f"stream {count}, async": Workload(partial(stream_later, openai(f"stream {count}")), later=True),
            f"stream {count}, gzip": Workload(partial(stream, openai(f"gzip {count}"))),
        }
    return found | {
        "other POST": Workload(partial(call, b'{"item":17,"count":3}', OTHER_URL), model_call=False),
        "other GET": Workload(lambda: client.get(OTHER_URL).json(), model_call=False),
    }


def sdk(world: World) -> dict[str, Workload]:
    """Return the workloads over the vendors' SDKs."""
    openai, anthropic = import_module(world.openai), import_module("anthropic")
    vendor = import_module("openai")
    lib = import_module(vendor.DefaultHttpxClient.__base__.__module__.partition(".")[0])
    given: dict[str, Any] = {"api_key": "any", "max_retries": 0}
    client = openai.OpenAI(**given, http_client=vendor.DefaultHttpxClient(transport=transport(lib)))
    later = openai.AsyncOpenAI(**given, http_client=vendor.DefaultAsyncHttpxClient(transport=transport(lib)))
    claude = anthropic.Anthropic(**given, http_client=anthropic.DefaultHttpxClient(transport=transport(lib)))

    def stream(create: Callable[..., Any], asked: dict[str, Any]) -> None:
        for _ in create(**asked):
            pass

    async def stream_later(asked: dict[str, Any]) -> None:
        async for _ in await later.chat.completions.create(**asked):
            pass

    chat = client.chat.completions.create
    plain = _openai("call")
    found = {
        "call": Workload(partial(chat, **plain)),
        f"{AT_ONCE} calls at once, async": Workload(
            partial(later.chat.completions.create, **plain), later=True, at_once=AT_ONCE
        ),
    }
    for count in LENGTHS:
        found |= {
            f"stream {count}": Workload(partial(stream, chat, _openai(f"stream {count}"))),
            f"stream {count}, anthropic": Workload(
                partial(stream, claude.messages.create, _anthropic(f"anthropic {count}"))
            ),
            f"stream {count}, async": Workload(partial(stream_later, _openai(f"stream {count}")), later=True),
        }
    return found | {f"stream {LENGTHS[0]}, gzip": Workload(partial(stream, chat, _openai(f"gzip {LENGTHS[0]}")))}


KINDS: Final = {"raw": raw, "sdk": sdk}


def stream_body() -> bytes:
    """Return the body of a request for the shorter stream."""
    return _body(_openai(f"stream {LENGTHS[0]}"))


def call_request() -> tuple[dict[str, Any], bytes]:
    """Return the parameters and the body of a plain call."""
    asked = _openai("call")
    return asked, _body(asked)
