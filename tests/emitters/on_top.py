"""Make one call in each way that people call an SDK that stands on others, and tell what came of each, as JSON.

    python tests/emitters/on_top.py SDK

It runs in the SDK's own environment (see `environments.py`): litellm and Pydantic AI pin much of what they need.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import tollspan
from examples.fake_provider import FakeProvider
from tollspan.setup.instrument import current

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.model.records import Call

    Calls = dict[str, Callable[[], Any]]

QUESTION: Final = "Tell me what you are, in a sentence or two."
SAID: Final = [{"role": "user", "content": QUESTION}]
USAGE: Final = {"include_usage": True}
MODELS: Final = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}
COUNTS: Final = ("input", "output", "cache_read", "cache_write", "reasoning")


def _drain(stream: Any) -> None:
    for _ in stream:
        pass


async def _drain_async(stream: Any) -> None:
    async for _ in stream:
        pass


def litellm_calls(fake: FakeProvider) -> Calls:
    """Return the calls of litellm: completions by two providers, embeddings, responses."""
    litellm = import_module("litellm")
    url = {"api_base": fake.base_url("openai"), "api_key": "any"}
    embed: dict[str, Any] = {"model": "openai/text-embedding-3-small", "input": ["one text", "another text"], **url}
    respond: dict[str, Any] = {"model": "openai/gpt-5.4-mini", "input": QUESTION, **url}

    async def respond_stream() -> None:
        await _drain_async(await litellm.aresponses(**respond, stream=True))

    found: Calls = {
        "openai embeddings": lambda: litellm.embedding(**embed),
        "openai embeddings, async": lambda: litellm.aembedding(**embed),
        "openai responses": lambda: litellm.responses(**respond),
        "openai responses, streamed": lambda: _drain(litellm.responses(**respond, stream=True)),
        "openai responses, async": lambda: litellm.aresponses(**respond),
        "openai responses, async, streamed": respond_stream,
    }
    for provider in MODELS:
        found |= _completions(litellm, provider, fake.base_url(provider))
    return found


def _completions(litellm: Any, provider: str, url: str) -> Calls:
    chat = {
        "model": f"{provider}/{MODELS[provider]}",
        "messages": SAID,
        "max_tokens": 60,
        "api_base": url,
        "api_key": "any",
    }
    streamed = {**chat, "stream": True, "stream_options": USAGE}

    async def stream() -> None:
        await _drain_async(await litellm.acompletion(**streamed))

    return {
        f"{provider} chat": lambda: litellm.completion(**chat),
        f"{provider} chat, streamed": lambda: _drain(litellm.completion(**streamed)),
        f"{provider} chat, async": lambda: litellm.acompletion(**chat),
        f"{provider} chat, async, streamed": stream,
    }


def agent_calls(fake: FakeProvider) -> Calls:
    """Return the synchronous calls of Pydantic AI, which run a loop of their own; the others are in `scenario.py`."""
    agent = import_module("pydantic_ai").Agent
    model = import_module("pydantic_ai.models.openai").OpenAIChatModel(
        MODELS["openai"],
        provider=import_module("pydantic_ai.providers.openai").OpenAIProvider(
            base_url=fake.base_url("openai"), api_key="any"
        ),
    )
    return {
        "openai chat": lambda: agent(model).run_sync(QUESTION),
        "openai chat, streamed": lambda: _drain(agent(model).run_stream_sync(QUESTION).stream_text()),
    }


SDKS: Final[dict[str, Callable[[FakeProvider], Calls]]] = {"litellm": litellm_calls, "pydantic_ai": agent_calls}


def told(fake: FakeProvider, records: list[Call]) -> dict[str, Any]:
    """Return what the provider's books say of a call, and what tollspan does."""
    recorder = current()
    tally = fake.tally()
    return {
        "attempts": tally["attempts"],
        "books": {"spend": tally["spend_usd"], **{name: sum(row[name] for row in tally["by"]) for name in COUNTS}},
        "records": [
            {
                "spend": None if call.cost.amount is None else str(tollspan.usd(call.cost.amount)),
                "quality": call.cost.quality,
                "outcome": call.outcome,
                "first_token": call.time_to_first_token is not None,
                **{name: getattr(call.usage, name, None) or 0 for name in COUNTS},
            }
            for call in records
        ],
        "errors": {} if recorder is None else dict(recorder.accumulator.errors),
    }


def main(sdk: str) -> None:
    """Make every call, one after the other."""
    found: dict[str, Any] = {}
    with FakeProvider() as fake, asyncio.Runner() as runner:
        os.environ["TOLLSPAN_HOSTS"] = ",".join(f"{fake.netloc}/{provider}={provider}" for provider in MODELS)
        tollspan.instrument()
        records: list[Call] = []
        if (recorder := current()) is not None:
            recorder.views.append(("test", records.append))
        for name, call in SDKS[sdk](fake).items():
            fake.reset()
            records.clear()
            if "async" in name:
                runner.run(_awaited(call))
            else:
                call()
            found[name] = told(fake, records)
        json.dump(found, sys.stdout)
        sys.stdout.flush()
        os._exit(0)  # litellm's own threads and tasks would keep the process for a while


async def _awaited(call: Callable[[], Any]) -> None:
    await call()


if __name__ == "__main__":
    main(*sys.argv[1:])
