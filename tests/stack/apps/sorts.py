"""Make one or two calls of every sort that books tell apart: retried, broken off, refused, denied, cached, unpriced.

Headers `x-fake` tell the fake provider what to do. The budget for embeddings comes from the tests: `traffic.BUDGETS`.
"""

from __future__ import annotations

from contextlib import suppress

import anthropic
import openai

client = openai.OpenAI(max_retries=1)
claude = anthropic.Anthropic()


def ask(model: str, fake: str) -> None:
    """Ask a model of OpenAI's once."""
    client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "What does the bridge cost?"}],
        extra_headers={"x-fake": fake},
    )


ask("gpt-5.4-mini", "fault=429x1")
ask("gpt-99-made-up", "output=20")
for fault in ("fault=500", "fault=400"):
    with suppress(openai.APIStatusError):
        ask("gpt-5.5", fault)
with client.chat.completions.create(
    model="gpt-5.5",
    messages=[{"role": "user", "content": "What does the bridge cost?"}],
    stream=True,
    extra_headers={"x-fake": "output=60, pace=0.02"},
) as chunks:
    for number, _chunk in enumerate(chunks, start=1):
        if number == 5:
            break
for _ in range(2):
    claude.messages.create(
        model="claude-haiku-4-5",
        max_tokens=64,
        system=[{"type": "text", "text": "The toll. " * 2000, "cache_control": {"type": "ephemeral"}}],
        messages=[{"role": "user", "content": "What does the bridge cost?"}],
    )
for _ in range(3):
    with suppress(openai.APIStatusError):
        client.embeddings.create(model="text-embedding-3-small", input=["bridge"])
