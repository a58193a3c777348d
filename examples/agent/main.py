"""A Pydantic AI agent with a tool: its own instrumentation emits the spans, tollspan puts the cost on them.

    pip install tollspan 'pydantic-ai-slim[openai]'
    python examples/agent/main.py

Pydantic AI has a span for each call of a model, so tollspan adds none; the run's own span is never priced, for its
calls are. OPENAI_API_KEY and OPENAI_BASE_URL are read as everywhere.
"""

from __future__ import annotations

import os

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

import tollspan


def main() -> None:
    """Let an agent look something up and answer."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=line)))
    trace.set_tracer_provider(provider)
    tollspan.instrument()
    Agent.instrument_all()

    model = OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(base_url=os.environ.get("OPENAI_BASE_URL")))
    agent = Agent(model, name="bookseller")

    @agent.tool_plain
    def copies_in_stock(title: str) -> int:
        """Return how many copies of a book are in the shop."""
        return len(title)

    with tollspan.attribution(run="evening", agent="bookseller") as run:
        agent.run_sync("Is 'Moby Dick' in stock?")
    print(f"the run: {run.calls} calls, {run.tokens} tokens, {run.cost} USD")


def line(span: object) -> str:
    """Return the line that tells a span: its name, and its cost where it has one."""
    attributes = getattr(span, "attributes", None) or {}
    cost = attributes.get("gen_ai.usage.cost.amount")
    return f"{getattr(span, 'name', '')}: {'no cost of its own' if cost is None else f'{cost:.7f} USD'}\n"


if __name__ == "__main__":
    main()
