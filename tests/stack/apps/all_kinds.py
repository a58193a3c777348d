"""Make every kind of call that a dashboard shows: an application that has everything happen to it.

Reads OPENAI_BASE_URL, ANTHROPIC_BASE_URL and their keys, as the SDKs do. Headers `x-fake` tell the fake provider what
to do. Budgets come from the configuration that the tests write: see `tests/stack/traffic.py`.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anthropic
import openai

import tollspan

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

client = openai.OpenAI(max_retries=2)
question: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What does the bridge cost?"}]


def ask(model: str, fake: str = "", **more: Any) -> None:
    """Ask a model of OpenAI's once."""
    headers = {"x-fake": fake} if fake else {}
    client.chat.completions.create(model=model, messages=question, extra_headers=headers, **more)


def stream(model: str, fake: str, most: int) -> None:
    """Ask for a stream, and leave it after `most` chunks."""
    with client.chat.completions.create(
        model=model,
        messages=question,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers={"x-fake": fake},
    ) as chunks:
        for number, _ in enumerate(chunks, start=1):
            if number == most:
                return


def plain_calls() -> None:
    """Make calls that end well, of a dear and of a cheap model, and with their first attempt refused."""
    ask("gpt-5.5", "output=6000")
    ask("gpt-4o-mini")
    ask("gpt-5.4-mini", "fault=429x1")


def streams() -> None:
    """Read streams to their end, leave one early, and have one broken off by the provider."""
    for _ in range(25):  # an alert on the time to the first token wants more than 20
        stream("gpt-5.5", "output=20", 1000)
    stream("gpt-5.5", "output=60, pace=0.05", 5)
    with suppress(openai.OpenAIError, Exception):
        stream("gpt-5.5", "fault=cut:4", 1000)


def failures() -> None:
    """Have calls refused for good, and one that has no price."""
    for fake in ("fault=500", "fault=400"):
        with suppress(openai.APIStatusError):
            ask("gpt-5.5", fake)
    ask("gpt-99-made-up")


def cached_prompts() -> None:
    """Send one long prompt several times, so that it is written to the provider's cache and read from there."""
    claude = anthropic.Anthropic()
    for _ in range(3):
        claude.messages.create(
            model="claude-haiku-4-5",
            max_tokens=64,
            system=[{"type": "text", "text": "The toll. " * 2000, "cache_control": {"type": "ephemeral"}}],
            messages=[{"role": "user", "content": "What does the bridge cost?"}],
        )


def budgets() -> None:
    """Go past the budget for embeddings, and have a call cost more than could be foreseen."""
    for _ in range(3):
        with suppress(openai.APIStatusError):
            client.embeddings.create(model="text-embedding-3-small", input=["bridge"])
    ask("gpt-4o-mini", "input=90000", max_tokens=5, user="overshoot")


def own_failure() -> None:
    """Subscribe something that fails: tollspan counts it as a failure of what is done in its name."""

    def fails(_: tollspan.UsageRecord) -> None:
        raise RuntimeError("made to fail")

    stop = tollspan.subscribe(fails)
    ask("gpt-4o-mini")
    stop()


plain_calls()
streams()
failures()
cached_prompts()
with tollspan.attribution(user="somebody", session="a-session", agent="toller", tags={"tier": "gold"}):
    budgets()
own_failure()
# Reported at least twice: what grows within a process is seen to grow, as in an application that lives on.
time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0)
ask("gpt-5.5", "output=20")
