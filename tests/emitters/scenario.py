"""Make every kind of call that an emitter can see, and tell what came of each: one JSON document on standard output.

    python tests/emitters/scenario.py EMITTER ORDER

It runs in the emitter's own environment (see `environments.py`), against the fake provider of `examples/`. ORDER is
when tollspan comes: `without` (never), `first` (before the emitter is set up) or `last` (after); `dropped` is `last`
with a sampler that drops every span. What is told of a case is what the fake provider's books say, every span and
metric that was emitted, and the records that tollspan made.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from examples.fake_provider import FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable

    from opentelemetry.sdk.trace.sampling import Sampler

    Case = Callable[[dict[str, str]], object]
    Cases = dict[str, Case]

USAGE = "input=500, output=20, cached=128"
RETRIED = f"{USAGE}, fault=429x1"
QUESTION = "Which book should I read next?"
AT_ONCE = 4  # calls under way in tasks of one loop
KEPT = 200  # characters of an attribute that are worth telling


@dataclass
class World:
    """The fake provider, what collects telemetry, and the loop that all asynchronous calls run in."""

    fake: FakeProvider
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = field(
        default_factory=lambda: InMemoryMetricReader(
            {Histogram: AggregationTemporality.DELTA, Counter: AggregationTemporality.DELTA}
        )
    )
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    calls: list[Any] = field(default_factory=list)

    def sdk(self, sampler: Sampler | None = None) -> TracerProvider:
        """Set up the SDK as an application does."""
        provider = TracerProvider(sampler)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        trace.set_tracer_provider(provider)
        metrics.set_meter_provider(MeterProvider([self.reader]))
        return provider


# --- Emitters: each sets itself up, with the SDK's providers, in the order that its documentation gives


def _instrumentors(*modules: str) -> Callable[[World], None]:
    def set_up(_world: World) -> None:
        for module, _, name in (entry.partition(":") for entry in modules):
            getattr(import_module(module), name)().instrument()

    return set_up


def _logfire(world: World) -> None:
    logfire = import_module("logfire")
    logfire.configure(
        send_to_logfire=False,
        console=False,
        inspect_arguments=False,
        additional_span_processors=[SimpleSpanProcessor(world.exporter)],
        metrics=logfire.MetricsOptions(additional_readers=[world.reader]),
    )
    logfire.instrument_openai()
    logfire.instrument_anthropic()


def _langfuse(_: World) -> None:
    # Nothing is listening there, and nothing is exported: Langfuse's own exporter is stopped with the process.
    import_module("langfuse").Langfuse(
        public_key="any", secret_key="any", base_url="http://127.0.0.1:9", tracer_provider=trace.get_tracer_provider()
    )


def _pydantic_ai(_: World) -> None:
    import_module("pydantic_ai").Agent.instrument_all()


SETUPS: dict[str, tuple[str, Callable[[World], None]]] = {
    "plain": ("sdks", lambda _: None),
    "genai": (
        "sdks",
        _instrumentors(
            "opentelemetry.instrumentation.genai.openai:OpenAIInstrumentor",
            "opentelemetry.instrumentation.genai.anthropic:AnthropicInstrumentor",
        ),
    ),
    "openinference": (
        "sdks",
        _instrumentors(
            "openinference.instrumentation.openai:OpenAIInstrumentor",
            "openinference.instrumentation.anthropic:AnthropicInstrumentor",
        ),
    ),
    "openllmetry": (
        "sdks",
        _instrumentors(
            "opentelemetry.instrumentation.openai:OpenAIInstrumentor",
            "opentelemetry.instrumentation.anthropic:AnthropicInstrumentor",
        ),
    ),
    "logfire": ("sdks", _logfire),
    "langfuse": ("sdks", _langfuse),
    "pydantic_ai": ("agents", _pydantic_ai),
    "langchain": ("langchain", lambda _: None),
    "langchain_genai": (
        "langchain",
        _instrumentors("opentelemetry.instrumentation.genai.langchain:LangChainInstrumentor"),
    ),
    "langchain_openinference": (
        "langchain",
        _instrumentors("openinference.instrumentation.langchain:LangChainInstrumentor"),
    ),
    "langchain_openllmetry": (
        "langchain",
        _instrumentors("opentelemetry.instrumentation.langchain:LangchainInstrumentor"),
    ),
}


# --- Calls


def _drain(stream: Iterable[Any]) -> None:
    for _ in stream:
        pass


async def _drain_async(stream: AsyncIterable[Any]) -> None:
    async for _ in stream:
        pass


def sdk_calls(world: World, emitter: str) -> Cases:
    """Return the calls of the vendors' SDKs: plain, streamed, through helpers, sync and async."""
    return {**_openai_calls(world, emitter), **_anthropic_calls(world)}


def _openai_calls(world: World, emitter: str) -> Cases:
    openai = import_module("langfuse.openai" if emitter == "langfuse" else "openai")
    given = {"base_url": world.fake.base_url("openai"), "api_key": "any"}
    client, later = openai.OpenAI(**given), openai.AsyncOpenAI(**given)
    chat = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": QUESTION}]}
    streamed = {**chat, "stream": True, "stream_options": {"include_usage": True}}
    response = {"model": "gpt-5.4-mini", "input": QUESTION}
    embedding = {"model": "text-embedding-3-small", "input": QUESTION}

    async def stream(headers: dict[str, str]) -> None:
        await _drain_async(await later.chat.completions.create(**streamed, extra_headers=headers))

    async def stream_response(headers: dict[str, str]) -> None:
        await _drain_async(await later.responses.create(**response, stream=True, extra_headers=headers))

    async def several(headers: dict[str, str]) -> None:
        await asyncio.gather(*(later.chat.completions.create(**chat, extra_headers=headers) for _ in range(AT_ONCE)))

    run = world.runner.run
    return {
        "openai chat": lambda h: client.chat.completions.create(**chat, extra_headers=h),
        "openai chat, streamed": lambda h: _drain(client.chat.completions.create(**streamed, extra_headers=h)),
        "openai chat, async": lambda h: run(later.chat.completions.create(**chat, extra_headers=h)),
        "openai chat, async, streamed": lambda h: run(stream(h)),
        "openai chat, async, several at once": lambda h: run(several(h)),
        "openai responses": lambda h: client.responses.create(**response, extra_headers=h),
        "openai responses, streamed": lambda h: _drain(
            client.responses.create(**response, stream=True, extra_headers=h)
        ),
        "openai responses, async, streamed": lambda h: run(stream_response(h)),
        "openai embeddings": lambda h: client.embeddings.create(**embedding, extra_headers=h),
    }


def _anthropic_calls(world: World) -> Cases:
    anthropic = import_module("anthropic")
    given = {"base_url": world.fake.base_url("anthropic"), "api_key": "any"}
    client, later = anthropic.Anthropic(**given), anthropic.AsyncAnthropic(**given)
    ask = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": QUESTION}]}

    def helper(headers: dict[str, str]) -> None:
        with client.messages.stream(**ask, extra_headers=headers) as stream:
            stream.get_final_message()

    async def stream(headers: dict[str, str]) -> None:
        await _drain_async(await later.messages.create(**ask, stream=True, extra_headers=headers))

    run = world.runner.run
    return {
        "anthropic messages": lambda h: client.messages.create(**ask, extra_headers=h),
        "anthropic messages, streamed": lambda h: _drain(client.messages.create(**ask, stream=True, extra_headers=h)),
        "anthropic messages, stream helper": helper,
        "anthropic messages, async": lambda h: run(later.messages.create(**ask, extra_headers=h)),
        "anthropic messages, async, streamed": lambda h: run(stream(h)),
    }


def agent_calls(world: World, _: str) -> Cases:
    """Return the calls of Pydantic AI: an agent that asks a model once."""
    agent = import_module("pydantic_ai").Agent
    settings = {"timeout": 10.0}
    openai = import_module("pydantic_ai.models.openai").OpenAIChatModel(
        "gpt-4o-mini",
        provider=import_module("pydantic_ai.providers.openai").OpenAIProvider(
            base_url=world.fake.base_url("openai"), api_key="any"
        ),
    )
    anthropic = import_module("pydantic_ai.models.anthropic").AnthropicModel(
        "claude-haiku-4-5",
        provider=import_module("pydantic_ai.providers.anthropic").AnthropicProvider(
            anthropic_client=import_module("anthropic").AsyncAnthropic(
                base_url=world.fake.base_url("anthropic"), api_key="any"
            )
        ),
    )

    def calls(name: str, model: Any) -> Cases:
        async def ask(headers: dict[str, str]) -> None:
            await agent(model).run(QUESTION, model_settings={**settings, "extra_headers": headers})

        async def stream(headers: dict[str, str]) -> None:
            asked = agent(model).run_stream(QUESTION, model_settings={**settings, "extra_headers": headers})
            async with asked as answer:
                await _drain_async(answer.stream_text())

        run = world.runner.run
        return {f"{name}, async": lambda h: run(ask(h)), f"{name}, async, streamed": lambda h: run(stream(h))}

    return {**calls("openai chat", openai), **calls("anthropic messages", anthropic)}


def langchain_calls(world: World, _: str) -> Cases:
    """Return the calls of LangChain's chat models."""
    openai, anthropic = import_module("langchain_openai").ChatOpenAI, import_module("langchain_anthropic").ChatAnthropic
    addresses = {provider: world.fake.base_url(provider) for provider in ("openai", "anthropic")}

    def gpt(headers: dict[str, str]) -> Any:
        return openai(
            model="gpt-4o-mini",
            base_url=addresses["openai"],
            api_key="any",
            default_headers=headers,
            stream_usage=True,
        )

    def claude(headers: dict[str, str]) -> Any:
        return anthropic(
            model="claude-haiku-4-5", base_url=addresses["anthropic"], api_key="any", default_headers=headers
        )

    def calls(name: str, model: Callable[[dict[str, str]], Any]) -> Cases:
        async def several(headers: dict[str, str]) -> None:
            await asyncio.gather(*(model(headers).ainvoke(QUESTION) for _ in range(AT_ONCE)))

        run = world.runner.run
        return {
            name: lambda h: model(h).invoke(QUESTION),
            f"{name}, streamed": lambda h: _drain(model(h).stream(QUESTION)),
            f"{name}, async": lambda h: run(model(h).ainvoke(QUESTION)),
            f"{name}, async, streamed": lambda h: run(_drain_async(model(h).astream(QUESTION))),
            f"{name}, async, several at once": lambda h: run(several(h)),
        }

    return {**calls("openai chat", gpt), **calls("anthropic messages", claude)}


CALLS: dict[str, Callable[[World, str], Cases]] = {
    "sdks": sdk_calls,
    "agents": agent_calls,
    "langchain": langchain_calls,
}


# --- What came of a call


def told(world: World) -> dict[str, Any]:
    """Return what came of the case that has just run."""
    tally = world.fake.tally()
    keys = ("calls", "input", "output", "cache_read", "cache_write", "reasoning")
    return {
        "tally": {
            "attempts": tally["attempts"],
            "spend_usd": tally["spend_usd"],
            **{key: sum(row[key] for row in tally["by"]) for key in keys},
        },
        "spans": [_span(span) for span in world.exporter.get_finished_spans()],
        "metrics": _metrics(world.reader),
        "records": [_record(call) for call in world.calls],
    }


def _span(span: Any) -> dict[str, Any]:
    attributes = {
        name: value
        for name, value in (span.attributes or {}).items()
        if isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) < KEPT)
    }
    scope = span.instrumentation_scope
    return {"scope": scope.name if scope else "", "name": span.name, "attributes": attributes}


def _metrics(reader: InMemoryMetricReader) -> list[dict[str, Any]]:
    data = reader.get_metrics_data()
    return [
        {"scope": scope.scope.name, "name": metric.name, "count": count}
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if (count := sum(getattr(point, "count", 0) for point in metric.data.data_points))
    ]


def _record(call: Any) -> dict[str, Any]:
    usage = call.usage
    return {
        "billable": call.billable,
        "amount": call.cost.amount,
        "quality": call.cost.quality,
        "input": None if usage is None else usage.input,
        "output": None if usage is None else usage.output,
        "cache_read": None if usage is None else usage.cache_read,
    }


def meter(world: World) -> None:
    """Let tollspan meter this process, and keep every record that it makes."""
    import tollspan
    from tollspan.setup.instrument import current

    tollspan.instrument()
    recorder = current()
    if recorder is None:
        message = "tollspan.instrument() made no recorder"
        raise RuntimeError(message)
    recorder.subscribers.append(world.calls.append)


def run(emitter: str, order: str) -> dict[str, Any]:
    """Make every call once, and those of a fixed few once more with a retry; give what came of each."""
    kind, set_up = SETUPS[emitter]
    found: dict[str, Any] = {}
    with FakeProvider() as fake:
        world = World(fake)
        os.environ["TOLLSPAN_HOSTS"] = f"{fake.netloc}/openai=openai,{fake.netloc}/anthropic=anthropic"
        if emitter != "logfire":
            world.sdk(ALWAYS_OFF if order == "dropped" else None)
        if order == "first":
            meter(world)
        set_up(world)
        if order in {"last", "dropped"}:
            meter(world)
        calls = CALLS[kind](world, emitter)
        for name, call in calls.items():
            for headers, suffix in ((USAGE, ""), (RETRIED, ", with a retry")):
                fake.reset()
                world.exporter.clear()
                world.reader.get_metrics_data()
                world.calls.clear()
                call({"x-fake": headers})
                found[name + suffix] = told(world)
        errors = _internal_errors() if order != "without" else {}
    return {"emitter": emitter, "order": order, "errors": errors, "cases": found}


def _internal_errors() -> dict[str, int]:
    from tollspan.setup.instrument import current

    recorder = current()
    return dict(recorder.accumulator.errors) if recorder is not None else {}


if __name__ == "__main__":
    json.dump(run(*sys.argv[1:]), sys.stdout)
    sys.stdout.flush()
    # Some emitters try for a while to export what is left; what they had to show has been shown.
    os._exit(0)
