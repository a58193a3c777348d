"""What pricing one call takes, beside genai-prices and litellm in the same run.

    python -m benchmarks.prices [--quick]

The other two are measured where they are installed, as `make bench` does (benchmarks/environments/price-engines.txt).
Times are medians of many short blocks, interleaved, so that a busy neighbour slows all three alike. The first price is
measured in fresh processes: from after the imports to the priced call, the opening of the table included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import tracemalloc
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = (
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-5-mini"),
    ("anthropic", "claude-haiku-4-5"),
    ("anthropic", "claude-sonnet-4-6"),
    ("gemini", "gemini-2.5-flash"),
)
INPUT, CACHED, OUTPUT = 1200, 1024, 345
BLOCKS, CALLS = 40, 400
FEW_BLOCKS, FEW_STARTS = 2, 1
STARTS = 7

FIRST = """
import json, time, tracemalloc
from datetime import UTC, datetime
from tollspan.model.records import Billable, Usage
from tollspan.prices import bundled, price
call = Billable(usage=Usage(input=1200, output=345, cache_read=1024), price_providers=("openai",), model="gpt-4o-mini")
now = datetime.now(UTC)
begin = time.perf_counter()
cost = price(call, bundled(), now)
print(json.dumps((time.perf_counter() - begin) * 1000))
"""


def ours() -> Callable[[], None]:
    """Price the models with tollspan, the facts of the call made anew each time, as the reader does."""
    from tollspan.model.records import Billable, Usage
    from tollspan.prices import bundled, price

    table, now = bundled(), datetime.now(UTC)
    calls = [
        Billable(usage=Usage(input=INPUT, output=OUTPUT, cache_read=CACHED), price_providers=(provider,), model=model)
        for provider, model in MODELS
    ]

    def run() -> None:
        for call in calls:
            price(call, table, now)

    return run


def genai() -> Callable[[], None]:
    """Price them with genai-prices."""
    import genai_prices  # type: ignore[import-not-found]  # only in the environment of the differential test

    names = {"gemini": "google"}
    calls = [
        (genai_prices.Usage(input_tokens=INPUT, cache_read_tokens=CACHED, output_tokens=OUTPUT), provider, model)
        for provider, model in MODELS
    ]

    def run() -> None:
        for usage, provider, model in calls:
            genai_prices.calc_price(usage, model_ref=model, provider_id=names.get(provider, provider))

    return run


def litellm() -> Callable[[], None]:
    """Price them with litellm's completion_cost, from a response, as its users do."""
    from litellm import completion_cost  # type: ignore[import-not-found]  # as above
    from litellm.types import utils as spelling  # type: ignore[import-not-found]

    def answer(model: str) -> object:
        usage = spelling.Usage(
            prompt_tokens=INPUT,
            completion_tokens=OUTPUT,
            total_tokens=INPUT + OUTPUT,
            prompt_tokens_details=spelling.PromptTokensDetailsWrapper(cached_tokens=CACHED),
        )
        message = {"role": "assistant", "content": "hello"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return spelling.ModelResponse(id="x", model=model, choices=choices, usage=usage)

    names = [f"gemini/{model}" if provider == "gemini" else model for provider, model in MODELS]
    calls = [(answer(name), name) for name in names]

    def run() -> None:
        for response, name in calls:
            completion_cost(completion_response=response, model=name)

    return run


def microseconds(runs: dict[str, Callable[[], None]], count: int) -> dict[str, float]:
    """Return the microseconds of CPU time that a call takes with each, `count` blocks interleaved."""
    blocks: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            rounds = CALLS if name == "tollspan" else CALLS // 20
            begin = time.process_time()
            for _ in range(rounds):
                run()
            blocks[name].append((time.process_time() - begin) / rounds / len(MODELS) * 1e6)
    return {name: median(times) for name, times in blocks.items()}


def first_price(starts: int) -> float:
    """Return the milliseconds of a first price in a fresh process, the median of several."""
    return median(
        float(json.loads(subprocess.run([sys.executable, "-c", FIRST], capture_output=True, check=True).stdout))  # noqa: S603 - our own interpreter
        for _ in range(starts)
    )


def table_memory() -> float:
    """Return the megabytes that the bundled table holds, opened anew, with the models above in its caches."""
    from tollspan.model.records import Billable, Usage
    from tollspan.prices import PriceTable, price, snapshot

    tracemalloc.start()
    table = PriceTable.parse(snapshot.PATH.read_bytes())
    for provider, model in MODELS:
        call = Billable(usage=Usage(input=1, output=1), price_providers=(provider,), model=model)
        price(call, table, datetime.now(UTC))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="prices", description="What pricing one call takes.")
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    quick = parser.parse_args().quick
    runs = {"tollspan": ours()}
    for name, module, make in (("genai-prices", "genai_prices", genai), ("litellm", "litellm", litellm)):
        if find_spec(module):
            runs[name] = make()
        else:
            print(f"{name}: not installed, not compared")
    for run in runs.values():
        run()
    times = microseconds(runs, FEW_BLOCKS if quick else BLOCKS)
    print(f"{'one price, warm':24}{'us/call':>10}{'times ours':>12}")
    for name, spent in times.items():
        label = name if name == "tollspan" else f"{name} {metadata.version(name)}"
        print(f"{label:24}{spent:10.2f}{spent / times['tollspan']:12.1f}")
    first = first_price(FEW_STARTS if quick else STARTS)
    print(f"first price in a fresh process, table opened: {first:.2f} ms (bound: 5)")
    print(f"memory of the table, with {len(MODELS)} models in use: {table_memory():.2f} MB (bound: 3)")
    print(f"warm price: {times['tollspan']:.2f} us (bound: 3)")


if __name__ == "__main__":
    main()
