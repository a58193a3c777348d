"""A fake LLM provider on loopback: real wire shapes, made-up answers, and an independent tally of what it would bill.

    with FakeProvider() as fake:
        client = openai.OpenAI(base_url=fake.base_url("openai"), api_key="any")
        ...
        fake.tally()["spend_usd"]

It speaks OpenAI (chat completions, responses, embeddings), Anthropic messages, Gemini generateContent, Mistral chat,
Cohere v2 chat and Groq chat, plain and streamed, under `/openai`, `/anthropic` and so on, and at the bare paths too.
No model runs behind it and no money is spent: every response says `x-fake-provider: tollspan-demo`.

What it answers and what it counts (rules in `generation.py`, prices in `prices.py`):

- Four characters are a token, rounded up, and a message costs 4 more. One streamed piece of text is one output token.
- A header `x-fake: output=200, reasoning=64, input=5000, cached=1024, pace=0.1, encoding=gzip, cuts=7, fault=cut:3`
  sets any of these figures for one request; `FakeProvider(...)` sets pace, encoding and cuts for all.
- Faults (`faults.py`): by that header, by a model name such as `gpt-5.5#429x1`, or by `fake.fail_next(429)`.

It imports nothing of tollspan, so that it can be its judge. Standard library only.
"""

from __future__ import annotations

from examples.fake_provider.faults import Fault
from examples.fake_provider.server import FakeProvider

__all__ = ["FakeProvider", "Fault"]
